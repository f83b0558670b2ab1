"""The number format of the denoiser, and a gate: half precision only where its error cannot pass for a gradient."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..diffusion import add_noise, std
from ..errors import UserError
from ..prediction import SOURCE, TARGET, call
from .base import Backbone
from .finite import check_finite
from .layerwise import layerwise
from .residence import is_on

log = logging.getLogger("sdist")

Precision = Literal["auto", "fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SHARE = 0.2  # of the filter's threshold, that an error may reach
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the schedule, at which it is measured
PROMPTS = ("a photo of a house", "a photo of a red house")


class Floor(NamedTuple):
    """What a gradient of nothing looks like, as the filter measures it: standard deviations, the largest over timesteps."""

    identical: float  # of the difference of two predictions for the same prompt
    error: float  # of what half precision adds to the difference of predictions for two prompts


def format_on(device: str, precision: Precision) -> str:
    """What a precision means on a kind of device: "auto" is fp16 on CUDA, else fp32."""
    return ("fp16" if device == "cuda" else "fp32") if precision == "auto" else precision


def lower(backbone: Backbone, precision: Precision, threshold: float | None) -> None:
    """Brings the denoiser, and it alone, to what the precision means on its device; it may be in that format already.

    With a `threshold` of a std filter the noise floor is measured first. Where it is above a fifth of the threshold, "auto"
    stays in fp32 and says so, and a format that was asked for raises a UserError with the figures. A filter whose threshold is 0
    takes every draw or finds its own: then the figures are a warning.
    """
    chosen = format_on(backbone.device.type, precision)
    if (
        chosen != "fp32"
        and threshold is not None
        and not _is_fine(measure(backbone, DTYPES[chosen]), precision, chosen, threshold)
    ):
        chosen = "fp32"
        backbone.residence.fit(torch.float32)
    _convert(backbone, DTYPES[chosen])


def _is_fine(floor: Floor, precision: Precision, chosen: str, threshold: float) -> bool:
    """Whether a format with that floor goes with the threshold. Raises UserError if not, and it was asked for."""
    figures = f"{chosen}: SD {floor.identical:.1e} between equal prompts, error {floor.error:.1e} against fp32"
    if threshold == 0 and all(map(math.isfinite, floor)):
        log.warning("precision %s; the filter has no threshold of its own that these could be held against", figures)
        return True
    figures += f"; the filter's threshold of {threshold:g} allows {SHARE * threshold:.1e}"
    if all(sd <= SHARE * threshold for sd in floor):  # NaN is not
        log.info("precision %s", figures)
        return True
    if precision != "auto":
        raise UserError(f"precision {figures}. Use --precision fp32, or a pipeline of torch.float32")
    log.warning("precision stays fp32. %s", figures)
    return False


def lower_all(backbone: Backbone, precision: Precision) -> None:
    """Brings every network to it, on the device, as diffusers' pipelines want it."""
    dtype = DTYPES[format_on(backbone.device.type, precision)]
    _convert(backbone, dtype)
    for network in backbone.networks:
        nn.Module.to(network, backbone.device, dtype)


@torch.no_grad()
def measure(backbone: Backbone, dtype: torch.dtype) -> Floor:
    """The floor of a format on the loaded weights, for latents of unit variance.

    The denoiser is in float32 or in that format already, and stays so. What it says in the other one is found layer by layer; in
    float32 with the values of its files, where it was loaded from files.
    """
    with _computing_in(backbone, torch.float32):
        exact = _difference(backbone, PROMPTS)
    check_finite(f"the denoiser ({backbone.denoiser_name})", exact)
    with _computing_in(backbone, dtype):
        half, same = _difference(backbone, PROMPTS), _difference(backbone, PROMPTS[:1] * 2)
    return Floor(std(same).max().item(), std(half - exact).max().item())


@contextmanager
def _computing_in(backbone: Backbone, dtype: torch.dtype) -> Iterator[None]:
    """In the block the denoiser reads that format and computes in it on its device, whatever it is in, and wherever it waits."""
    there = is_on(backbone.denoiser, backbone.device)
    if backbone.dtype == dtype and there:
        yield
        return
    stored, backbone.reads = (backbone.from_files if dtype == torch.float32 else None), dtype
    try:
        with layerwise(backbone.denoiser, dtype, stored, None if there else backbone.device):
            yield
    finally:
        backbone.reads = None


def _convert(backbone: Backbone, dtype: torch.dtype) -> None:
    """The denoiser in that format, weight by weight; back in float32 it has the digits of its files again."""
    if dtype == torch.float32 and backbone.dtype != dtype and backbone.from_files is not None:
        weights = backbone.denoiser.state_dict(keep_vars=True)
        for name, weight in weights.items():
            if weight.is_floating_point():
                weight.data = torch.empty_like(weight.data, dtype=dtype).copy_(backbone.from_files[name])
    nn.Module.to(backbone.denoiser, dtype)  # diffusers' own `to` warns about modules that no Stable Diffusion has


def _difference(backbone: Backbone, prompts: tuple[str, ...]) -> Tensor:
    """eps(second prompt) - eps(first), one row per timestep; two rows of the network at once, to bound the memory."""
    n, side = len(LEVELS), min(64, backbone.native_side // backbone.factor)
    t = torch.tensor([round(level * (backbone.last_timestep + 1)) for level in LEVELS], device=backbone.device)
    shape = (2, n, backbone.channels, side, side)
    z, noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(backbone.device)
    z_t = backbone.with_condition(add_noise(z, noise, *backbone.scales(t, (side, side))))
    text = {"source": backbone.embed(prompts[:1]), "target": backbone.embed(prompts[1:])}
    each = [call(backbone, {"edit": z_t[i : i + 1]}, t[i : i + 1], text, (SOURCE, TARGET)).eps for i in range(n)]
    return torch.cat([eps[TARGET] - eps[SOURCE] for eps in each])
