"""Score distillation as an editor: a queue of images goes through the distiller, and each is decoded when it is done."""

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch

from ..distillation.callbacks import Observer
from ..distillation.distiller import ScoreDistiller, attempts_of, last_mask
from ..distillation.method import Method
from ..distillation.stop import StopSettings
from ..distillation.trainer import MIN_PARALLEL, default_parallel, optimize
from ..edits.request import Prepared, Request, Result
from ..errors import ImagesError, UserError
from ..errors.arguments import check_count
from ..files.images import to_images, to_pixels
from ..files.in_memory import called
from ..image_guidance.settings import ImageGuidance
from ..models.base import Backbone
from ..models.precision import Precision, lower
from ..optimizer import OptimizerSettings
from ..prediction import Branch, Edit, rows_of
from ..prompts import Difference, Word, words_of_both, words_of_target
from ..registry import EDITORS, many_of, one_of
from ..spelling import check_text
from ..taggers import default_tagger
from ..timesteps import check_levels
from .base import FAULTS, Editor, Observers, reason_of, without_faulty
from .focus import focus_rows, with_tokens
from .mask_images import condition_of, mask_rows

log = logging.getLogger("sdist")


@dataclass(frozen=True)
class PromptSettings:
    """How prompts are read."""

    null: str = ""  # the unconditional prompt
    negative: str = ""  # what the combination loss may push away from
    difference: Difference = "paper"  # rule for the words that differ, see sdist/prompts.py
    pieces: Literal["all", "last"] = "all"  # tokens of a noun that is split: all, or the last one (release)

    def __post_init__(self) -> None:
        check_text("null prompt", self.null)
        check_text("negative prompt", self.negative)


