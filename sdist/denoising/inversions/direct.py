"""Direct inversion, PnP inversion. Ju et al. 2023, arXiv 2310.01506, section 3."""

from dataclasses import dataclass

from ...registry import INVERSIONS
from ..base import Inversion, InversionResult, WalkBack
from .ddim import backwards


@INVERSIONS.register("direct")
@dataclass(frozen=True)
class DirectInversion(Inversion):
    """DDIM backwards, whose latents are kept: on the way back the source is set to them after every step."""

    def start(self, walk: WalkBack) -> InversionResult:
        found = backwards(walk)
        return InversionResult(found[0], latents=found[1:])
