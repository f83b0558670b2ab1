"""From image files and prompts to edited pictures: everything around the distiller, used by the command line."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import Tensor
from torch.nn import functional as F

from ..config.settings import Settings
from ..distillation.distiller import ScoreDistiller, attempts_of, last_mask
from ..distillation.method import Method
from ..distillation.trainer import LEAST, default_lanes, optimize
from ..edits.request import Prepared, Request, Result
from ..errors import PicturesError, UserError
from ..files.images import fit, fitted_size, image_size, load_image, to_images, to_pixels
from ..filters import StdThreshold
from ..hooks.layers import nearest_level
from ..models.backbone import Backbone
from ..models.catalogue import find_model
from ..models.loading import load_backbone
from ..models.precision import lower
from ..prediction import Edit, rows_of
from ..prompts import default_tagger, differing_nouns, named_words, token_indices
from ..regularizers.attention_mask import AttentionMask
from . import diffusers_pipeline as baselines

log = logging.getLogger("sdist")


def load_model(settings: Settings) -> Backbone:
    """The model of the settings, in their precision; UserError if that is too coarse for the method's filter."""
    if settings.baseline is not None:
        return baselines.load_model(settings)
    return adapt(load_backbone(settings.model, settings.device), settings)


def adapt(backbone: Backbone, settings: Settings) -> Backbone:
    """A backbone in float32, made into what the settings want; UserError if their precision is too coarse for the filter."""
    if settings.baseline is not None:
        return baselines.adapt(backbone, settings)
    accept = settings.filter
    lower(backbone, settings.precision, accept.threshold if isinstance(accept, StdThreshold) else None)
    if settings.compile:
        backbone.compile()
    if settings.checkpoint:
        backbone.unet.enable_gradient_checkpointing()
    return backbone


def check(backbone: Backbone, settings: Settings, request: Request) -> tuple[int, int]:
    """The size that the job's picture will have; UserError for what is wrong and known without reading pixels."""
    if settings.baseline is not None:
        return baselines.check(backbone, settings, request)
    if request.instruction:
        raise UserError("this method reads no instruction; the target prompt says what the picture should show")
    size = fitted_size(image_size(request.file), settings.size, backbone.native_side, backbone.factor)
    if request.mask is not None and "attention_mask" not in settings.regularizers:
        raise UserError("a mask image needs the regularizer attention_mask, which this method does not have")
    prompts = (request.source, request.target, settings.prompts.null, settings.prompts.negative)
    source, target, *_ = (backbone.text.token_ids(prompt) for prompt in prompts)
    if source == target:
        raise UserError(f"source and target prompt are the same to this model ({request.source!r}, {request.target!r})")
    settings.timesteps.check(backbone.last_timestep)
    return size


def prepare(backbone: Backbone, settings: Settings, request: Request) -> Prepared:
    """Reads and checks all that belongs to one job, so that a bad one is known before anything is computed."""
    if settings.baseline is not None:
        return baselines.prepare(backbone, settings, request)
    check(backbone, settings, request)
    native, factor = backbone.native_side, backbone.factor
    image = fit(load_image(request.file), settings.size, native, factor)
    mask = (
        None
        if request.mask is None
        else fit(load_image(request.mask).convert("L"), f"{image.width}x{image.height}", native, factor)
    )
    chosen = (
        named_words(request.target, request.words)
        if request.words
        else differing_nouns(request.source, request.target, settings.prompts.difference)
    )
    tokens = token_indices(backbone.text.token_spans(request.target), chosen, settings.prompts.pieces)
    return Prepared(request, image, mask, tuple(w.text for w in chosen), tuple(tokens))


