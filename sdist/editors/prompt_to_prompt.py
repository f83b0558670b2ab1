"""Prompt-to-Prompt on an inverted image: the edit attends where its source does. Hertz et al. 2022, arXiv 2208.01626."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ..denoising.alignment import Alignment, Tokens, refine, replace, reweight, stack
from ..denoising.base import LAST, InversionResult, Level, WalkBack, levels
from ..denoising.noise import Noises
from ..denoising.sample import Plan, sample
from ..diffusion import Latents
from ..edits.request import Prepared, Request
from ..errors import UserError
from ..files.images import to_pixels
from ..hooks.injection import Injection, TokenMap, check_layout
from ..models.base import Backbone
from ..prediction import SOURCE_SOURCE, TARGET, Text
from ..prompts import differing_nouns, named_words, token_indices
from ..registry import EDITORS, one_of
from .denoising import Denoising, WalkOutput

Planning = Callable[[int], Plan]
Masking = Callable[[], Sequence[Tensor | None]]


class WalkSetup(NamedTuple):
    """A walk that is about to begin, of some images."""

    source: Latents
    text: Mapping[str, Text]
    levels: Sequence[Level]
    tokens: TokenMap
    noises: Noises
    inverted: InversionResult

    @property
    def start(self) -> dict[str, Latents]:
        """Both branches begin in the same place."""
        return {"source": self.inverted.noisy, "edit": self.inverted.noisy}


@EDITORS.register("prompt_to_prompt")
@dataclass(frozen=True)
class PromptToPrompt(Denoising):
    """Inverts the image with the source prompt, then walks a source and a target branch back, side by side.

    In the first steps the target's attention is the source's: cross-attention through the alignment of the two prompts,
    self-attention as it is. When nothing more is injected the source branch has ended.
    """

    steps: int = 50  # from noise to image, and for inversions that ask the network as many before it
    inversion: Any = one_of("inversion", "ddim")
    solver: Any = one_of("solver", "ddim")
    source_guidance: float = 1.0  # 1, none, as in the inversion, so that the source branch comes back to the image
    target_guidance: float = 7.5
    mapping: Literal["auto", "replace", "refine"] = "auto"  # of tokens; auto: replace where the prompts have as many words
    cross_replace: float = 0.4  # part of the steps that inject cross-attention
    self_replace: float = 0.6  # part of the steps that inject self-attention
    self_level: int = 1  # self-attention at 1 / 2^level of the latent's side and coarser is injected
    reweight: float = 1.0  # factor on injected attention to the nouns that differ, or to the words that are named

    def __post_init__(self) -> None:
        if self.inversion is None or self.solver is None:
            raise UserError("inversion and solver cannot be null")
        self.solver.timesteps(self.steps, LAST)
        for name in ("cross_replace", "self_replace"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a part of the steps, 0..1, got {getattr(self, name)}")

    @property
    def watchable(self) -> bool:
        return True

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"words"} if self.reweight != 1 else ())

    def check_model(self, model: Backbone) -> None:
        """Raises UserError for too few timesteps, for attention that cannot be injected, and for a solver that wants noise."""
        if self.solver.stochastic:
            raise UserError("prompt_to_prompt walks an inversion back and draws no noise: take solver ddim, which needs none")
        check_layout(model.layout)
        self.solver.timesteps(self.steps, model.last_timestep)

    def check(self, model: Backbone, request: Request) -> None:
        """Raises UserError for prompts that cannot be aligned."""
        self.align(model, request, ())

    def words(self, model: Backbone, request: Request) -> tuple[tuple[str, ...], tuple[int, ...]]:
        if self.reweight == 1:
            return (), ()
        target = request.target
        chosen = named_words(target, request.words) if request.words else differing_nouns(request.source, target)
        return tuple(word.text for word in chosen), tuple(token_indices(model.text.token_spans(target), chosen, "all"))

    def align(self, model: Backbone, request: Request, tokens: Sequence[int]) -> Alignment:
        """How the target's cross-attention is made of the source's; attention to `tokens` is weighted."""
        source, target = (Tokens.of(model.text, prompt) for prompt in (request.source, request.target))
        as_many = len(source.words()) == len(target.words())
        align = replace if self.mapping == "replace" or (self.mapping == "auto" and as_many) else refine
        return reweight(align(source, target), tokens, self.reweight)

    def walk(self, model: Backbone, batch: Sequence[Prepared]) -> Latents:
        *_, last = self.walk_steps(model, batch)
        return last.latents

    def walk_steps(self, model: Backbone, batch: Sequence[Prepared]) -> Iterator[WalkOutput]:
        setup = self.begin(model, batch)
        yield WalkOutput(setup.source, [None] * len(batch))
        plan, masks = self.planned(model, batch, setup)
        for step in sample(model, setup.start, setup.text, setup.levels, self.solver, plan, setup.inverted):
            yield WalkOutput(step.clean["edit"], masks())

    def planned(self, model: Backbone, batch: Sequence[Prepared], setup: WalkSetup) -> tuple[Planning, Masking]:
        """What each step asks for, and a function that says after a step which mask each image kept to."""
        return self.plan(setup.tokens, to_the_end=setup.inverted.clean is not None), lambda: [None] * len(batch)

    def begin(self, model: Backbone, batch: Sequence[Prepared]) -> WalkSetup:
        """The inverted images, and what the way back needs."""
        requests = [p.request for p in batch]
        source = model.encode(to_pixels([p.image for p in batch]))
        prompts = {"source": [r.source for r in requests], "target": [r.target for r in requests], "null": [""] * len(batch)}
        text = {name: model.embed(texts) for name, texts in prompts.items()}
        tokens = stack([self.align(model, p.request, p.tokens) for p in batch], model.device)
        times = self.solver.timesteps(self.steps, model.last_timestep)
        at = levels(model, times, source, self.solver.clean_end or self.inversion.clean_end)
        noises = Noises([(p.request.seed, p.key) for p in batch], source)
        inverted = self.inversion.start(WalkBack(model, source, text, at, self.solver, noises.of_level))
        return WalkSetup(source, text, at, tokens, noises, inverted)

    def plan(self, tokens: TokenMap, to_the_end: bool = False) -> Planning:
        """What each step asks for: both branches while something is injected or to the end, else the target alone."""
        source, target = SOURCE_SOURCE.guided(self.source_guidance), TARGET.guided(self.target_guidance)
        cross_steps, self_steps = int(self.cross_replace * (self.steps + 1)), int(self.self_replace * self.steps)

        def plan(k: int) -> Plan:
            if k >= max(cross_steps, self_steps):
                return Plan([source, target] if to_the_end else [target])
            level = self.self_level if k < self_steps else None
            return Plan([source, target], [Injection(SOURCE_SOURCE, TARGET, tokens if k < cross_steps else None, level)])

        return plan
