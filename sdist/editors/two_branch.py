"""ViMAEdit: Prompt-to-Prompt with image guidance, a grounded mask and noise where the edit is. Arxiv 2410.10496."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch

from ..denoising.grounding import Focus, Grounding, Saliency
from ..denoising.two_branch import Course, InjectionSteps, Variance
from ..edits.request import Prepared, Request
from ..errors import UserError
from ..hooks.image_tokens import ImageTokens
from ..image_guidance.catalogue import AUTO
from ..image_guidance.guide import Estimation, Guide
from ..image_guidance.settings import ImageGuidance
from ..models.base import Backbone
from ..prediction import NULL, SOURCE_NULL, SOURCE_SOURCE, TARGET
from ..prompts import words_of_both
from ..registry import EDITORS, one_of
from .focus import focus_rows, with_tokens
from .inverted_walk import Masking, Planning, WalkSetup
from .mask_images import mask_rows
from .prompt_to_prompt import PromptToPrompt

log = logging.getLogger("sdist")


@EDITORS.register("two_branch")
@dataclass(frozen=True)
class TwoBranch(PromptToPrompt):
    """A source and a target branch walk from noise to image side by side. The target attends where the source does, is guided by
    an estimate of the edited image's embedding, is the source outside of a mask, and takes noise where the edit matters most.

    The source branch reads the prompt and the image that were given, the target's null row as `image_rows` says.
    """

    inversion: Any = one_of("inversion", "virtual")
    mapping: Literal["auto", "replace", "refine"] = "refine"  # of tokens; auto: replace where the prompts have as many words
    adapter: str | None = AUTO  # IP-Adapter: auto (the model's own, if it is there), an alias, hub id, folder or file; null: none
    image_scale: float = 0.4  # lambda, weight of the image tokens; 0: no image guidance
    image_replace: float = 0.1  # part of the steps that inject attention to the image tokens
    estimation: Estimation = "paper"  # of the target's embedding; released: texts rescaled to the image's norm first
    clip: str | None = None  # hub id or folder of a CLIP with both towers; null: the adapter's
    image_rows: Literal["paper", "released"] = "paper"  # source reads the image, or (release) the null row does
    grounding: Grounding = field(default_factory=Grounding)
    variance: Variance = "critical"  # where steps add noise, if the inversion has none of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts("image_replace")
        if self.image_scale < 0:
            raise UserError(f"image_scale is at least 0, got {self.image_scale}")

    @property
    def has_mask(self) -> bool:
        return True

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"words", "mask"})

    @property
    def guide_names(self) -> tuple[str | None, str | None]:
        return self.adapter, self.clip

    def check_model(self, model: Backbone) -> None:
        """Raises UserError for attention that cannot be injected, and for an adapter that is not there or for another model."""
        super().check_model(model)
        self.guide(model)

    def check(self, model: Backbone, request: Request) -> None:
        super().check(model, request)
        words_of_both(request.source, request.target, request.words)

    def check_named(self, request: Request) -> None:
        if request.words:
            words_of_both(request.source, request.target, request.words)

    def guide(self, model: Backbone) -> Guide | None:
        """What reads images. Raises UserError if one that was named cannot be had; without the model's own it goes without."""
        wanted = ImageGuidance(self.adapter, self.image_scale, self.estimation, self.clip)
        if not wanted.is_on:
            return None
        try:
            return wanted.guide(model)
        except UserError as error:
            if self.adapter != AUTO or self.clip is not None:
                raise
            _report_off(str(error))
            return None

    def weights(self, model: Backbone) -> dict[str, str]:
        guide = self.guide(model)
        return {"image_guidance": "none" if guide is None else guide.fingerprint}

    def words(self, model: Backbone, request: Request) -> tuple[tuple[str, ...], tuple[int, ...]]:
        _, chosen = words_of_both(request.source, request.target, request.words)
        return with_tokens(model, request.target, chosen)

    def source_tokens(self, model: Backbone, request: Request) -> tuple[int, ...]:
        gone, _ = words_of_both(request.source, request.target, request.words)
        return with_tokens(model, request.source, gone)[1]

    def planned(self, model: Backbone, batch: Sequence[Prepared], setup: WalkSetup) -> tuple[Planning, Masking]:
        course = self.course(model, batch, setup)
        return course.plan, lambda: [None] * len(batch) if course.masks is None else [*course.masks.edit]

    def course(self, model: Backbone, batch: Sequence[Prepared], setup: WalkSetup) -> Course:
        """Which attention is injected and looked at, and what is read of images."""
        focus, scale = Focus(*focus_rows(model, batch)), model.scale
        for prepared, source, target in zip(batch, focus.source, focus.target, strict=True):
            if not source.any() and not target.any() and prepared.mask is None:
                _report_no_words(prepared.request.source, prepared.request.target)
        return Course(
            branches=(SOURCE_SOURCE.guided(self.source_guidance), TARGET.guided(self.target_guidance)),
            injected=InjectionSteps.of(self.steps, self.cross_replace, self.self_replace, self.image_replace, self.self_level),
            tokens=self.tokens(model, batch),
            noise=setup.noises.of_step,
            images=self.images(model, batch),
            saliency=Saliency(self.grounding, focus) if focus.source.any() or focus.target.any() else None,
            first=self.grounding.first(self.steps),
            levels=(model.layout.nearest("cross", scale.cross_level), model.layout.nearest("self", scale.self_level)),
            variance=self.variance,
            user=mask_rows(batch, setup.inverted.noisy),
        )

    def images(self, model: Backbone, batch: Sequence[Prepared]) -> ImageTokens | None:
        """What each branch reads of images: the source its own, the target the estimate; without text the zero embedding."""
        guide = self.guide(model)
        if guide is None:
            return None
        image, target = guide.read(batch, self.estimation)
        zero = torch.zeros_like(image)
        null, source = (zero, image) if self.image_rows == "paper" else (image, zero)
        rows = {NULL: null, SOURCE_NULL: zero, SOURCE_SOURCE: source, TARGET: target}
        return guide.adapter.hook([layer.name for layer in model.layout.layers("cross")], rows, self.image_scale)


@cache
def _report_off(reason: str) -> None:
    """Once per reason."""
    log.warning("image guidance is off: %s; the edit is made without it (editor.adapter names one, null says none)", reason)


@cache
def _report_no_words(source: str, target: str) -> None:
    log.warning("no noun in what differs between %r and %r: the mask is off; name words of either with --words", source, target)
