"""Any torch optimizer, one for each image: a rejected image's state is not touched, and company cannot change a result."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from .errors import UserError, unknown

UNUSABLE = {"LBFGS", "SparseAdam"}  # need several gradients per step, which a draw does not allow; sparse gradients


def optimizer_names() -> dict[str, Callable[..., torch.optim.Optimizer]]:
    """Every usable class of torch.optim by name."""
    classes = inspect.getmembers(torch.optim, inspect.isclass)
    return {n: c for n, c in classes if issubclass(c, torch.optim.Optimizer) and n not in {"Optimizer", *UNUSABLE}}


@dataclass(frozen=True)
class OptimizerSettings:
    """A torch optimizer by name, and how far a step goes.

    With scale "per_element" SGD moves z by lr x direction. "released" multiplies lr by 2000 / (H W), H x W the latents'
    size, as the released code of DDS, CDS and LUSD does: their lr of 0.1 or 1 then depends on the resolution.
    """

    name: str = "SGD"
    lr: float = 0.0488
    scale: Literal["per_element", "released"] = "per_element"
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of the torch class

    def __post_init__(self) -> None:
        if self.name not in optimizer_names():
            raise unknown("optimizer", self.name, optimizer_names(), "torch.optim")
        self._try()

    def step_size(self, latents: Tensor) -> float:
        """lr for latents (..., H, W)."""
        return self.lr * (2000 / (latents.shape[-2] * latents.shape[-1]) if self.scale == "released" else 1)

    def build(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        return optimizer_names()[self.name]([parameter], lr=self.step_size(parameter), **self.options)

    def _try(self) -> None:
        """Raises UserError for options that torch refuses, at the start or at a step, and for steps that lead nowhere."""
        parameter = nn.Parameter(torch.zeros(1, 1, 1, device="cpu"))  # whatever the caller's default device is
        try:
            optimizer = self.build(parameter)
            for _ in range(2):  # some begin with the second
                parameter.grad = torch.ones_like(parameter)
                optimizer.step()
        except Exception as error:  # of any class: torch does not check what it is given
            given = "".join(f", {key}={value!r}" for key, value in self.options.items())
            raise UserError(f"optimizer {self.name} cannot use lr={self.lr}{given}: {type(error).__name__}: {error}") from error
        if not (parameter.isfinite().all() and parameter.any()):
            raise UserError(f"optimizer {self.name}: with lr={self.lr} a step leads nowhere; give an lr above 0")


class PerImageOptimizer(torch.optim.Optimizer):
    """Steps only the images that `accepted` names; each has an optimizer of its own over its row of the latents."""

    def __init__(self, latents: nn.Parameter, settings: OptimizerSettings, accepted: Callable[[], Int[Tensor, " m"]]) -> None:
        super().__init__([latents], {"lr": settings.lr})
        self._latents, self._accepted = latents, accepted
        self._rows = [nn.Parameter(row.detach()) for row in latents]
        self._optimizers = [settings.build(row) for row in self._rows]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """The closure's value, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = self._latents.grad
        if gradients is None:
            return loss
        for i in self._accepted().tolist():
            row = self._rows[i]
            row.data, row.grad = self._latents.data[i], gradients[i]
            self._optimizers[i].step()
        return loss
