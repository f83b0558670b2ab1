"""Colours as sRGB: the ICC profile that a file carries is used, and then gone."""

from functools import cache
from io import BytesIO
from typing import cast

import numpy as np
from PIL import ExifTags, Image, ImageCms

SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of a profile: the mode whose values it explains
SAME = 2  # levels of 255 by which a profile may differ from sRGB and be taken as it


def to_srgb(image: Image.Image) -> tuple[Image.Image, list[str], list[str]]:
    """The image in sRGB as far as its profile says, with what was done and what is wrong with the profile, if anything.

    sRGB itself changes nothing; alpha stays as it is.
    """
    data = image.info.get("icc_profile")
    if not data:
        return image, [], ["EXIF says Adobe RGB, without a profile: colours are taken as sRGB"] if _says_adobe(image) else []
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(data))
        name = " ".join(ImageCms.getProfileDescription(profile).split()) or "unnamed"
        mode = SPACES[profile.profile.xcolor_space]
        if mode == "RGB" and _is_srgb(profile):
            return image, [], []
        converted = _converted(image, profile, mode)
    except Exception as error:  # whatever LittleCMS or Pillow make of it
        reason = " ".join(str(error).split()) or type(error).__name__
        return image, [], [f"its colour profile cannot be used ({reason}): colours are taken as sRGB"]
    return converted, [f"colours converted from its profile '{name}' to sRGB"], []


def _says_adobe(image: Image.Image) -> bool:
    """Whether EXIF's index of interoperability is that of cameras set to Adobe RGB."""
    try:
        return image.getexif().get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03"
    except Exception:  # damaged EXIF
        return False


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether it leaves a lattice of colours as they are."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    lattice = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(9, 81, 3)
    moved = np.asarray(_transform(Image.fromarray(lattice), profile, "RGB"), int)
    return bool(np.abs(moved - lattice).max() <= SAME)


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile, mode: str) -> Image.Image:
    """RGB, or RGBA if the image has alpha. Raises PyCMSError where the profile is of another kind of image."""
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if has_alpha else None
    if (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and image.mode not in ("1", "L", "LA")):
        raise ImageCms.PyCMSError(f"it is for {mode}, the image is {image.mode}")
    rgb = _transform(image.convert("RGB").convert(mode) if image.mode != mode else image, profile, mode)
    if alpha is not None:
        rgb.putalpha(alpha)
    return rgb


def _transform(image: Image.Image, profile: ImageCms.ImageCmsProfile, mode: str) -> Image.Image:
    transform = ImageCms.buildTransform(profile, _srgb(), mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    return cast(Image.Image, ImageCms.applyTransform(image, transform))  # None in place alone