def edit_batch(
    backbone: Backbone,
    settings: Settings,
    batch: Sequence[Prepared],
    callbacks: Sequence[Callback] = (),
    logger: Logger | None = None,
    lanes: int | None = None,
    deliver: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Edits a queue of pictures of one size; each result is what it would be alone, up to float rounding.

    `lanes` draws are tried at once (default: what suits the device), see Schedule. `deliver` gets each result as soon as it is
    there. Raises PicturesError at the end if a picture failed; the others are delivered. A baseline has neither lanes nor
    a trainer with callbacks and a logger.
    """
    if settings.baseline is not None:
        return baselines.edit_batch(backbone, settings.baseline, batch, deliver)
    start = time.perf_counter()
    if "attention_mask" in settings.regularizers:
        _say_words(batch)
    edit, method = make_edit(backbone, settings, batch), method_for(backbone, settings)
    lanes = lanes or default_lanes(backbone.device, len(batch), edit.source.shape[-2:], method.filter is not None)
    identities = [(p.request.seed, p.key) for p in batch]
    least = lanes if backbone.device.type == "cuda" or backbone.compiled else LEAST  # compiled forms are for one shape
    distiller = ScoreDistiller(backbone, edit, method, settings.timesteps, identities, lanes, least)
    finishing = Finishing(backbone, batch, deliver, (time.perf_counter() - start) / len(batch))
    optimize(distiller, backbone.device, [finishing, *callbacks], logger)
    if distiller.failures:
        raise PicturesError({i: f"{batch[i].request.image.name}: {text}" for i, text in distiller.failures.items()})
    return [finishing.results[i] for i in range(len(batch))]


class Finishing(Callback):
    """Decodes and delivers each picture when it has made its last step, or as it is when the run is stopped."""

    def __init__(self, backbone: Backbone, batch: Sequence[Prepared], deliver: Callable[[Result], None], encoding: float) -> None:
        self._backbone, self._batch, self._deliver, self._encoding = backbone, batch, deliver, encoding
        self.results: dict[int, Result] = {}

    def on_train_batch_end(self, trainer: Trainer, distiller: ScoreDistiller, *_: object) -> None:  # type: ignore[override]
        for slot in distiller.accepted.tolist():
            if distiller.step[slot] == distiller.method.steps:
                self._finish(distiller, slot)

    def on_train_end(self, trainer: Trainer, distiller: ScoreDistiller) -> None:  # type: ignore[override]
        for slot in range(len(self._batch)):
            if slot not in self.results and slot not in distiller.failures:
                self._finish(distiller, slot)

    def _finish(self, distiller: ScoreDistiller, slot: int) -> None:
        self.results[slot] = self._result(distiller, slot)
        self._deliver(self.results[slot])

    def _result(self, distiller: ScoreDistiller, slot: int) -> Result:
        start = time.perf_counter()
        (image,) = to_images(self._backbone.decode(distiller.latents[slot : slot + 1]))
        seconds = {"encode": self._encoding, "optimize": float(distiller.seconds[slot]), "decode": time.perf_counter() - start}
        timings = {name: round(value, 3) for name, value in seconds.items()}
        lanes, attempts = distiller.schedule.lanes, attempts_of(distiller, slot)
        return Result(self._batch[slot], image, last_mask(distiller, slot), attempts, lanes, timings)


def make_edit(backbone: Backbone, settings: Settings, batch: Sequence[Prepared]) -> Edit:
    """The tensors of a batch: encoded pictures, the prompts that the method reads, focus tokens, masks."""
    source = backbone.encode(to_pixels([p.image for p in batch]))
    texts = {
        "target": [p.request.target for p in batch],
        "source": [p.request.source for p in batch],
        "null": [settings.prompts.null] * len(batch),
        "negative": [settings.prompts.negative] * len(batch),
    }
    needed = dict.fromkeys(row.prompt for row in rows_of(settings.loss.branches, backbone.guidance))
    text = {prompt: backbone.embed(texts[prompt]) for prompt in needed}
    focus = torch.zeros(len(batch), backbone.text.length, device=backbone.device)
    for row, p in enumerate(batch):
        focus[row, list(p.tokens)] = 1.0
    return Edit(source, text, focus, _user_masks(batch, source))


def method_for(backbone: Backbone, settings: Settings) -> Method:
    """The method that the settings name; if the model has no attention at a default level of the mask, the nearest is taken."""
    method, default = settings.method(), find_model(settings.model).scale
    mask = method.regularizers.get("attention_mask")
    if not isinstance(mask, AttentionMask):
        return method
    levels = {}
    for kind in ("cross", "self"):
        key = f"{kind}_level"
        wanted = getattr(mask, key)
        levels[key] = nearest_level(backbone.unet, kind, wanted) if wanted == getattr(default, key) else wanted
        if levels[key] != wanted:
            log.warning("%s: this model has none at 1/%d of the latent's side, 1/%d is used", key, 2**wanted, 2 ** levels[key])
    return replace(method, regularizers={**method.regularizers, "attention_mask": replace(mask, **levels)})


def _user_masks(batch: Sequence[Prepared], like: Tensor) -> Tensor | None:
    """Mask pictures averaged over each latent; a picture without one may change everywhere."""
    if all(p.mask is None for p in batch):
        return None
    grey = [p.mask or Image.new("L", p.image.size, 255) for p in batch]
    pixels = to_pixels([g.convert("RGB") for g in grey])[:, :1]
    return F.interpolate((pixels + 1) / 2, like.shape[-2:], mode="area").to(like)


def _say_words(batch: Sequence[Prepared]) -> None:
    for source, target, words, masked in dict.fromkeys(
        (p.request.source, p.request.target, p.words, p.mask is not None) for p in batch
    ):
        if words:
            log.info("the mask follows: %s", ", ".join(words))
        elif not masked:
            log.warning(
                "no noun in what differs between %r and %r (tagger: %s): the mask is off; name words with --words",
                source, target, default_tagger()[0],
            )  # fmt: skip
