"""DDIM backwards. Mokady et al. 2022, arXiv 2211.09794, section 3.1, after Song et al. 2020, arXiv 2010.02502, section 4.3."""

from dataclasses import dataclass, replace
from itertools import pairwise

from ...diffusion import Latents
from ...prediction import SOURCE_SOURCE, call
from ...registry import INVERSIONS
from ..base import Inversion, InversionResult, WalkBack
from ..solvers.ddim import DDIM


@INVERSIONS.register("ddim")
@dataclass(frozen=True)
class DDIMInversion(Inversion):
    """Steps from image to noise with the source prompt and no guidance; a step asks the network at the level that it goes to."""

    def start(self, walk: WalkBack) -> InversionResult:
        return InversionResult(backwards(walk)[0])


def backwards(walk: WalkBack) -> list[Latents]:
    """The latents at every level, from noise to image; the last are the image's."""
    found = [walk.source]
    for at, to in pairwise(reversed(walk.levels)):
        estimate = call(walk.network, {"source": found[-1]}, to.t, walk.text, [SOURCE_SOURCE])[SOURCE_SOURCE]
        found.append(DDIM().step(replace(estimate, alpha=at.alpha, sigma=at.sigma), to))
    return found[::-1]
