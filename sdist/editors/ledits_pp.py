"""LEDITS++: exact inversion, then guidance by concepts inside two masks. Brack et al. 2023, arXiv 2311.16711."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image

from ..errors import UserError
from ..models.unet_layout import UNetLayout
from ..prompts import differing, words
from ..registry import EDITORS
from .diffusers_pipeline import EXACT, DiffusersPipeline, Prompts

MASK_LEVEL = 2  # of the cross-attention that the pipeline makes a mask of: a quarter of the latent's side


@EDITORS.register("ledits_pp")
@dataclass(frozen=True)
class LeditsPP(DiffusersPipeline):
    """LEditsPPPipelineStableDiffusion with the SDE form of DPM-Solver++ of order 2; inverted without a prompt.

    The concepts are the target prompt (`target`), or what differs between the prompts (`difference`): the target's words are
    added and the source's removed.
    """

    concepts: Literal["target", "difference"] = "target"
    num_inversion_steps: int = 30  # the steps that are made
    skip: float = 0.15  # steps that are left out at the noisy end, as a part of num_inversion_steps
    edit_guidance_scale: float = 5.0
    edit_threshold: float = 0.9  # quantile below which neither mask lets a concept act
    edit_warmup_steps: int = 0  # first steps without a concept
    use_intersect_mask: bool = True  # both masks; false: that of the noise prediction alone

    divisor: ClassVar[int] = 32
    steps_field: ClassVar[str] = "num_inversion_steps"

    def __post_init__(self) -> None:
        if self.num_inversion_steps < 1 or not 0 <= self.skip < 1 or self.edit_warmup_steps < 0:
            raise UserError(
                "num_inversion_steps is at least 1, skip in 0..1 (1 excluded), edit_warmup_steps at least 0; got "
                f"{self.num_inversion_steps}, {self.skip}, {self.edit_warmup_steps}"
            )
        if not 0 <= self.edit_threshold <= 1:
            raise UserError(f"edit_threshold is a quantile, 0..1, got {self.edit_threshold}")

    @property
    def steps(self) -> int:
        return int(self.num_inversion_steps * (1 + self.skip))

    def check_prompts(self, prompts: Prompts) -> None:
        self.concepts_of(prompts)

    def pipeline(self, scheduler: dict[str, Any], **parts: Any) -> Any:
        from diffusers import DPMSolverMultistepScheduler, LEditsPPPipelineStableDiffusion

        class Pipeline(LEditsPPPipelineStableDiffusion):
            """Counts a concept's own tokens: with transformers 5 the original counts the padding, and averages over it."""

            def encode_prompt(self, *args: Any, **options: Any) -> tuple:
                concepts, null, lengths = super().encode_prompt(*args, **options)
                if lengths is not None:
                    prompts = options["editing_prompt"]
                    lengths = [len(self.tokenizer(c).input_ids) - 2 for c in ([prompts] if isinstance(prompts, str) else prompts)]
                return concepts, null, lengths

        if self.use_intersect_mask:
            _check_layers(parts["unet"])
        solver = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
        return Pipeline(scheduler=DPMSolverMultistepScheduler.from_config({**scheduler, **EXACT, **solver}), **parts)

    def edit_one(self, pipeline: Any, image: Image.Image, prompts: Prompts, generator: torch.Generator) -> np.ndarray:
        added, removed = self.concepts_of(prompts)
        processors = pipeline.unet.attn_processors
        try:
            pipeline.invert(image, num_inversion_steps=self.num_inversion_steps, skip=self.skip, generator=generator)
            return pipeline(
                editing_prompt=[*added, *removed],
                reverse_editing_direction=[False] * len(added) + [True] * len(removed),
                edit_guidance_scale=self.edit_guidance_scale,
                edit_threshold=self.edit_threshold,
                edit_warmup_steps=self.edit_warmup_steps,
                use_intersect_mask=self.use_intersect_mask,
                generator=generator,
                output_type="np",
            ).images[0]
        finally:
            pipeline.unet.set_attn_processor(processors)

    def concepts_of(self, prompts: Prompts) -> tuple[list[str], list[str]]:
        """The concepts that are added and those that are removed."""
        if self.concepts == "target":
            return [prompts.target], []
        added, removed = _added(prompts.source, prompts.target), _added(prompts.target, prompts.source)
        if not added + removed:
            raise UserError(f"no word differs between {prompts.source!r} and {prompts.target!r}: set concepts to target")
        return added, removed


def _added(other: str, prompt: str) -> list[str]:
    """The stretch of a prompt that the other one has not."""
    indices, every = differing(other, prompt), words(prompt)
    return [prompt[every[indices[0]].start : every[indices[-1]].end]] if indices else []


def _check_layers(unet: Any) -> None:
    have = sorted({layer.level for layer in UNetLayout(unet).layers("cross") if layer.part != "mid"})
    if MASK_LEVEL not in have:
        raise UserError(
            "ledits_pp masks by cross-attention at 1/4 of the latent's side, this model has it at "
            f"{[f'1/{2**k}' for k in have]}; editor.use_intersect_mask=false does without"
        )
