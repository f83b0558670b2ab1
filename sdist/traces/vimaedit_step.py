"""Solver steps of a two-branch editor alone: recorded predictions, noise and masks go in, the next latents must come out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..denoising.base import InversionResult, Level, Solver, StepNoise
from ..denoising.sample import corrected
from ..denoising.solvers.ddim import DDIM
from ..denoising.solvers.dpmpp_2m import DPMSolverPP2M
from ..diffusion import Estimate, discrete_scales
from .deviation import Deviation, deviations
from .kinds import Case

BRANCHES = ("source", "edit")


def compare(case: Case) -> dict[str, Deviation]:
    """Of the latents after every step."""
    case.need("beta_start", "beta_end")
    arrays = case.arrays(
        *(f"ddim_{name}" for name in ("steps", "timestep", "previous", "eta", "z", "eps", "x0", "noise", "mask"))
    )
    return deviations(steps(case.settings, arrays), arrays)


def steps(case: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The results by name: of DDIM one row per case, of DPM-Solver++ the latents of whole walks."""
    bars = _alphas_cumprod(case)
    found: dict[str, list[Tensor]] = {"ddim_plain": [], "ddim_virtual": []}
    for row in range(len(arrays["ddim_steps"])):
        at, to = (_level(bars, int(arrays[name][row])) for name in ("ddim_timestep", "ddim_previous"))
        one = {name: arrays[f"ddim_{name}"][row] for name in ("z", "eps", "x0", "noise", "mask")}
        for kind, results in ((kind, found[f"ddim_{kind}"]) for kind in ("plain", "virtual")):
            estimates = _estimates(one["z"], one["eps"], at, one["x0"] if kind == "virtual" else None)
            results.append(_step(DDIM(float(arrays["ddim_eta"][row])), estimates, to, _added(one)))
    walks = {name: _walk(name, bars, arrays) for name in arrays if name.startswith("dpm") and name.endswith(("plain", "virtual"))}
    return {name: torch.stack(rows) for name, rows in found.items()} | walks


def _walk(name: str, bars: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
    """The latents before the first step and after each, of DPM-Solver++."""
    prefix, kind = name.split("_")
    walked, before, times = [arrays[name][0]], dict[str, Estimate](), [*arrays[f"{prefix}_timestep"].tolist(), -1]
    for k in range(len(times) - 1):
        at, to = (_level(bars, times[k + i]) for i in (0, 1))
        one = {key: arrays[f"{prefix}_{key}"][k] for key in ("eps", "noise", "mask")}
        estimates = _estimates(walked[-1], one["eps"], at, arrays[f"{prefix}_x0"] if kind == "virtual" else None)
        added = _added(one) if k >= (len(times) - 1) // 4 else None
        walked.append(_step(DPMSolverPP2M(), estimates, to, added, before))
        before = estimates
    return torch.stack(walked)


def _estimates(z: Tensor, eps: Tensor, at: Level, clean: Tensor | None) -> dict[str, Estimate]:
    found = {b: Estimate(eps[i : i + 1], z[i : i + 1], at.alpha, at.sigma, "epsilon") for i, b in enumerate(BRANCHES)}
    return corrected(found, None if clean is None else InversionResult(z[:1], clean=clean[None]))


def _step(solver: Solver, estimates: dict[str, Estimate], to: Level, added: StepNoise | None, before: Any = None) -> Tensor:
    return torch.cat([solver.step(estimates[b], to, added, (before or {}).get(b)) for b in BRANCHES])


def _added(one: Mapping[str, Tensor]) -> StepNoise:
    return StepNoise(one["noise"][None], one["mask"][None, None].float())


def _level(bars: Tensor, t: int) -> Level:
    """A negative timestep is the image itself."""
    if t < 0:
        return Level(torch.zeros(1), torch.ones(1), torch.zeros(1))
    return Level(torch.tensor([t]), *discrete_scales(bars, torch.tensor([t])))


def _alphas_cumprod(case: Mapping[str, Any]) -> Tensor:
    betas = torch.linspace(case["beta_start"] ** 0.5, case["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()
