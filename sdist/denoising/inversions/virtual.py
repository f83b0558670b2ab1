"""Virtual inversion. Xu et al. 2023, InfEdit, arXiv 2312.04965, section 3 (denoising diffusion consistent model)."""

from dataclasses import dataclass
from typing import ClassVar

from ...diffusion import add_noise
from ...registry import INVERSIONS
from ..base import Inversion, InversionResult, WalkBack


@INVERSIONS.register("virtual")
@dataclass(frozen=True)
class VirtualInversion(Inversion):
    """The image with one draw of noise: no network is asked. In every step each estimate moves by what the source's is off from
    the image, so that the source comes back exactly and the target walks by the difference of the two predictions, as in DDS."""

    clean_end: ClassVar[bool] = True

    def start(self, walk: WalkBack) -> InversionResult:
        first = walk.levels[0]
        return InversionResult(add_noise(walk.source, walk.noise(0), first.alpha, first.sigma), clean=walk.source)
