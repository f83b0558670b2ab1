"""Direct and edit-friendly inversion with the walks back, replayed: the recorded image and noise go in."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..denoising.base import Inversion, InversionResult, Level, WalkBack, levels
from ..denoising.inversions.direct import DirectInversion
from ..denoising.inversions.edit_friendly import EditFriendlyInversion
from ..denoising.sample import Plan, sample
from ..denoising.solvers.ddim import DDIM
from ..diffusion import add_noise, per_image
from ..models.base import Backbone
from ..prediction import SOURCE_SOURCE, TARGET, Text, call
from .deviation import Deviation, deviations
from .kinds import Case
from .trace import texts_of


def compare(case: Case) -> dict[str, Deviation]:
    """Of latents, noise maps and the results of both walks back."""
    case.need("steps", "eta", "target_guidance", "direct_source_guidance", "ef_source_guidance")
    model, arrays = case.loaded("z_src", "emb_null", "emb_source", "emb_target")
    return deviations(inversions(case.settings, arrays, model), arrays)


class Walk:
    """One recorded image on its way to noise and back, by DDIM."""

    def __init__(self, case: Mapping[str, Any], arrays: Mapping[str, Tensor], model: Backbone) -> None:
        self.case, self.model, self.source, self.solver = case, model, arrays["z_src"], DDIM(case["eta"])
        self.text: dict[str, Text] = texts_of(arrays)
        times, clean_end = (
            self.solver.timesteps(case["steps"], model.last_timestep),
            case.get("final_alpha_bar") in (1, "1", "1.0"),
        )
        self.at: list[Level] = levels(model, times, self.source, clean_end)
        if "ef_xts" in arrays:
            self.noisy = arrays["ef_xts"].flip(0)

    def noise(self, k: int) -> Tensor:
        """What the recorded latents of a level hold beside the image."""
        level = self.at[k]
        return (self.noisy[k : k + 1] - per_image(level.alpha) * self.source) / per_image(level.sigma)

    def inverted(self, inversion: Inversion) -> InversionResult:
        return inversion.start(WalkBack(self.model, self.source, self.text, self.at, self.solver, self.noise))

    def back(self, inverted: InversionResult, source_guidance: float) -> Tensor:
        """The last latents of both branches."""
        plan = Plan([SOURCE_SOURCE.guided(source_guidance), TARGET.guided(self.case["target_guidance"])])
        start = {"source": inverted.noisy, "edit": inverted.noisy}
        *_, last = sample(self.model, start, self.text, self.at, self.solver, lambda k: plan, inverted)
        return torch.cat([last.noisy["source"], last.noisy["edit"]])

    def offsets(self, latents: list[Tensor], guidance: float) -> Tensor:
        """What is between the kept latents and a step of DDIM from the ones before."""
        branch, found = SOURCE_SOURCE.guided(guidance), []
        for k, at in enumerate(self.at[:-1]):
            estimate = call(self.model, {"source": latents[k]}, at.t, self.text, [branch])[branch]
            found.append(latents[k + 1] - self.solver.step(estimate, self.at[k + 1]))
        return torch.cat(found)


@torch.no_grad()
def inversions(case: Mapping[str, Any], arrays: Mapping[str, Tensor], model: Backbone) -> dict[str, Tensor]:
    """Those of the recorded arrays that the trace holds."""
    walk, found = Walk(case, arrays, model), dict[str, Tensor]()
    if {"direct_final", "offsets"} & arrays.keys():
        direct = walk.inverted(DirectInversion())
        latents = [direct.noisy, *(direct.latents or ())]
    if "direct_final" in arrays:
        found |= {"ddim_latents": torch.cat(latents[::-1]), "direct_final": walk.back(direct, case["direct_source_guidance"])}
    if "offsets" in arrays:
        found["offsets"] = walk.offsets(latents, case["direct_source_guidance"])
    if "ef_xts" in arrays:
        friendly = walk.inverted(EditFriendlyInversion())
        noisy = [add_noise(walk.source, walk.noise(k), a.alpha, a.sigma) for k, a in enumerate(walk.at[:-1])]
        found |= {"ef_xts": torch.cat([walk.source, *noisy[::-1]]), "ef_zs": torch.cat(list(friendly.noise or ())[::-1])}
        found["ef_final"] = walk.back(friendly, case["ef_source_guidance"])
    return found
