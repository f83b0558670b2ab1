"""Which device, and the memory format that suits it."""

import torch

from ..errors import UserError


def memory_format(device: str) -> torch.memory_format:
    """Of the noise predictor's weights and input, for a type of device; MPS is not reliable with channels last."""
    return torch.contiguous_format if device == "mps" else torch.channels_last


def choose_device(device: str) -> str:
    """The given device; "auto" takes CUDA, else MPS, else the CPU. Raises UserError if this machine does not have it."""
    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(d for d in ("cuda", "mps", "cpu") if have[d])
    kind, _, index = device.partition(":")
    if not have.get(kind) or (index and (not index.isdigit() or int(index) >= torch.cuda.device_count())):
        raise UserError(f"device '{device}' is not on this machine: have {', '.join(d for d in have if have[d])}")
    return device
