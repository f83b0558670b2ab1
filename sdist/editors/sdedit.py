"""SDEdit: noise the image part of the way, denoise it towards the target. Meng et al. 2021, arXiv 2108.01073."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..edits.request import Request
from ..errors import UserError
from ..registry import EDITORS
from .diffusers_pipeline import EXACT, DiffusersPipeline, Prompts


@EDITORS.register("sdedit")
@dataclass(frozen=True)
class SDEdit(DiffusersPipeline):
    """StableDiffusionImg2ImgPipeline with DDIM; it reads the target prompt alone."""

    strength: float = 0.75  # how far the image is noised: the part of the steps that is made
    guidance_scale: float = 7.5
    num_inference_steps: int = 50  # of the whole schedule

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1 or int(self.num_inference_steps * self.strength) < 1:
            raise UserError(
                f"strength is above 0 and at most 1, and num_inference_steps x strength at least 1, got {self.strength} and "
                f"{self.num_inference_steps}"
            )
        if not self.guidance_scale >= 1:
            raise UserError(f"guidance_scale must be at least 1 (no guidance), got {self.guidance_scale}")

    @property
    def steps(self) -> int:
        return self.num_inference_steps

    def unread(self, request: Request) -> tuple[str, ...]:
        return ("source",)

    def pipeline(self, scheduler: dict[str, Any], **parts: Any) -> Any:
        from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

        return StableDiffusionImg2ImgPipeline(scheduler=DDIMScheduler.from_config({**scheduler, **EXACT}), **parts)

    def edit_one(self, pipeline: Any, image: Image.Image, prompts: Prompts, generator: torch.Generator) -> np.ndarray:
        return pipeline(
            prompt=prompts.target,
            image=image,
            strength=self.strength,
            guidance_scale=self.guidance_scale,
            num_inference_steps=self.num_inference_steps,
            generator=generator,
            output_type="np",
        ).images[0]
