"""SDEdit: noise the image part of the way, denoise it towards the target. Meng et al. 2021, arXiv 2108.01073."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..denoising.base import LAST, Level, StepNoise, levels
from ..denoising.noise import noise_of
from ..denoising.sample import Plan, sample
from ..diffusion import Latents, add_noise
from ..edits.request import Prepared, Request
from ..errors import UserError
from ..files.images import to_pixels
from ..models.base import Backbone
from ..prediction import TARGET
from ..registry import EDITORS, one_of
from .base import generator_of
from .denoising import Denoising


@EDITORS.register("sdedit")
@dataclass(frozen=True)
class SDEdit(Denoising):
    """Adds noise to the image and walks back with the target prompt; it reads that alone.

    Draws, levels and steps are those of diffusers' StableDiffusionImg2ImgPipeline with DDIM: the encoded image is a draw too.
    """

    strength: float = 0.75  # how far the image is noised: the part of the steps that is made
    guidance_scale: float = 7.5
    num_inference_steps: int = 50  # of the whole schedule
    solver: Any = one_of("solver", "ddim")

    steps_field: ClassVar[str] = "num_inference_steps"
    ignores: ClassVar[frozenset[str]] = Denoising.ignores - {"compile"}

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1 or self.steps < 1:
            raise UserError(
                f"strength is above 0 and at most 1, and num_inference_steps x strength at least 1, got {self.strength} and "
                f"{self.num_inference_steps}"
            )
        if not self.guidance_scale >= 1:
            raise UserError(f"guidance_scale must be at least 1 (no guidance), got {self.guidance_scale}")
        self.solver.timesteps(self.num_inference_steps, LAST)

    @property
    def steps(self) -> int:
        return int(self.num_inference_steps * self.strength)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()

    def unread(self, request: Request) -> tuple[str, ...]:
        return ("source",)

    def check_model(self, model: Backbone) -> None:
        self.solver.timesteps(self.num_inference_steps, model.last_timestep)

    def check(self, model: Backbone, request: Request) -> None:
        model.text.token_ids(request.target)

    def weights(self, model: Backbone) -> dict[str, str]:
        """Tells its cards from those without a sampler, whose images diffusers' pipeline made, with other rounding."""
        return {"sampler": "sdist's own"}

    def walk(self, model: Backbone, batch: Sequence[Prepared]) -> Latents:
        noise = noise_of([generator_of(p) for p in batch])
        z = model.encode(to_pixels([p.image for p in batch]), noise)
        at = self.levels(model, z)
        text = {"target": model.embed([p.request.target for p in batch]), "null": model.embed([""] * len(batch))}
        added = (lambda outputs: StepNoise.everywhere(noise(z))) if self.solver.stochastic else (lambda outputs: None)
        plan = Plan([TARGET.guided(self.guidance_scale)], added=added)
        noisy = {"edit": add_noise(z, noise(z), at[0].alpha, at[0].sigma)}
        *_, last = sample(model, noisy, text, at, self.solver, lambda k: plan)
        return last.noisy["edit"]

    def levels(self, model: Backbone, like: Latents) -> list[Level]:
        """The last of the schedule; at its end is the image itself, unless the model's scheduler says that timestep 0 is."""
        times = self.solver.timesteps(self.num_inference_steps, model.last_timestep)[-1 - self.steps :]
        return levels(model, times, like, self.solver.clean_end or model.scheduler.config.get("set_alpha_to_one", True))
