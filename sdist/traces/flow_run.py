"""A run of a method on a flow model with the recorded noise and levels."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..diffusion import Latents, size_of
from ..distillation.method import Method
from ..draws import DrawKey
from ..errors import UserError
from ..models.base import Backbone
from ..models.flow import Flow
from ..prediction import Edit
from ..timesteps import Timesteps
from .trace import texts_of

Arrays = dict[str, Tensor]


class Step(NamedTuple):
    """The latents after a step, and what the optimizer got."""

    z: Latents
    direction: Latents


@dataclass(frozen=True)
class RecordedTimesteps(Timesteps):
    """The recorded timesteps, one per step."""

    descends = True
    values: tuple[float, ...]

    def at(self, key: DrawKey, steps: int, last: int) -> float:
        return self.values[key.step]


@dataclass(frozen=True)
class _Playback:
    """Hands out recorded noise."""

    rows: Tensor  # (steps, noises, c, h, w)

    def noise(self, key: DrawKey, shape: tuple[int, ...]) -> Tensor:
        return self.rows[key.step, key.sample].reshape(shape).float()

    def permutation(self, key: DrawKey, stream: str, size: int) -> Tensor:
        raise NotImplementedError


def levels(recorded: Arrays) -> list[float]:
    """The noise level of each step."""
    return [float(s) for name in ("sigma", "sigma_sampling") if name in recorded for s in recorded[name]]


def timesteps(recorded: Arrays, model: Backbone) -> RecordedTimesteps:
    """The model's timesteps of the recorded levels. Raises UserError unless the model is a flow."""
    if not isinstance(model, Flow):
        raise UserError(f"the trace is of a flow model, {model.name} is none; name its model with --model")
    return RecordedTimesteps(tuple(model.timestep(s, size_of(recorded["z_src"])) for s in levels(recorded)))


def run(model: Backbone, method: Method, recorded: Arrays, forced: bool, gradients: Latents | None = None) -> list[Step]:
    """What the method does in each step with the recorded noise, from its own latents or, if forced, from the recorded ones.

    With `gradients`, one row per step, the optimizer gets those instead of the method's directions.
    """
    source, starts = recorded["z_src"], recorded["z_before"]
    text = texts_of(recorded)
    edit = Edit(source, text, torch.zeros(1, text["target"].tokens.shape[1], device=model.device))
    z, states = nn.Parameter(source.clone()), method.states(1)
    image, optimizer = torch.zeros(1, dtype=torch.long, device=model.device), method.optimizer.build(z)
    sampler, steps = _Playback(_noise(recorded)), list[Step]()
    for k in range(method.steps):
        if forced and k < len(starts):
            z.data.copy_(starts[k : k + 1])
        draw = method.draw(model, [DrawKey(0, "", k, 0)], z, sampler)
        direction = method.direction(model, z.detach().clone(), edit, draw, image, states).direction
        z.grad = direction if gradients is None else gradients[k : k + 1].to(direction)
        optimizer.step()
        steps.append(Step(z.detach().clone(), direction))
    return steps


def _noise(recorded: Arrays) -> Tensor:
    """(steps, noises, c, h, w): one for each step, or several that its draw averages."""
    noise, size = recorded["noise"], recorded["z_src"].shape[1:]
    noise = noise.reshape(len(noise), -1, *size)
    if "noise_sampling" not in recorded:
        return noise
    last = recorded["noise_sampling"].reshape(1, 1, *size)
    return torch.cat([noise, last.expand(1, *noise.shape[1:])])
