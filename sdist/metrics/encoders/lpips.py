"""LPIPS v0.1 with SqueezeNet 1.1 (Zhang et al., arXiv 1801.03924)."""

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UserError
from ...models.devices import choose_device
from ..pixels import Pixels
from .record import Record, record

TAPS = {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}  # layers whose output is compared, and their channels
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in -1..1

Map = Float[Tensor, "1 1 _ _"]  # each tap has its own size


class Lpips(nn.Module):
    """The network and the weights of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.source = "random weights"
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), _pool(),
            _Fire(64, 16, 64), _Fire(128, 16, 64), _pool(),
            _Fire(128, 32, 128), _Fire(256, 32, 128), _pool(),
            _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256),
        )  # fmt: skip
        self.weights = nn.ModuleList(nn.Conv2d(channels, 1, 1, bias=False) for channels in TAPS.values())

    @property
    def record(self) -> Record:
        """What scores depend on; it reads images of any size."""
        return record(self.source, self, kind="LPIPS 0.1, SqueezeNet 1.1")

    @torch.no_grad()
    def maps(self, a: Pixels, b: Pixels) -> list[Map]:
        """The distance at every position of every tap, on the CPU; LPIPS is the sum of their means."""
        x = torch.from_numpy(np.stack([a, b])).permute(0, 3, 1, 2).float().to(next(self.parameters()).device)
        shift, scale = (x.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        x = (2 * x - 1 - shift) / scale
        maps: list[Map] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                first, second = (x / (x.norm(dim=1, keepdim=True) + 1e-10)).split(1)
                maps.append(self.weights[len(maps)]((first - second) ** 2).cpu())
        return maps


def load_lpips(path: Path, device: str = "auto") -> Lpips:
    """From one safetensors file with both published state dicts, names unchanged.

    They are torchvision's of squeezenet1_1 and the `squeeze.pth` of lpips 0.1. Raises UserError if the file lacks any of it.
    """
    try:
        published = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"LPIPS weights {path} cannot be read as safetensors: {error}") from None
    model = Lpips()
    weights = {}
    for name, value in model.state_dict().items():
        key = re.sub(r"^weights\.(\d)\.", r"lin\1.model.1.", name)
        if key not in published or published[key].shape != value.shape:
            raise UserError(f"LPIPS weights {path} lack {key} of shape {tuple(value.shape)}")
        weights[name] = published[key]
    model.load_state_dict(weights)
    model.source = str(path)
    return model.to(choose_device(device)).eval().requires_grad_(False)


class _Fire(nn.Module):
    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
