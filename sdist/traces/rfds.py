"""Traces of RFDS and RFDS-Rev: our loss rfds with the recorded noise and weights."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..diffusion import Latents, PerImage
from ..distillation.method import Method
from ..errors import unknown
from ..losses.rfds import RFDS
from ..optimizer import OptimizerSettings, optimizer_names
from ..prediction import NULL, TARGET, Prediction
from .deviation import Deviation, deviations
from .files import SETTINGS
from .flow_run import Arrays, run, timesteps
from .inputs import inputs
from .kinds import Case

COMMON = ("z_src", "emb_target", "emb_null", "z_before", "z_final", "noise", "sigma", "grad")


@dataclass(frozen=True)
class ObservedRFDS(RFDS):
    """Keeps the predictions that it sees, and takes the recorded weights."""

    recorded: Tensor | None = None  # u of each step
    seen: list[Prediction] = field(default_factory=list)

    def gradient(self, p: Prediction) -> Latents:
        self.seen.append(p)
        return super().gradient(p)

    def weights(self, p: Prediction) -> PerImage:
        return super().weights(p) if self.recorded is None else torch.sigmoid(self.recorded[p.step])


def compare(case: Case) -> dict[str, Deviation]:
    """Velocities, gradient, loss, latents after each step, encoded image and prompts.

    The optimizer gets the recorded gradients: Adam makes a whole step of a gradient that is nothing but rounding.
    """
    model, recorded = case.loaded(*COMMON)
    (guidance,) = case.need("guidance_scale")
    loss = ObservedRFDS(guidance, reverse=case.kind == "rfds_rev", recorded=recorded.get("u"))
    elements = recorded["z_src"].numel()
    method = Method(
        loss, optimizer=_optimizer(case, elements), steps=len(recorded["sigma"]), timesteps=timesteps(recorded, model)
    )
    steps = run(model, method, recorded, case.forced, recorded["grad"] * elements / 2)
    ours = {
        "z": torch.cat([step.z for step in steps]),
        "grad": torch.cat([step.direction for step in steps]) * 2 / elements,
        "v_target": torch.cat([p.velocity[TARGET] for p in loss.seen]),
        "v_null": torch.cat([p.velocity[NULL] for p in loss.seen]),
        "loss": torch.cat([_value(loss, p) for p in loss.seen]),
        **_corrected(loss, recorded),
        **inputs(model, case, recorded),
    }
    expected = recorded | {"z": torch.cat([recorded["z_before"][1:], recorded["z_final"]])}
    return deviations(ours, expected)


def _optimizer(case: Case, elements: int) -> OptimizerSettings:
    """The recorded one. Our direction is the gradient of the mean times elements / 2, which Adam's eps must follow."""
    name, lr = case.need("optimizer", "learning_rate")
    if name not in optimizer_names():
        raise unknown("optimizer", name, optimizer_names(), str(case.folder / SETTINGS))
    options: dict[str, Any] = {"eps": 1e-8 * elements / 2} if name in ("Adam", "AdamW") else {}
    return OptimizerSettings(name, lr, options=options | {"weight_decay": case.settings.get("weight_decay") or 0})


def _value(loss: ObservedRFDS, p: Prediction) -> Tensor:
    residual = p.velocity[loss.branches[0]] - (p.draw.noise - p.latents)
    return loss.weights(p).to(residual) * (residual**2).flatten(1).mean(1)


def _corrected(loss: ObservedRFDS, recorded: Arrays) -> Arrays:
    """RFDS-Rev's first prediction, from the noise that it was replaced by: V = noise - clean, and eps = z_s + (1 - s) V."""
    if not loss.reverse:
        return {}
    rows = []
    for p, noise in zip(loss.seen, recorded["noise"], strict=True):
        alpha, sigma = (scale[:, None, None, None] for scale in (p.draw.alpha, p.draw.sigma))
        z_s = alpha * p.latents + sigma * noise.to(p.latents)
        rows.append((p.draw.noise - z_s) / alpha)
    return {"v_first": torch.cat(rows).detach()}
