"""An editing pipeline of diffusers as it is, for comparison: one image after the other, so that company changes nothing."""

import logging
import time
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from math import lcm
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..edits.request import Prepared, Request, Result
from ..errors import ImagesError, UserError
from ..models.base import Backbone
from ..models.finite import checking_autoencoder, checking_encoders
from ..models.library import quiet
from ..models.memory import allocating
from ..models.precision import Precision, lower_all
from ..models.vae import OFFSETS
from .base import FAULTS, Editor, Observers, check_steps, generator_of, reason_of

log = logging.getLogger("sdist")

EXACT = {"clip_sample": False, "steps_offset": 1}  # of a scheduler, as Stable Diffusion's own; pipelines warn of other values


class Prompts(NamedTuple):
    """What a pipeline may read."""

    source: str
    target: str


class DiffusersPipeline(Editor):
    """An editor whose work a pipeline of diffusers does, around the loaded networks."""

    ignores: ClassVar[frozenset[str]] = frozenset(
        {"compile", "checkpoint", "offload", "storage", "clip_skip", "prompt_blocks", "prompt_weights", "scale", "log"}
    )
    divisor: ClassVar[int] = 1  # of the image's sides, beside the autoencoder's

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()

    @abstractmethod
    def pipeline(self, scheduler: dict[str, Any], **parts: Any) -> Any:
        """The pipeline of these networks with its own kind of scheduler, made from the configuration of the model's.

        Raises UserError for networks that it cannot use.
        """

    def check_prompts(self, prompts: Prompts) -> None:
        """Raises UserError for prompts that it can make nothing of; any will do where this is not overridden."""

    @abstractmethod
    def edit_one(self, pipeline: Any, image: Image.Image, prompts: Prompts, generator: torch.Generator) -> np.ndarray:
        """The edited image, (height, width, 3) in 0..1."""

    def size_multiple(self, model: Backbone) -> int:
        return lcm(model.multiple, self.divisor)

    def model_key(self, number_format: str) -> Hashable:
        return self  # its fields decide whether the pipeline can use the model

    def adapt(self, model: Backbone, precision: Precision) -> None:
        """All networks in the precision. Raises UserError for a model that the pipeline does not know."""
        lower_all(model, precision)
        if len(model.text.encoders) > 1:
            raise UserError(f"model '{model.name}' has two text encoders; {type(self).__name__} is for Stable Diffusion 1 and 2")
        if unread := [name for name in OFFSETS if getattr(model.vae.config, name, None)]:
            raise UserError(f"model '{model.name}' has a VAE with {', '.join(unread)}, which diffusers' pipeline does not read")
        with quiet("transformers", logging.ERROR):  # it warns that torchvision, which no pipeline here needs, is not installed
            self._around(model)

    def check_model(self, model: Backbone) -> None:
        check_steps(self.steps, model)

    def check(self, model: Backbone, request: Request) -> None:
        for prompt in prompts_of(request):
            model.text.token_ids(prompt)
        self.check_prompts(prompts_of(request))

    def edit(self, model: Backbone, batch: Sequence[Prepared], run: Observers) -> list[Result]:
        pipeline, results, failures = self._around(model), [], dict[int, str]()
        for index, prepared in enumerate(batch):
            if run.admit is not None and not run.admit(index):
                continue
            start = time.perf_counter()
            generator = generator_of(prepared)
            try:
                with _naming_faults(model):
                    pixels = self.edit_one(pipeline, prepared.image, prompts_of(prepared.request), generator)
            except FAULTS as error:
                failures[index] = reason_of(prepared, error)
                continue
            seconds = {"edit": round(time.perf_counter() - start, 3)}
            results.append(Result(prepared, Image.fromarray((pixels * 255).round().astype(np.uint8)), None, (), 1, seconds))
            run.deliver(results[-1])
        if failures:
            raise ImagesError(failures)
        return results

    def _around(self, model: Backbone) -> Any:
        """The pipeline around the loaded networks."""
        pipeline = self.pipeline(
            dict(model.scheduler.config),
            vae=model.vae,
            text_encoder=model.text.encoders[0],
            tokenizer=model.text.tokenizers[0],
            unet=model.denoiser,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=not log.isEnabledFor(logging.INFO), leave=False)
        return pipeline


def prompts_of(request: Request) -> Prompts:
    """What a pipeline reads of a request."""
    return Prompts(request.source, request.target)


@contextmanager
def _naming_faults(model: Backbone) -> Iterator[None]:
    """Raises NotFiniteError that names the network, and AllocationError."""
    with (
        allocating(model.device, "one image of this size"),
        checking_encoders(model.encoders),
        checking_autoencoder(model.vae, model.denoiser_name),
    ):
        yield
