"""Direct inversion, PnP inversion. Ju et al. 2023, arXiv 2310.01506, section 3."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...diffusion import Latents
from ...prediction import Network, Text
from ...registry import INVERSIONS
from ..base import Inversion, Inverted, Level, Solver
from .ddim import backwards


@INVERSIONS.register("direct")
@dataclass(frozen=True)
class DirectInversion(Inversion):
    """DDIM backwards, whose latents are kept: on the way back the source is set to them after every step."""

    def start(
        self,
        network: Network,
        source: Latents,
        text: Mapping[str, Text],
        levels: Sequence[Level],
        solver: Solver,
        noise: Callable[[int], Latents],
    ) -> Inverted:
        found = backwards(network, source, text, levels)
        return Inverted(found[0], latents=found[1:])