@EDITORS.register("score_distillation")
@dataclass(frozen=True)
class ScoreDistillation(Editor):
    """Optimizes the latents of the image along the direction that a method's parts make of noise predictions."""

    stepwise: ClassVar[bool] = True
    queues: ClassVar[bool] = True
    inpaints: ClassVar[bool] = True

    steps: int = 200  # accepted steps, at most
    noises: int = 1  # noise samples that the loss averages in each draw
    timesteps: Any = one_of("timesteps", "uniform")
    prompts: PromptSettings = field(default_factory=PromptSettings)
    loss: Any = one_of("loss", "dds")
    regularizers: Any = many_of("regularizer")  # {name: {field: ...}}, applied in this order; null switches off
    filter: Any = one_of("filter")
    normalizer: Any = one_of("normalizer")
    gamma: Any = one_of("gamma", "constant")
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    stop: StopSettings = field(default_factory=StopSettings)
    image_guidance: ImageGuidance = field(default_factory=ImageGuidance)

    def __post_init__(self) -> None:
        if None in (self.loss, self.gamma, self.timesteps):
            raise UserError("loss, gamma and timesteps cannot be null")
        check_count("steps", self.steps)
        check_count("noises", self.noises)
        _ = self.parts  # which go together, or are refused

    @property
    def parts(self) -> Method:
        """Its components, before they know the model."""
        return Method(**{f.name: getattr(self, f.name) for f in fields(Method)})

    @property
    def reads(self) -> frozenset[str]:
        return self.parts.reads | {"mask"}

    @property
    def guide_names(self) -> tuple[str | None, str | None]:
        return self.image_guidance.adapter, self.image_guidance.clip

    @property
    def has_mask(self) -> bool:
        return self.parts.mask is not None

    @property
    def differentiates(self) -> bool:
        return self.loss.differentiates

    def unread(self, request: Request) -> tuple[str, ...]:
        """The source, if no branch, no words and no image embedding depend on it."""
        by_network = any(branch.prompt == "source" for branch in self.branches)
        is_read = by_network or "words" in self.reads or self.image_guidance.is_on
        return () if is_read else ("source",)

    @property
    def without_words(self) -> list[str]:
        return [f"regularizers.{name}=null" for name, part in self.regularizers.items() if "words" in part.reads]

    def model_key(self, number_format: str) -> Hashable:
        return self.filter if number_format != "fp32" else None  # which may refuse the format

    def adapt(self, model: Backbone, precision: Precision) -> None:
        """Raises UserError if the precision is too coarse for the filter."""
        first = torch.zeros(1, dtype=torch.long)
        lower(model, precision, None if self.filter is None else float(self.filter.threshold_at(first)))

    def check_model(self, model: Backbone) -> None:
        """Raises UserError for steps that the model has not, attention that cannot be read, an adapter that is not there."""
        if self.parts.hooks:
            _ = model.layout
        self.timesteps.check(self.steps, model.last_timestep)
        check_levels(self.timesteps, self.steps, model.last_timestep)
        if self.image_guidance.is_on:
            self.image_guidance.guide(model)  # so that one that cannot be had is known before an edit

    def weights(self, model: Backbone) -> dict[str, str]:
        return {"image_guidance": self.image_guidance.guide(model).fingerprint} if self.image_guidance.is_on else {}

    def check(self, model: Backbone, request: Request) -> None:
        prompts = (request.source, request.target, self.prompts.null, self.prompts.negative)
        source, target, *_ = (model.text.reading(prompt) for prompt in prompts)
        if source == target:
            raise UserError(f"source and target prompt are the same to this model ({request.source!r}, {request.target!r})")

    def words(self, model: Backbone, request: Request) -> tuple[tuple[str, ...], tuple[int, ...]]:
        _, chosen = self.followed(request)
        return with_tokens(model, request.target, chosen, self.prompts.pieces)

    def check_named(self, request: Request) -> None:
        if request.words:
            self.followed(request)

    def followed(self, request: Request) -> tuple[list[Word], list[Word]]:
        """The words of the source and of the target that its parts follow. Raises UserError for a word that is not there."""
        asked = (request.source, request.target, request.words, self.prompts.difference)
        return words_of_both(*asked) if "source" in self.parts.follows else ([], words_of_target(*asked))

    def parallel(self, model: Backbone, images: int, size: tuple[int, int]) -> int:
        parallel = default_parallel(model.device, images, size, self.filter is not None)
        return max(1, parallel // self.noises)

    def edit(self, model: Backbone, batch: Sequence[Prepared], run: Observers) -> list[Result]:
        start, method = time.perf_counter(), self.method(model)
        if "words" in self.reads:
            self._log_words(batch)
        places, edit, failures = without_faulty(batch, partial(self.encode, model))
        batch = [batch[place] for place in places]
        has_mask = method.mask is not None
        if edit.mask is not None:
            method = method.with_user_mask()
        parallel = run.parallel or self.parallel(model, len(batch), (edit.source.shape[-2], edit.source.shape[-1]))
        has_one_shape = model.device.type == "cuda" or (model.compiled is not None and model.compiled.engine.one_shape)
        min_parallel = parallel if has_one_shape else MIN_PARALLEL
        identities = [(p.request.seed, p.key) for p in batch]
        unnamed = [f"{called(p.request.image.name)}, seed {p.request.seed}" for p in batch]
        names = [run.names[i] for i in places] if run.names else unnamed
        staggered = run.staggered and parallel > 1 and not has_one_shape
        admit = None if run.admit is None else _admit_at(run.admit, places)
        distiller = ScoreDistiller(
            model, edit, method, identities, parallel, min_parallel, admit=admit, staggered=staggered, names=names
        )  # fmt: skip
        encoding = (time.perf_counter() - start) / len(batch)
        delivery = ResultDelivery(model, batch, run.deliver, encoding, only_begun=run.admit is not None, has_mask=has_mask)
        optimize(distiller, model.device, [delivery, *run.callbacks], run.logger)
        late = {i: f"{called(batch[i].request.image.name)}: {text}" for i, text in distiller.failures.items()} | delivery.failures
        if failures := failures | {places[i]: text for i, text in late.items()}:
            raise ImagesError(dict(sorted(failures.items())))
        return [delivery.results[i] for i in sorted(delivery.results)]

    def encode(self, model: Backbone, batch: Sequence[Prepared]) -> Edit:
        """The tensors of a batch: encoded images, the prompts that the method reads, focus tokens, masks."""
        pixels = to_pixels([p.image for p in batch])
        source = model.encode(pixels)
        texts = {
            "target": [p.request.target for p in batch],
            "source": [p.request.source for p in batch],
            "null": [self.prompts.null] * len(batch),
            "negative": [self.prompts.negative] * len(batch),
        }
        rows = rows_of(self.branches, model.guidance)
        needed = dict.fromkeys(row.prompt for row in rows)
        if foreign := [prompt for prompt in needed if prompt not in texts]:
            raise UserError(f"a branch of the method names the prompt {foreign[0]!r}: have {', '.join(texts)}")
        text = {prompt: model.embed(texts[prompt]) for prompt in needed}
        source_focus, focus = focus_rows(model, batch)
        mask = mask_rows(batch, source)
        masked = None if mask is None else torch.tensor([p.mask is not None for p in batch], device=model.device)
        steering = self.image_guidance.hook(model, batch, rows) if self.image_guidance.is_on else None
        return Edit(source, text, focus, mask, masked, steering, source_focus, condition_of(model, batch, pixels))

    def source_tokens(self, model: Backbone, request: Request) -> tuple[int, ...]:
        if "source" not in self.parts.follows:
            return ()
        gone, _ = self.followed(request)
        return with_tokens(model, request.source, gone, self.prompts.pieces)[1]

    def _log_words(self, batch: Sequence[Prepared]) -> None:
        """One line per image, whatever its seeds."""
        for request, words, is_masked in dict.fromkeys((replace(p.request, seed=0), p.words, p.mask is not None) for p in batch):
            gone = [word.text for word in self.followed(request)[0]] if "source" in self.parts.follows else []
            if words or gone:
                log.info("%s: the mask follows %s", called(request.image.name), ", ".join([*gone, *words]))
            elif not is_masked:
                log.warning(
                    "%s: no noun in what differs between %r and %r (tagger: %s): the mask is off; name words with --words",
                    called(request.image.name), request.source, request.target, default_tagger()[0],
                )  # fmt: skip

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All that a network is asked for."""
        return (*self.parts.branches, *self.parts.loss.probed)

    def trace_parts(self, model: Backbone, prepared: Prepared) -> tuple[Edit, Method]:
        if prepared.mask is not None or self.prompts.null or self.image_guidance.is_on or "source" in self.parts.follows:
            raise UserError(
                "a trace can hold neither a mask image nor a null prompt of one's own, image guidance or a mask of both branches"
            )
        return self.encode(model, [prepared]), self.method(model)

    def method(self, model: Backbone) -> Method:
        """Its components, the regularizers adapted to the model."""
        parts, scale = self.parts, model.scale
        return replace(parts, regularizers={name: r.adapted(model, scale) for name, r in parts.regularizers.items()})


class ResultDelivery(Observer):
    """Decodes and delivers each image when it has made its last step, or as it is when the run is stopped.

    `encoding`: seconds that were each image's share; `only_begun`: without those that had not begun.
    """

    def __init__(
        self,
        backbone: Backbone,
        batch: Sequence[Prepared],
        deliver: Callable[[Result], None],
        encoding: float,
        only_begun: bool,
        has_mask: bool,
    ) -> None:
        self._backbone, self._batch, self._deliver = backbone, batch, deliver
        self._encoding, self._only_begun, self._has_mask = encoding, only_begun, has_mask
        self.results: dict[int, Result] = {}
        self.failures: dict[int, str] = {}  # images that could not be decoded

    def on_round(self, distiller: ScoreDistiller) -> None:
        for image in distiller.accepted.tolist():
            if distiller.schedule.done[image]:
                self._finish(distiller, image)

    def on_end(self, distiller: ScoreDistiller) -> None:
        ended = {*self.results, *self.failures, *distiller.failures}
        for image, begun in enumerate(distiller.schedule.begun.tolist()):
            if image not in ended and (begun or not self._only_begun):
                self._finish(distiller, image)

    def _finish(self, distiller: ScoreDistiller, index: int) -> None:
        try:
            self.results[index] = self._result(distiller, index)
        except FAULTS as error:
            self.failures[index] = reason_of(self._batch[index], error)
            return
        self._deliver(self.results[index])

    def _result(self, distiller: ScoreDistiller, index: int) -> Result:
        start = time.perf_counter()
        (image,) = to_images(self._backbone.decode(distiller.latents[index : index + 1]))
        seconds = {"encode": self._encoding, "optimize": float(distiller.seconds[index]), "decode": time.perf_counter() - start}
        timings = {name: round(value, 3) for name, value in seconds.items()}
        parallel, attempts, prepared = distiller.schedule.parallel, attempts_of(distiller, index), self._batch[index]
        mask = last_mask(distiller, index) if self._has_mask or prepared.mask is not None else None
        return Result(prepared, image, mask, attempts, parallel, timings, is_whole=bool(distiller.schedule.done[index]))


def _admit_at(admit: Callable[[int], bool], places: Sequence[int]) -> Callable[[int], bool]:
    """Asks about images by their places in a batch of which some were left out."""
    return lambda image: admit(places[image])
