"""MasaCtrl on an inverted image: the edit is made of what the source shows. Cao et al. 2023, arXiv 2304.08465."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..denoising.sample import Plan
from ..edits.request import Prepared, Request
from ..errors import UserError
from ..hooks.mutual import MutualSelfAttention, decoder_layers
from ..models.base import Backbone
from ..prediction import NULL, SOURCE_NULL, SOURCE_SOURCE, TARGET
from ..registry import EDITORS
from .inverted_walk import InvertedWalk, Masking, Planning, WalkSetup


@EDITORS.register("masactrl")
@dataclass(frozen=True)
class MasaCtrl(InvertedWalk):
    """Inverts the image with the source prompt, then walks a source and a target branch back, side by side.

    The first steps lay out the edit by the target prompt; after them the target's self-attention reads the source's keys and
    values, so that what is laid out is made of what the image shows.
    """

    start: float = 0.08  # part of the steps before the target reads the source
    self_level: int = 1  # the decoder's self-attention at 1 / 2^level of the latent's side and finer reads it

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_parts("start")

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()

    def check_model(self, model: Backbone) -> None:
        """Raises UserError also for a model whose decoder has no self-attention as fine as that."""
        super().check_model(model)
        if not decoder_layers(model.layout, self.self_level):
            have = sorted({layer.level for layer in model.layout.layers("self") if layer.part == "up"})
            raise UserError(f"self_level {self.self_level}: the decoder's self-attention of this model is at levels {have}")

    def check(self, model: Backbone, request: Request) -> None:
        """Raises UserError for prompts that are too long."""
        for prompt in (request.source, request.target):
            model.text.token_ids(prompt)

    def planned(self, model: Backbone, batch: Sequence[Prepared], setup: WalkSetup) -> tuple[Planning, Masking]:
        return self.plan, lambda: [None] * len(batch)

    def plan(self, k: int) -> Plan:
        """Both branches; without a null row of the source, the target's reads what the source's other one shows."""
        source, target = SOURCE_SOURCE.guided(self.source_guidance), TARGET.guided(self.target_guidance)
        reads = {TARGET: SOURCE_SOURCE, NULL: SOURCE_NULL if source.has_guidance else SOURCE_SOURCE}
        mutual = [MutualSelfAttention(reads, self.self_level)] if k >= int(self.start * self.steps) else []
        return Plan([source, target], mutual)
