"""A pipeline's `callback_on_step_end`, called after every step of every picture, and the latents that a run ends with."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from ..distillation.distiller import ScoreDistiller, last_mask
from ..errors import UserError

OnStepEnd = Callable[[Any, int, int, dict[str, Any]], dict[str, Any] | None]
TENSORS = ("latents", "mask", "index")  # that a callback may ask for


class StepEnd(Callback):
    """Calls `on_step_end(pipeline, step, timestep, tensors)` with copies of the tensors of the picture that made the step."""

    def __init__(self, pipeline: Any, on_step_end: OnStepEnd | None, names: Sequence[str]) -> None:
        self._pipeline, self._on_step_end, self._names = pipeline, on_step_end, names
        self.latents: Tensor | None = None  # of all pictures, at the end

    def on_train_batch_end(self, trainer: Trainer, distiller: ScoreDistiller, *_: Any) -> None:  # type: ignore[override]
        for index in distiller.accepted.tolist() if self._on_step_end is not None else ():
            self._tell(distiller, index)

    def on_train_end(self, trainer: Trainer, distiller: ScoreDistiller) -> None:  # type: ignore[override]
        self.latents = distiller.latents.detach().clone()

    def _tell(self, distiller: ScoreDistiller, index: int) -> None:
        last, latents = distiller.rounds[-1], distiller.latents[index : index + 1].detach()
        timestep = int(last.t[(last.images == index) & last.accepted][0])
        tensors = {"latents": latents.clone(), "mask": last_mask(distiller, index), "index": torch.tensor(index)}
        given = {name: tensors[name] for name in self._names}
        answer = self._on_step_end(self._pipeline, int(distiller.step[index]) - 1, timestep, given) or {}  # type: ignore[misc]
        if not all(torch.equal(own["latents"], latents) for own in (given, answer) if "latents" in own):
            raise UserError(
                "callback_on_step_end changed the latents: they can be read here and not replaced, since the run card would "
                "no longer tell how the picture came about"
            )
