"""A pipeline's `callback_on_step_end`, called after every step of every image, and the latents that a run ends with."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from ..distillation.callbacks import Observer
from ..distillation.distiller import ScoreDistiller, last_mask
from ..errors import UserError, unknown

OnStepEnd = Callable[[Any, int, float, dict[str, Any]], dict[str, Any] | None]
TENSORS = ("latents", "mask", "index")  # that a callback may ask for


class StepEnd(Observer):
    """Calls `on_step_end(pipeline, step, timestep, tensors)` with copies of the tensors of the image that made the step."""

    def __init__(
        self, pipeline: Any, on_step_end: OnStepEnd | PipelineCallback | MultiPipelineCallbacks | None, names: Sequence[str]
    ) -> None:
        """A callback of diffusers' own classes brings its names. Raises UserError for a tensor that there is none of."""
        if isinstance(on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            names = on_step_end.tensor_inputs
        for name in names:
            if name not in TENSORS:
                raise unknown("tensor", name, TENSORS, "callback_on_step_end_tensor_inputs")
        self._pipeline, self._on_step_end, self._names = pipeline, on_step_end, names
        self.latents: Tensor | None = None  # of all images, at the end

    def on_round(self, distiller: ScoreDistiller) -> None:
        if self._on_step_end is not None:
            for index in distiller.accepted.tolist():
                self._call(distiller, index, self._on_step_end)

    def on_end(self, distiller: ScoreDistiller) -> None:
        self.latents = distiller.latents.detach().clone()

    def _call(self, distiller: ScoreDistiller, index: int, on_step_end: OnStepEnd) -> None:
        last, latents = distiller.rounds[-1], distiller.latents[index : index + 1].detach()
        timestep = last.t[(last.images == index) & last.accepted][0].item()  # whole or not
        tensors = {"latents": latents.clone(), "mask": last_mask(distiller, index), "index": torch.tensor(index)}
        handed: dict[str, Any] = {name: tensors[name] for name in self._names}
        returned = on_step_end(self._pipeline, int(distiller.step[index]) - 1, timestep, handed) or {}
        if not all(torch.equal(after["latents"], latents) for after in (handed, returned) if "latents" in after):
            raise UserError(
                "callback_on_step_end changed the latents: they can be read here and not replaced, since the run card would "
                "no longer tell how the picture came about"
            )
