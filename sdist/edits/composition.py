"""The edit put back into its source: pixels outside of the mask are the source's own, and the result has the source's size."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..config.settings import CompositionSettings, Settings
from ..files.frames import Box, Pixels, whole_pixels
from ..files.images import read_image
from ..files.masks import read_mask
from .request import Prepared, Result

Channel = Float[np.ndarray, "_ _"]


@dataclass(frozen=True)
class Canvas:
    """What an edit is put into, and where: `size` (width, height) of the edit are the `box` of the image."""

    image: Image.Image
    mask: Image.Image | None  # the user's, as large as the image
    box: Box
    size: tuple[int, int]

    @cached_property
    def region(self) -> Pixels:
        """The pixels that are wholly in the box."""
        return whole_pixels(self.box)

    def resized(self, channel: Channel, by: Image.Resampling) -> Channel:
        """From the pixels of the edit to those of the region, which may begin and end between two of them."""
        (x, y, right, bottom), (left, top, *_) = self.region, self.box
        across, down = self.size[0] / (self.box[2] - left), self.size[1] / (self.box[3] - top)
        part = (
            max(0.0, (x - left) * across),
            max(0.0, (y - top) * down),
            min((right - left) * across, self.size[0]),
            min((bottom - top) * down, self.size[1]),
        )
        return np.asarray(Image.fromarray(channel).resize((right - x, bottom - y), by, box=part))


def composed(result: Result, settings: Settings) -> Result:
    """The result as the settings want it, with what was done for the card; where nothing may change, pixels are exact."""
    prepared, at_source = result.prepared, settings.at_source
    keeps = settings.keep_background or (settings.crop != "none" and prepared.mask is not None)
    if not keeps and not at_source:
        return result
    canvas = _source(prepared) if at_source else _edited(prepared)
    share = _share(result, canvas, settings.composition) if keeps else None
    image = _put_back(result, canvas, share, settings.composition.paste == "residual")
    said = {"box": [round(side, 3) for side in canvas.box], "edited": list(canvas.size)} if at_source else {}
    if share is not None:
        kept = 1 - int(np.count_nonzero(share)) / (image.width * image.height)
        said |= {"mask": _whose_mask(result), "kept": round(kept, 6)}
    return replace(result, image=image, composition=said)


def _edited(prepared: Prepared) -> Canvas:
    """The image as it was edited."""
    width, height = prepared.image.size
    return Canvas(prepared.image, prepared.mask, (0.0, 0.0, width, height), (width, height))


def _source(prepared: Prepared) -> Canvas:
    """The image as it was given."""
    request = prepared.request
    image = read_image(request.file, request.plain).image
    mask = None if request.mask_file is None else read_mask(request.mask_file, request.plain).image
    if mask is not None and mask.size != image.size:
        mask = mask.resize(image.size, Image.Resampling.BILINEAR)
    return Canvas(image, mask, prepared.box or (0.0, 0.0, *image.size), prepared.image.size)


def _put_back(result: Result, canvas: Canvas, share: Channel | None, adds: bool) -> Image.Image:
    """The canvas with the edit in its region: channel by channel, since a photograph is large."""
    own, by = canvas.image.crop(canvas.region), Image.Resampling.BICUBIC
    bands = list[Image.Image]()
    for before, after, there in zip(result.prepared.image.split(), result.image.split(), own.split(), strict=True):
        kept, new = np.asarray(there, np.float32), np.asarray(after, np.float32)
        change = canvas.resized(new - np.asarray(before, np.float32), by) if adds else canvas.resized(new, by) - kept
        values = kept + (change if share is None else share * change)
        bands.append(Image.fromarray(values.round().clip(0, 255).astype(np.uint8)))
    image = canvas.image.copy()
    image.paste(Image.merge("RGB", bands), canvas.region[:2])
    return image


def _whose_mask(result: Result) -> str | None:
    """Which mask says what is kept."""
    if result.prepared.mask is not None:
        return "image"
    return None if result.mask is None else "method"


def _share(result: Result, canvas: Canvas, options: CompositionSettings) -> Channel:
    """How much of the edit each pixel of the region has: a mask image as it was painted, or the method's last mask."""
    left, top, right, bottom = canvas.region
    if canvas.mask is not None:
        return np.asarray(canvas.mask.crop(canvas.region), np.float32) / 255
    if result.mask is None:
        return np.ones((bottom - top, right - left), np.float32)
    return canvas.resized(soft_mask(result.mask, canvas.size, options), Image.Resampling.BILINEAR)


def soft_mask(mask: Float[Tensor, "1 h w"], size: tuple[int, int], options: CompositionSettings) -> Channel:
    """A method's mask at the size (width, height) of the edit: cut at the threshold, widened, with a soft edge."""
    grow, feather = (round(part * min(size)) for part in (options.grow, options.feather))
    above = (mask.detach().float().cpu() > options.threshold).float()
    wide = F.interpolate(above[None], size[::-1], mode="nearest")
    for across in ((1, 2 * grow + 1), (2 * grow + 1, 1)):
        wide = F.max_pool2d(wide, across, 1, (across[0] // 2, across[1] // 2))
    for across in ((1, 2 * feather + 1), (2 * feather + 1, 1)):
        wide = F.avg_pool2d(wide, across, 1, (across[0] // 2, across[1] // 2), count_include_pad=False)
    return wide[0, 0].clamp(0, 1).numpy()
