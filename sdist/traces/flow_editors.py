"""Traces of FlowEdit, DVRF and FlowAlign: our loss velocity_delta with the recorded noise."""

from dataclasses import dataclass, field
from typing import Any

import torch

from ..diffusion import Latents
from ..distillation.method import Method
from ..errors import UserError
from ..gammas import DVRF, Constant, Gamma
from ..losses.velocity_delta import VelocityDelta
from ..models.base import Backbone
from ..optimizer import OptimizerSettings
from ..prediction import SOURCE, SOURCE_SOURCE, TARGET, Prediction, Progress
from .deviation import Deviation, deviations
from .flow_run import Arrays, Step, levels, run, timesteps
from .inputs import inputs
from .kinds import Case

COMMON = ("z_src", "emb_source", "emb_target", "z_before", "z_final", "noise", "sigma")
STRETCH = 27  # steps by which DVRF's release stretches its schedule of step sizes


def compare(case: Case) -> dict[str, Deviation]:
    """Velocities, latents after each step, encoded image and prompts; DVRF's gradient, eta and step size."""
    model, recorded = case.loaded(*COMMON)
    method, loss = method_of(case, recorded, model)
    steps = run(model, method, recorded, case.forced)
    ours = _quantities(case, method, loss, steps) | inputs(model, case, recorded)
    expected = recorded | {"z": torch.cat([recorded["z_before"][1:], recorded["z_final"]])}
    return deviations(ours, expected)


# --- the method ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObservedVelocityDelta(VelocityDelta):
    """Keeps the predictions that it sees."""

    seen: list[Prediction] = field(default_factory=list)

    def gradient(self, p: Prediction) -> Latents:
        self.seen.append(p)
        return super().gradient(p)


def method_of(case: Case, recorded: Arrays, model: Backbone) -> tuple[Method, ObservedVelocityDelta]:
    """The recorded method, and its loss."""
    steps = len(levels(recorded))
    loss = ObservedVelocityDelta(**LOSSES[case.kind](case, steps))
    lr, gamma = _step_sizes(case, levels(recorded)) if case.kind == "dvrf" else (1.0, Constant())
    optimizer = OptimizerSettings(str(case.settings.get("optimizer") or "SGD"), lr)
    method = Method(
        loss, gamma=gamma, optimizer=optimizer, steps=steps, timesteps=timesteps(recorded, model),
        noises=int(case.settings.get("n_avg") or 1),
    )  # fmt: skip
    return method, loss


def _flowedit(case: Case, steps: int) -> dict[str, Any]:
    target, source = case.need("target_guidance", "source_guidance")
    return {"target_guidance": target, "source_guidance": source, "sampled": int(case.settings.get("n_min") or 0)}


def _dvrf(case: Case, steps: int) -> dict[str, Any]:
    eta, total, target, source = case.need("eta", "steps", "target_guidance", "source_guidance")
    if (schedule := case.settings.get("schedule", "descending")) != "descending":
        raise UserError(f"{case.folder}: the schedule is {schedule!r}; only descending timesteps are replayed")
    start = eta * (total - steps) / total
    return {"target_guidance": target, "source_guidance": source, "eta": eta, "eta_start": start, "step": "constant"}


def _flowalign(case: Case, steps: int) -> dict[str, Any]:
    scale, pull = case.need("guidance_scale", "source_pull")
    return {"target_guidance": scale, "source_guidance": 1, "guide_from": "source", "pull": pull}


LOSSES = {"flowedit": _flowedit, "dvrf": _dvrf, "flowalign": _flowalign}


def _step_sizes(case: Case, s: list[float]) -> tuple[float, Gamma]:
    """DVRF's learning rate and its schedule."""
    lr, total = case.need("lr", "steps")
    if lr != "custom":
        return float(lr), Constant()
    end = total + STRETCH
    return 1.0, DVRF((s[-2] - s[-1]) / 1.6, (total - len(s)) / end, (total - 1) / end)


# --- in the trace's terms -----------------------------------------------------------------------------------------------


def _quantities(case: Case, method: Method, loss: ObservedVelocityDelta, steps: list[Step]) -> Arrays:
    edited = len(steps) - loss.sampled
    arrays = {"z": torch.cat([*(step.z for step in steps[: edited - 1]), steps[-1].z])}
    arrays |= _velocities(case, loss, loss.seen[:edited])
    if later := loss.seen[edited:]:
        arrays["v_sampling"] = torch.cat([p.velocity[loss.branches[0]][:1] for p in later])
        arrays["x_before"] = torch.cat([p.outputs[loss.branches[0]].z_t[:1] for p in later])
    if case.kind == "dvrf":
        gamma = method.gamma(torch.arange(len(steps)) / max(1, len(steps) - 1))
        progress = [Progress(p.images, p.step, p.steps) for p in loss.seen]
        arrays |= {"eta": torch.stack([loss.shift(where)[0] for where in progress]), "lr": gamma * method.optimizer.lr}
        arrays["grad"] = torch.cat([step.direction.cpu() for step in steps]) / gamma[:, None, None, None]
    return arrays


def _velocities(case: Case, loss: ObservedVelocityDelta, seen: list[Prediction]) -> Arrays:
    if case.kind == "flowalign":
        named = {"v_edit_target": TARGET, "v_edit_source": SOURCE, "v_source_source": SOURCE_SOURCE}
        return {name: torch.cat([p.velocity[branch] for p in seen]) for name, branch in named.items()}
    named = dict(zip(("v_target", "v_source"), loss.branches, strict=True))
    return {name: torch.stack([p.velocity[branch] for p in seen]) for name, branch in named.items()}
