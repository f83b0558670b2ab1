"""Virtual inversion. Xu et al. 2023, InfEdit, arXiv 2312.04965, section 3 (denoising diffusion consistent model)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...diffusion import Latents, add_noise
from ...prediction import Network, Text
from ...registry import INVERSIONS
from ..base import Inversion, Inverted, Level, Solver


@INVERSIONS.register("virtual")
@dataclass(frozen=True)
class VirtualInversion(Inversion):
    """The image with one draw of noise: no network is asked. In every step each estimate moves by what the source's is off from
    the image, so that the source comes back exactly and the target walks by the difference of the two predictions, as in DDS."""

    clean_end: ClassVar[bool] = True

    def start(
        self,
        network: Network,
        source: Latents,
        text: Mapping[str, Text],
        levels: Sequence[Level],
        solver: Solver,
        noise: Callable[[int], Latents],
    ) -> Inverted:
        return Inverted(add_noise(source, noise(0), levels[0].alpha, levels[0].sigma), clean=source)
