"""Prompt-to-Prompt on an inverted image: the edit attends where its source does. Hertz et al. 2022, arXiv 2208.01626."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..denoising.alignment import Alignment, Tokens, refine, replace, reweight, stack
from ..denoising.sample import Plan
from ..edits.request import Prepared, Request
from ..errors import UserError
from ..hooks.injection import Injection, TokenMap
from ..models.base import Backbone
from ..prediction import SOURCE_SOURCE, TARGET
from ..prompts import words_of_target
from ..registry import EDITORS
from .focus import with_tokens
from .inverted_walk import InvertedWalk, Masking, Planning, WalkSetup


@EDITORS.register("prompt_to_prompt")
@dataclass(frozen=True)
class PromptToPrompt(InvertedWalk):
    """Inverts the image with the source prompt, then walks a source and a target branch back, side by side.

    In the first steps the target's attention is the source's: cross-attention through the alignment of the two prompts,
    self-attention as it is. When nothing more is injected the source branch has ended.
    """

    mapping: Literal["auto", "replace", "refine"] = "auto"  # of tokens; auto: replace where the prompts have as many words
    cross_replace: float = 0.4  # part of the steps that inject cross-attention
    self_replace: float = 0.6  # part of the steps that inject self-attention
    self_level: int = 1  # self-attention at 1 / 2^level of the latent's side and coarser is injected
    reweight: float = 1.0  # factor on injected attention to the nouns that differ, or to the words that are named

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts("cross_replace", "self_replace")

    def check_model(self, model: Backbone) -> None:
        """Raises UserError also for a level at which this model has no self-attention that could be injected."""
        super().check_model(model)
        have = sorted({layer.level for layer in model.layout.layers("self")})
        if not 0 <= self.self_level <= have[-1]:
            raise UserError(
                f"self_level {self.self_level}: the self-attention of this model is at levels {have}, of which that one and all "
                "coarser ones are injected; for none set self_replace to 0"
            )

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"words"} if self.reweight != 1 else ())

    def check(self, model: Backbone, request: Request) -> None:
        """Raises UserError for prompts that cannot be aligned."""
        self.align(model, request, ())

    def words(self, model: Backbone, request: Request) -> tuple[tuple[str, ...], tuple[int, ...]]:
        if self.reweight == 1:
            return (), ()
        chosen = words_of_target(request.source, request.target, request.words)
        return with_tokens(model, request.target, chosen)

    def align(self, model: Backbone, request: Request, tokens: Sequence[int]) -> Alignment:
        """How the target's cross-attention is made of the source's; attention to `tokens` is weighted."""
        source, target = (Tokens.of(model.text, prompt) for prompt in (request.source, request.target))
        as_many = len(source.words()) == len(target.words())
        align = replace if self.mapping == "replace" or (self.mapping == "auto" and as_many) else refine
        return reweight(align(source, target), tokens, self.reweight)

    def planned(self, model: Backbone, batch: Sequence[Prepared], setup: WalkSetup) -> tuple[Planning, Masking]:
        plan = self.plan(self.tokens(model, batch), to_the_end=setup.inverted.clean is not None)
        return plan, lambda: [None] * len(batch)

    def tokens(self, model: Backbone, batch: Sequence[Prepared]) -> TokenMap:
        """How each image's target attends to tokens."""
        return stack([self.align(model, p.request, p.tokens) for p in batch], model.device)

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
