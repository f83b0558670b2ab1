"""What a baseline is: the settings of one of diffusers' editing pipelines, and one call of it."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image

SHARED = ("model", "device", "precision", "size", "seed", "baseline")  # the settings that a baseline has
EXACT = {"clip_sample": False, "steps_offset": 1}  # of a scheduler, as Stable Diffusion's own; pipelines warn of other values


class Prompts(NamedTuple):
    """What a pipeline may be told; without an instruction of its own that is the target prompt."""

    source: str
    target: str
    instruction: str


class Baseline(ABC):
    """A frozen dataclass whose fields are its configuration, with a pipeline of diffusers that does the work."""

    conditions: ClassVar[int] = 0  # latents that the UNet reads beside the noisy one
    divisor: ClassVar[int] = 1  # of the picture's sides, beside the autoencoder's
    instructed: ClassVar[bool] = False  # whether it reads Prompts.instruction

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many of the model's timesteps the scheduler is asked for."""

    def check(self, prompts: Prompts) -> None:  # noqa: B027
        """UserError for prompts that it can make nothing of; any will do where this is not overridden."""

    @abstractmethod
    def pipeline(self, scheduler: dict[str, Any], **parts: Any) -> Any:
        """The pipeline of these networks with its own kind of scheduler, made from the configuration of the model's.

        UserError for networks that it cannot use.
        """

    @abstractmethod
    def edit(self, pipeline: Any, image: Image.Image, prompts: Prompts, generator: torch.Generator) -> np.ndarray:
        """The edited picture, (height, width, 3) in 0..1."""
