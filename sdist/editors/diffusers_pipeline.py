"""Pictures by a pipeline of diffusers: the model, a job's checks, and one picture after the other."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import lcm
from typing import Any

import numpy as np
from PIL import Image

from ..config.settings import Settings
from ..draws import Ticket
from ..edits.request import Prepared, Request, Result
from ..errors import PicturesError, UserError
from ..files.images import fit, fitted_size, image_size, load_image
from ..models.backbone import Backbone
from ..models.loading import load_backbone
from ..models.precision import lower_all
from .base import Baseline, Prompts

log = logging.getLogger("sdist")


def load_model(settings: Settings) -> Backbone:
    """The model of the settings, all of its networks in their precision; UserError if the pipeline cannot use it."""
    return adapt(load_backbone(settings.model, settings.device, settings.baseline.conditions), settings)


def adapt(backbone: Backbone, settings: Settings) -> Backbone:
    """A backbone in float32, all of its networks lowered to the settings' precision; UserError as above."""
    lower_all(backbone, settings.precision)
    if len(backbone.text.encoders) > 1:
        raise UserError(f"model '{settings.model}' has two text encoders; baselines are for Stable Diffusion 1 and 2")
    if backbone.vae.config.shift_factor:
        raise UserError(f"model '{settings.model}' shifts its latents, which these pipelines of diffusers do not know")
    with _quiet("transformers"):  # it warns that torchvision, which no pipeline here needs, is not installed
        _pipeline(backbone, settings.baseline)
    return backbone


def check(backbone: Backbone, settings: Settings, request: Request) -> tuple[int, int]:
    """The size that the job's picture will have; a baseline takes neither words nor a mask."""
    baseline = settings.baseline
    if request.words or request.mask is not None:
        raise UserError("words and a mask image are for methods with the regularizer attention_mask; a baseline has none")
    if request.instruction and not baseline.instructed:
        raise UserError("this baseline reads no instruction; the target prompt says what the picture should show")
    if baseline.steps > backbone.last_timestep + 1:
        raise UserError(f"the baseline asks for {baseline.steps} steps, this model has {backbone.last_timestep + 1}")
    prompts = prompts_of(request)
    for prompt in prompts:
        backbone.text.token_ids(prompt)
    baseline.check(prompts)
    return fitted_size(image_size(request.file), settings.size, backbone.native_side, _factor(backbone, baseline))


def prepare(backbone: Backbone, settings: Settings, request: Request) -> Prepared:
    """Reads and checks all that belongs to one job."""
    check(backbone, settings, request)
    factor = _factor(backbone, settings.baseline)
    return Prepared(request, fit(load_image(request.file), settings.size, backbone.native_side, factor), None, (), ())


def _factor(backbone: Backbone, baseline: Baseline) -> int:
    return lcm(backbone.factor, baseline.divisor)


def edit_batch(
    backbone: Backbone, baseline: Baseline, batch: Sequence[Prepared], deliver: Callable[[Result], None]
) -> list[Result]:
    """Edits one picture after the other, so that company changes nothing; `deliver` gets each as soon as it is there.

    Raises PicturesError at the end if a picture failed; the others are delivered.
    """
    pipeline, results, failures = _pipeline(backbone, baseline), [], dict[int, str]()
    untold = sum(not prepared.request.instruction for prepared in batch) if baseline.instructed else 0
    if untold:
        log.warning("%d of %d pictures have no instruction: the target prompt is given as one", untold, len(batch))
    for place, prepared in enumerate(batch):
        start = time.perf_counter()
        generator = Ticket(prepared.request.seed, prepared.key, 0, 0).generator("baseline")
        pixels = baseline.edit(pipeline, prepared.image, prompts_of(prepared.request), generator)
        if not np.isfinite(pixels).all():
            failures[place] = f"{prepared.request.image.name}: the baseline's picture is not finite"
            continue
        seconds = {"edit": round(time.perf_counter() - start, 3)}
        results.append(Result(prepared, Image.fromarray((pixels * 255).round().astype(np.uint8)), None, (), 1, seconds))
        deliver(results[-1])
    if failures:
        raise PicturesError(failures)
    return results


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def prompts_of(request: Request) -> Prompts:
    """What a pipeline is told of a job."""
    return Prompts(request.source, request.target, request.instruction or request.target)


def _pipeline(backbone: Backbone, baseline: Baseline) -> Any:
    """The baseline's pipeline around the loaded networks."""
    pipeline = baseline.pipeline(
        dict(backbone.scheduler.config),
        vae=backbone.vae,
        text_encoder=backbone.text.encoders[0],
        tokenizer=backbone.text.tokenizers[0],
        unet=backbone.unet,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=not log.isEnabledFor(logging.INFO), leave=False)
    return pipeline
