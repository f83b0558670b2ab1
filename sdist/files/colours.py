"""Colours as sRGB: the ICC profile that a file carries is used, or else what a PNG says of its gamma, and then gone."""

from functools import cache
from io import BytesIO
from typing import cast

import numpy as np
from PIL import ExifTags, Image, ImageCms

from .png_chunks import CICP

SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of a profile: the mode whose values it explains
TAKEN = "colours are taken as sRGB"
SRGB_CODE = (1, 13)  # in a cICP: primaries and transfer function
PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # of sRGB, as a cHRM has them: white, red, green, blue
SLACK = 0.01  # by which they may differ
GAMMA, NEAR, MEANT = 0.45455, 0.05, (0.01, 100.0)  # a gAMA that is sRGB in effect, by what part one may differ, what one can be
SAME = 2  # levels of 255 by which a profile may differ from sRGB and be taken as it


def to_srgb(image: Image.Image) -> tuple[Image.Image, list[str], list[str]]:
    """The image in sRGB as far as its profile says, with what was done and what is wrong with the profile, if anything.

    sRGB itself changes nothing; alpha stays as it is.
    """
    data = image.info.get("icc_profile")
    if not data:
        return _without_profile(image)
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(data))
        name = " ".join(ImageCms.getProfileDescription(profile).split()) or "unnamed"
        mode = SPACES[profile.profile.xcolor_space]
        if mode == "RGB" and _is_srgb(profile):
            return image, [], []
        converted = _converted(image, profile, mode)
    except Exception as error:  # whatever LittleCMS or Pillow make of it
        reason = " ".join(str(error).split()) or type(error).__name__
        return image, [], [f"its colour profile cannot be used ({reason}): {TAKEN}"]
    return converted, [f"colours converted from its profile '{name}' to sRGB"], []


def _without_profile(image: Image.Image) -> tuple[Image.Image, list[str], list[str]]:
    """By a PNG's chunks: cICP is before sRGB, and both are before gAMA and cHRM; by EXIF where there are none."""
    if (code := image.info.get(CICP)) is not None and tuple(code[:2]) != SRGB_CODE:
        said = f"primaries {code[0]}, transfer {code[1]}" if len(code) > 1 else "nothing that can be read"
        return image, [], [f"its cICP says {said}, which are not sRGB's ({SRGB_CODE[0]}, {SRGB_CODE[1]}): {TAKEN}"]
    if code is not None or "srgb" in image.info:
        return image, [], []
    if (gamma := image.info.get("gamma")) is None:
        return (
            image,
            [],
            _other_primaries(image) or ([f"EXIF says Adobe RGB, without a profile: {TAKEN}"] if _says_adobe(image) else []),
        )
    if not MEANT[0] <= gamma <= MEANT[1]:
        return image, [], [f"its gAMA is {gamma:g}, which means nothing: {TAKEN}"]
    if abs(gamma / GAMMA - 1) < NEAR:
        return image, [], _other_primaries(image)
    return _from_gamma(image, gamma), [f"colours converted from its gamma (gAMA {gamma:g}) to sRGB"], _other_primaries(image)


def _other_primaries(image: Image.Image) -> list[str]:
    primaries = image.info.get("chromaticity", PRIMARIES)
    other = any(abs(one - own) > SLACK for one, own in zip(primaries, PRIMARIES, strict=False))
    return [f"its cHRM says other primaries than sRGB's: {TAKEN}"] if other else []


def _from_gamma(image: Image.Image, gamma: float) -> Image.Image:
    """RGB, or RGBA if the image has alpha, of values that are light to the power of gamma."""
    light = (np.arange(256) / 255) ** (1 / gamma)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table = (encoded * 255).round().astype(int).tolist()
    out = image.convert("RGBA").point([*table * 3, *range(256)]) if _has_alpha(image) else image.convert("RGB").point(table * 3)
    out.info["srgb"] = 0  # the gamma that is still there stands for nothing now
    return out


def _has_alpha(image: Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


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
    alpha = image.convert("RGBA").getchannel("A") if _has_alpha(image) else None
    if (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and image.mode not in ("1", "L", "LA")):
        raise ImageCms.PyCMSError(f"it is for {mode}, the image is {image.mode}")
    rgb = _transform(image.convert("RGB").convert(mode) if image.mode != mode else image, profile, mode)
    if alpha is not None:
        rgb.putalpha(alpha)
    return rgb


def _transform(image: Image.Image, profile: ImageCms.ImageCmsProfile, mode: str) -> Image.Image:
    transform = ImageCms.buildTransform(profile, _srgb(), mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    return cast(Image.Image, ImageCms.applyTransform(image, transform))  # None in place alone
