"""Editors that invert an image and walk a source and a target branch back from noise, side by side."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from ..denoising.base import LAST, InversionResult, Level, WalkBack, levels
from ..denoising.noise import Noises
from ..denoising.sample import Plan, sample
from ..diffusion import Latents
from ..edits.request import Prepared
from ..errors import UserError
from ..files.images import to_pixels
from ..hooks.injection import check_layout
from ..models.base import Backbone
from ..prediction import Text
from ..registry import one_of
from .denoising import WalkOutput, WatchedDenoising

Planning = Callable[[int], Plan]
Masking = Callable[[], Sequence[Tensor | None]]


class WalkSetup(NamedTuple):
    """A walk that is about to begin, of some images."""

    source: Latents
    text: Mapping[str, Text]
    levels: Sequence[Level]
    noises: Noises
    inverted: InversionResult

    @property
    def start(self) -> dict[str, Latents]:
        """Both branches begin in the same place."""
        return {"source": self.inverted.noisy, "edit": self.inverted.noisy}


@dataclass(frozen=True)
class InvertedWalk(WatchedDenoising):
    """What each step asks for is its subclass's."""

    steps: int = 50  # from noise to image, and for inversions that ask the network as many before it
    inversion: Any = one_of("inversion", "ddim")
    solver: Any = one_of("solver", "ddim")
    source_guidance: float = 1.0  # 1, none, as in the inversion, so that the source branch comes back to the image
    target_guidance: float = 7.5

    def __post_init__(self) -> None:
        if self.inversion is None or self.solver is None:
            raise UserError("inversion and solver cannot be null")
        self.solver.timesteps(self.steps, LAST)

    def check_parts(self, *names: str) -> None:
        """Raises UserError for fields that are no part of the steps."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a part of the steps, 0..1, got {getattr(self, name)}")

    def check_model(self, model: Backbone) -> None:
        """Raises UserError for too few timesteps, for attention that cannot be changed, and for a solver that wants noise."""
        if self.solver.stochastic:
            raise UserError("the editor walks an inversion back and draws no noise: take solver ddim, which needs none")
        check_layout(model.layout)
        self.solver.timesteps(self.steps, model.last_timestep)

    @abstractmethod
    def planned(self, model: Backbone, batch: Sequence[Prepared], setup: WalkSetup) -> tuple[Planning, Masking]:
        """What each step asks for, and a function that says after a step which mask each image kept to."""

    def walk_steps(self, model: Backbone, batch: Sequence[Prepared]) -> Iterator[WalkOutput]:
        setup = self.begin(model, batch)
        yield WalkOutput(setup.source, [None] * len(batch))
        plan, masks = self.planned(model, batch, setup)
        steps = sample(model, setup.start, setup.text, setup.levels, self.solver, plan, setup.inverted)
        for k, step in enumerate(steps):  # what would come of each: the image as it is taken to be, changed as latents are
            result = step.noisy if k == len(setup.levels) - 2 else plan(k).after(step.clean)
            yield WalkOutput(result["edit"], masks(), step.clean)

    def begin(self, model: Backbone, batch: Sequence[Prepared]) -> WalkSetup:
        """The inverted images, and what the way back needs."""
        requests = [p.request for p in batch]
        source = model.encode(to_pixels([p.image for p in batch]))
        prompts = {"source": [r.source for r in requests], "target": [r.target for r in requests], "null": [""] * len(batch)}
        text = {name: model.embed(texts) for name, texts in prompts.items()}
        times = self.solver.timesteps(self.steps, model.last_timestep)
        at = levels(model, times, source, self.solver.clean_end or self.inversion.clean_end)
        noises = Noises([(p.request.seed, p.key) for p in batch], source)
        inverted = self.inversion.start(WalkBack(model, source, text, at, self.solver, noises.of_level))
        return WalkSetup(source, text, at, noises, inverted)
