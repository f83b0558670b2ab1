"""InstructPix2Pix: a network trained to follow an instruction. Brooks et al. 2022, arXiv 2211.09800."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from ..errors import UserError
from ..registry import EDITORS
from .diffusers_pipeline import EXACT, DiffusersPipeline, Prompts


@EDITORS.register("instruct_pix2pix")
@dataclass(frozen=True)
class InstructPix2Pix(DiffusersPipeline):
    """StableDiffusionInstructPix2PixPipeline with Euler's ancestral sampler; it reads the instruction alone."""

    guidance_scale: float = 7.5  # towards the instruction
    image_guidance_scale: float = 1.5  # towards the source image
    num_inference_steps: int = 100

    conditions: ClassVar[int] = 1  # the source image's latent
    instructed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (self.guidance_scale > 1 and self.image_guidance_scale >= 1):
            raise UserError(
                "guidance_scale must be above 1 and image_guidance_scale at least 1, or the pipeline guides by neither; got "
                f"{self.guidance_scale} and {self.image_guidance_scale}"
            )
        if self.num_inference_steps < 1:
            raise UserError(f"num_inference_steps must be at least 1, got {self.num_inference_steps}")

    @property
    def steps(self) -> int:
        return self.num_inference_steps

    def pipeline(self, scheduler: dict[str, Any], **parts: Any) -> Any:
        from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline

        euler = EulerAncestralDiscreteScheduler.from_config({**scheduler, **EXACT})
        return StableDiffusionInstructPix2PixPipeline(scheduler=euler, **parts)

    def edit_one(self, pipeline: Any, image: Image.Image, prompts: Prompts, generator: torch.Generator) -> np.ndarray:
        return pipeline(
            prompt=prompts.instruction,
            image=image,
            guidance_scale=self.guidance_scale,
            image_guidance_scale=self.image_guidance_scale,
            num_inference_steps=self.num_inference_steps,
            generator=generator,
            output_type="np",
        ).images[0]
