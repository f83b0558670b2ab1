"""InstructPix2Pix: a network trained to follow an instruction. Brooks et al. 2022, arXiv 2211.09800."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from ..denoising.instructed import Scales, Step, linspace_levels, walk
from ..denoising.noise import noise_of
from ..edits.request import Prepared, Request, Result
from ..errors import UserError
from ..files.images import to_pixels
from ..models import instruct_pix2pix
from ..models.base import Backbone
from ..prediction import Hook, Text
from ..registry import EDITORS, one_of
from .base import Observers, check_steps, generator_of
from .denoising import WalkOutput, WatchedDenoising

log = logging.getLogger("sdist")


@EDITORS.register("instruct_pix2pix")
@dataclass(frozen=True)
class InstructPix2Pix(WatchedDenoising):
    """Denoises beside the source image, guided by the instruction and by the image; it reads the instruction alone."""

    guidance_scale: float = 7.5  # s_T, towards the instruction
    image_guidance_scale: float = 1.5  # s_I, towards the source image
    num_inference_steps: int = 100
    solver: Any = one_of("solver", "euler_ancestral")

    conditions: ClassVar[int] = 1  # the source image's latents
    steps_field: ClassVar[str] = "num_inference_steps"
    ignores: ClassVar[frozenset[str]] = WatchedDenoising.ignores - {"compile"}

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1:
            raise UserError(f"num_inference_steps must be at least 1, got {self.num_inference_steps}")
        if self.solver is None:
            raise UserError("solver cannot be null")

    @property
    def steps(self) -> int:
        return self.num_inference_steps

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"instruction"})

    def unread(self, request: Request) -> tuple[str, ...]:
        return ("source", "target") if request.instruction.strip() else ("source",)

    def check_model(self, model: Backbone) -> None:
        """Raises UserError for a model that reads no image, and for too few timesteps."""
        if not isinstance(model, instruct_pix2pix.InstructPix2Pix):
            raise UserError(f"{model.name}: this model reads no image, it is no InstructPix2Pix; --model instruct-pix2pix is one")
        check_steps(self.steps, model)

    def check(self, model: Backbone, request: Request) -> None:
        """Raises UserError for an instruction that is too long."""
        model.text.token_ids(instruction_of(request))

    def edit(self, model: Backbone, batch: Sequence[Prepared], run: Observers) -> list[Result]:
        report_missing_instructions([prepared.request for prepared in batch])
        return super().edit(model, batch, run)

    def walk_steps(self, model: Backbone, batch: Sequence[Prepared]) -> Iterator[WalkOutput]:
        nowhere = [None] * len(batch)
        yield WalkOutput(model.encode(to_pixels([p.image for p in batch])), nowhere)
        for step in self.walked(model, batch, Scales(self.guidance_scale, self.image_guidance_scale)):
            yield WalkOutput(step.clean, nowhere)

    def walked(
        self, model: Backbone, batch: Sequence[Prepared], scales: Scales, hooks: Callable[[int], Iterable[Hook]] = lambda k: ()
    ) -> Iterator[Step]:
        """The steps of images of one size from the noise of their seeds; again the same with the same hooks."""
        image = cast(instruct_pix2pix.InstructPix2Pix, model).condition(to_pixels([p.image for p in batch]))
        noise = noise_of([generator_of(p) for p in batch])
        levels = linspace_levels(model, self.num_inference_steps, image)
        return walk(model, image, texts(model, batch), levels, self.solver, scales, noise, hooks)


def instruction_of(request: Request) -> str:
    """What the network is told: the instruction, or where there is none the target prompt."""
    return request.instruction or request.target


def texts(model: Backbone, batch: Sequence[Prepared]) -> dict[str, Text]:
    """The embedded instructions and as many empty prompts."""
    prompts = {"instruction": [instruction_of(p.request) for p in batch], "null": [""] * len(batch)}
    return {name: model.embed(lines) for name, lines in prompts.items()}


def report_missing_instructions(requests: Sequence[Request]) -> None:
    """Says where the target prompt stands for an instruction."""
    without = sum(not request.instruction for request in requests)
    if without:
        text = "%d of %d images have no instruction: the target prompt is given as one"
        log.warning(text, without, len(requests))
