"""What a VAE's configuration says of its latents: their scale, shift and statistics, as diffusers applies them."""

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

STATISTICS = ("latents_mean", "latents_std")  # one number per channel: z = (x - mean) scaling_factor / std, of AutoencoderKL

OFFSETS = ("shift_factor", *STATISTICS)  # beside the scaling factor, which every pipeline of diffusers reads

LATENTS = ("scaling_factor", *OFFSETS)


def check_vae(config: Any) -> None:
    """Raises UserError for a VAE of images in other than three channels, and for numbers that scale nothing."""
    reads = _either(config, "in_channels", "input_channels")
    if (reads, makes := getattr(config, "out_channels", reads)) != (3, 3):
        raise UserError(f"vae: it makes {makes} channels of {reads}, an image has 3")
    scaling = getattr(config, "scaling_factor", 1.0)  # of some classes there is none
    if not _is_number(scaling) or scaling == 0:
        raise UserError(f"vae: scaling_factor must be a number other than 0, got {scaling!r}")
    if not _is_number(getattr(config, "shift_factor", None) or 0):
        raise UserError(f"vae: shift_factor must be a number, got {config.shift_factor!r}")
    channels = _either(config, "latent_channels", "z_dim")
    for name in STATISTICS:
        values = getattr(config, name, None)
        is_list = isinstance(values, list | tuple) and len(values) == channels
        if values is not None and not (is_list and all(map(_is_number, values))):
            raise UserError(f"vae: {name} must be {channels} numbers, one per channel, got {values!r}")
    if any(value <= 0 for value in getattr(config, "latents_std", None) or ()):
        raise UserError(f"vae: latents_std must be above 0, got {config.latents_std!r}")
    if sum(getattr(config, name, None) is not None for name in STATISTICS) == 1:
        raise UserError(f"vae: {' and '.join(STATISTICS)} belong together, its configuration has one of them")


def native_side(sample_size: Any, config: Any, factor: int) -> int:
    """The side in pixels of the images that a denoiser was trained on; where it does not say so, what its VAE was trained on.

    Of a list (height, width) the shorter side. Raises UserError if neither says anything.
    """
    latent, pixels = _side(sample_size), _side(getattr(config, "sample_size", None))
    if latent is None and pixels is None:
        raise UserError(
            f"sample_size is {sample_size!r} in the denoiser's config.json, so the size of its images is unknown: write a number"
        )
    return latent * factor if latent is not None else (pixels or 0) // factor * factor


def _side(size: Any) -> int | None:
    sides = [int(side) for side in (size if isinstance(size, list | tuple) else [size]) if _is_number(side) and side >= 1]
    return min(sides, default=None)


def shift_of(vae: Any) -> float | Tensor:
    """What is subtracted from the posterior's mean before it is scaled."""
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    mean = getattr(vae.config, "latents_mean", None)
    return shift if mean is None else shift + _per_channel(mean, vae)


def scale_of(vae: Any) -> float | Tensor:
    """What the difference is multiplied by."""
    std = getattr(vae.config, "latents_std", None)
    scaling = getattr(vae.config, "scaling_factor", 1.0)
    return scaling if std is None else scaling / _per_channel(std, vae)


def _per_channel(values: Any, vae: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=vae.device)[:, None, None]


def _either(config: Any, usual: str, other: str) -> Any:
    """A setting that autoencoders of videos have under another name."""
    return getattr(config, usual) if hasattr(config, usual) else getattr(config, other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
