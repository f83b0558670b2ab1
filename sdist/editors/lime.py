"""LIME: an instruction editor that keeps to a region of the image. Simsar et al., WACV 2025, arXiv 2312.09256."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..denoising.instructed import INSTRUCTED, ROWS, SEEING, Scales
from ..edits.request import Prepared, Request
from ..errors import UserError
from ..files.images import to_pixels
from ..files.in_memory import called
from ..hooks.penalty import Penalty, penalized
from ..models.base import Backbone
from ..models.text import PromptEncoder
from ..prediction import Hook
from ..prompts import named_words, words
from ..regions.base import Region, from_mask
from ..regions.tokens import TokenRule, Tokens, by_piece, by_word
from ..registry import EDITORS, one_of
from ..taggers import default_tagger
from .base import generator_of
from .denoising import Denoising, WalkOutput
from .focus import with_tokens
from .instruct_pix2pix import InstructPix2Pix, instruction_of
from .mask_images import mask_pixels

log = logging.getLogger("sdist")


@EDITORS.register("lime")
@dataclass(frozen=True)
class LIME(InstructPix2Pix):
    """Two walks from the same noise: in the first a region is found, in the second the region looks at related words alone.

    The first walk ends with the step that is looked at; with a mask image, which is the region then, there is none. An image
    without a related word, or with an empty region, is edited as InstructPix2Pix does. Nothing is blended: outside the region
    an image may change too.
    """

    guidance_scale: float = 2.0
    num_inference_steps: int = 30
    localize_guidance_scale: float = 5.5  # s_T of the first walk
    recorded_step: int | None = None  # of the first walk, from 0; null: a third of the steps
    region: Any = one_of("region", "segments")
    tokens: TokenRule = "paper"  # which words are related
    penalized_steps: int | None = None  # of the second walk, the first ones; null: nine tenths
    penalized_levels: tuple[int, ...] = (0, 1)  # cross-attention at 1 / 2^level of the latent's side, where there is any
    penalized_rows: Literal["all", "instructed"] = "all"  # of the three rows per image, or the one that reads the instruction

    ignores: ClassVar[frozenset[str]] = Denoising.ignores  # an engine hides the attention that is steered

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.region is None:
            raise UserError("region cannot be null: for an edit without one take the method instruct_pix2pix")
        if not 0 <= self.recorded < self.steps:
            raise UserError(f"recorded_step is one of the num_inference_steps, 0..{self.steps - 1}, got {self.recorded}")
        if not 0 <= self.penalized <= self.steps:
            raise UserError(f"penalized_steps is a part of num_inference_steps, 0..{self.steps}, got {self.penalized}")

    @property
    def recorded(self) -> int:
        """The step of the first walk that is looked at, its last."""
        return self.steps // 3 if self.recorded_step is None else self.recorded_step

    @property
    def penalized(self) -> int:
        """How many steps of the second walk are penalized."""
        return 9 * self.steps // 10 if self.penalized_steps is None else self.penalized_steps

    @property
    def has_mask(self) -> bool:
        return True

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"instruction", "words", "mask"})

    def check_model(self, model: Backbone) -> None:
        """Raises UserError for too few timesteps, and for attention that cannot be looked at or steered."""
        super().check_model(model)
        self.region.check(model.layout)
        penalized(model.layout, self.penalized_levels)

    def check_named(self, request: Request) -> None:
        named_words(instruction_of(request), request.words, "the instruction")

    def words(self, model: Backbone, request: Request) -> tuple[tuple[str, ...], tuple[int, ...]]:
        instruction = instruction_of(request)
        if request.words:
            return with_tokens(model, instruction, named_words(instruction, request.words, "the instruction"))
        related, spans = tokens_of(model.text, instruction, self.tokens).related, model.text.token_spans(instruction)
        inside = [spans[i] for i in related]
        named = [w.text for w in words(instruction) if any(start < w.end and end > w.start for start, end in inside)]
        return tuple(named), related

    def walk_steps(self, model: Backbone, batch: Sequence[Prepared]) -> Iterator[WalkOutput]:
        """Of the second walk."""
        yield WalkOutput(model.encode(to_pixels([p.image for p in batch])), [None] * len(batch))
        regions = self.regions(model, batch)
        masks = [None if region is None else region.mask[None].float() for region in regions]
        scales = Scales(self.guidance_scale, self.image_guidance_scale)
        for step in self.walked(model, batch, scales, self.penalties(model, batch, regions)):
            yield WalkOutput(step.clean, masks)

    def regions(self, model: Backbone, batch: Sequence[Prepared]) -> list[Region | None]:
        """Of each image: its mask image, or where the related words point to; None without either."""
        size = model.latent_size(batch[0].image.size)
        looked_at = [i for i, p in enumerate(batch) if p.mask is None and p.tokens]
        masks = {i: mask_pixels([p.mask]).to(model.device) for i, p in enumerate(batch) if p.mask is not None}
        found = {i: from_mask(mask, size) for i, mask in masks.items()}
        if looked_at:
            found |= zip(looked_at, self.located(model, [batch[i] for i in looked_at]), strict=True)
        for i, prepared in enumerate(batch):
            _report(prepared, found.get(i))
        return [found.get(i) for i in range(len(batch))]

    def located(self, model: Backbone, batch: Sequence[Prepared]) -> list[Region]:
        """By the first walk."""
        hook = self.region.hook(INSTRUCTED, SEEING)
        scales = Scales(self.localize_guidance_scale, self.image_guidance_scale)
        steps = self.walked(model, batch, scales, lambda k: [hook] if k == self.recorded else [])
        seen = next(islice(steps, self.recorded, None)).outputs.recorded[hook]
        generators = [generator_of(p, "kmeans") for p in batch]
        return self.region.regions(seen, [p.tokens for p in batch], generators)

    def penalties(
        self, model: Backbone, batch: Sequence[Prepared], regions: Sequence[Region | None]
    ) -> Callable[[int], Iterable[Hook]]:
        """What steers step k = 0, 1, .. of the second walk."""
        masks = [region.mask for region in regions if region is not None]
        if not any(mask.any() for mask in masks):
            return lambda k: ()
        area = torch.stack([torch.zeros_like(masks[0]) if region is None else region.mask for region in regions])
        rows = ROWS if self.penalized_rows == "all" else (INSTRUCTED,)
        allowed = self.allowed(model, batch)
        penalty = Penalty(rows, tuple(self.penalized_levels), area, allowed, model.latent_size(batch[0].image.size))
        return lambda k: [penalty] if k < self.penalized else []

    def allowed(self, model: Backbone, batch: Sequence[Prepared]) -> Tensor:
        """(b, tokens): what may be looked at inside a region, the words that were named among them."""
        allowed = torch.zeros(len(batch), model.text.length, dtype=torch.bool, device=model.device)
        for row, p in enumerate(batch):
            effective = tokens_of(model.text, instruction_of(p.request), self.tokens).effective
            allowed[row, [*effective, *p.tokens]] = True
        return allowed


def tokens_of(text: PromptEncoder, instruction: str, rule: TokenRule) -> Tokens:
    """The instruction's related and effective tokens."""
    if rule == "paper":
        return by_word(instruction, text.token_spans(instruction))
    return by_piece(pieces_of(text, instruction), default_tagger()[1])


def pieces_of(text: PromptEncoder, instruction: str) -> list[str]:
    """The decoded tokens with both marks, without padding."""
    tokenizer = text.tokenizers[0]
    return [tokenizer.decode([token]).strip() for token in tokenizer(instruction).input_ids]


def _report(prepared: Prepared, region: Region | None) -> None:
    name, instruction = called(prepared.request.image.name), instruction_of(prepared.request)
    if region is None:
        text = "%s: no word of %r says what is edited: no region, so it is edited as by instruct_pix2pix; name words with --words"
        log.warning(text, name, instruction)
    elif not region.mask.any():
        log.warning("%s: the region is empty, so it is edited as by instruct_pix2pix", name)
    elif region.mask.all():
        log.warning("%s: the region is the whole image", name)
    else:
        log.info("%s: the region of %s is %.0f %% of the image", name, ", ".join(prepared.words) or "the mask",
                 100 * float(region.mask.float().mean()))  # fmt: skip
