"""Edit-friendly DDPM inversion. Huberman-Spiegelglas et al. 2023, arXiv 2304.06140, algorithm 1."""

from dataclasses import dataclass
from itertools import pairwise

import torch

from ...diffusion import add_noise, per_image
from ...errors import UserError
from ...prediction import SOURCE_SOURCE, call
from ...registry import INVERSIONS
from ..base import Inversion, InversionResult, StepNoise, WalkBack


@INVERSIONS.register("edit_friendly")
@dataclass(frozen=True)
class EditFriendlyInversion(Inversion):
    """Every level's latents are the image with a draw of its own; what must be added in each step to get from one to the next is
    added in every branch. The noise of the last step is zero, as in the release, so the source is not reproduced to the bit."""

    def start(self, walk: WalkBack) -> InversionResult:
        source, levels, solver = walk.source, walk.levels, walk.solver
        noisy = [add_noise(source, walk.noise(k), level.alpha, level.sigma) for k, level in enumerate(levels[:-1])] + [source]
        where, found, before = torch.ones_like(source[:, :1, :1, :1]), [], None
        for k, (at, to) in enumerate(pairwise(levels)):
            estimate = call(walk.network, {"source": noisy[k]}, at.t, walk.text, [SOURCE_SOURCE])[SOURCE_SOURCE]
            mean = solver.step(estimate, to, StepNoise(torch.zeros_like(source), where), before)
            deviation = per_image(solver.deviation(estimate, to))
            if k == 0 and not deviation.any():
                raise UserError("edit_friendly needs a solver that adds noise, and this one adds none (eta is 0)")
            found.append(torch.where(deviation > 0, (noisy[k + 1] - mean) / deviation, 0))
            before = estimate
        found[-1] = torch.zeros_like(source)
        return InversionResult(noisy[0], noise=found)
