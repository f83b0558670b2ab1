"""A method with its loaded model; loaded models stay in memory from one edit to the next."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..config.settings import Settings
from ..edits.composition import composed
from ..edits.request import Prepared, Request, Result
from ..edits.run_card import make_card
from ..errors import UserError
from ..errors.arguments import checked
from ..faults import naming
from ..files.in_memory import called
from ..files.opening import image_size
from ..models.added_files import AddedFile
from ..models.base import Backbone
from ..models.catalogue import find_model
from ..models.devices import choose_device
from ..models.loading import load_backbone
from ..models.memory import allocating
from ..models.photographs import report_photograph
from ..models.precision import DTYPES, format_on
from ..models.process_state import process_state
from ..models.vocabulary import check_words, report_weights, report_words, unknown_words
from ..models.wrappers import check_casting, plain
from ..registry import EDITORS
from .base import Editor, Observers
from .reading import Fitting
from .request_checks import check_mask, check_reads

log = logging.getLogger("sdist")


LOADED = (  # settings that make another loaded model
    "model", "device", "precision", "compile", "checkpoint", "load_options", "clip_skip", "prompt_blocks",
    "prompt_weights",
)  # fmt: skip


class Localized(NamedTuple):
    """What an editor localizes of a request: words of the target prompt, and positions of tokens in both prompts."""

    words: tuple[str, ...]
    tokens: tuple[int, ...]
    source_tokens: tuple[int, ...] | None  # None: not known


@dataclass(frozen=True)
class LoadedMethod:
    """An editor with the model that its settings name. Raises UserError where they do not fit."""

    settings: Settings
    model: Backbone
    name: str = ""  # of the method, for its results

    def __post_init__(self) -> None:
        if self.model.inpaints and not self.editor.inpaints:
            name = EDITORS.name_of(self.editor)
            raise UserError(
                f"{self.settings.model} is an inpainting model, which reads a mask, and {name} cannot give it one: lusd and the "
                "other methods of score distillation can"
            )
        with naming("editor", self.editor):
            self.editor.check_model(self.model)

    def __repr__(self) -> str:
        """In one line."""
        name = self.name or EDITORS.name_of(self.editor)
        return f"<LoadedMethod {name} with {self.settings.model} on {self.model.device}>"

    @property
    def editor(self) -> Editor:
        return self.settings.editor

    @checked()
    def check(self, request: Request) -> tuple[int, int]:
        """The size (width, height) that the image will have. Raises UserError for what is wrong and known without pixels."""
        check_reads(self.settings.reads, request, self.name or EDITORS.name_of(self.editor))
        check_mask(self.settings, request)
        if self.model.inpaints and request.mask is None:
            raise UserError(f"{self.settings.model} is an inpainting model: say where the edit may happen (--mask IMAGE)")
        size = self._fitting.size(request)
        self.model.check_size(*size)
        with naming("editor", self.editor):
            self.editor.check(self.model, request)
        for prompt in () if request.plain else self._read(request):
            check_words(self.model, prompt)
        return size

    @property
    def _fitting(self) -> Fitting:
        return Fitting(self.settings, self.model.native_side, self.editor.size_multiple(self.model))

    def unknown_words(self, request: Request) -> str:
        """The words that the model does not know, in a line that says so; empty if it knows them all."""
        return unknown_words(self.model, self._read(request))

    def _read(self, request: Request) -> list[str]:
        """The texts that the editor reads."""
        unread = self.editor.unread(request)
        return [getattr(request, name) for name in ("source", "target", "instruction") if name not in unread]

    @checked()
    def prepare(self, request: Request, localized: Localized | None = None) -> Prepared:
        """Reads and checks all that belongs to one request, so that a bad one is known before anything is computed.

        `localized`: what the mask follows, where it is known; else it is looked for.
        """
        if not request.plain:
            report_photograph(self.model, image_size(request.file))
        self.check(request)
        read = self._fitting.read(request)
        if not request.plain:
            report_words(self.model, self._read(request))
            report_weights(self.model, self._read(request))
        with naming("editor", self.editor):
            words, tokens, source = localized or (*self.editor.words(self.model, request), None)
            source = self.editor.source_tokens(self.model, request) if source is None else source
        mask = None if read.mask is None else read.mask.image
        return Prepared(request, read.image.image, mask, words, tokens, read.notes, source, read.box)

    def parallel(self, images: int, size: tuple[int, int]) -> int:
        """How many draws at once suit the device, for so many images of (width, height) pixels."""
        return self.editor.parallel(self.model, images, self.model.latent_size(size))

    @checked()
    def edit(self, batch: Sequence[Prepared], run: Observers = Observers()) -> list[Result]:  # noqa: B008 (it is frozen)
        """Edits a queue of images of one size, see Editor.edit; each result has its card as soon as it is delivered.

        Edits with the same model wait for each other. Raises UserError for a queue of none, or of several sizes.
        """
        _check_queue(batch)
        finished = dict[int, tuple[Result, Result]]()  # by the id of what the editor made, which lives as long as it is kept here

        def deliver(result: Result) -> None:
            done = self._finished(result)
            if run.keeps:
                finished[id(result)] = (result, done)
            run.deliver(done)

        with self.model.alone, process_state(), plain(self.model.foreign_networks.values()), self._naming():
            self.model.begin_edit()
            check_casting(self.model.foreign_networks)
            if changed := self.model.changes:
                log.warning("changed in memory, so the run card cannot be replayed: %s", "; ".join(changed))
            results = self.editor.edit(self.model, batch, replace(run, deliver=deliver))
        if not run.keeps:
            return []
        return [finished[id(result)][1] if id(result) in finished else self._finished(result) for result in results]

    def _naming(self) -> AbstractContextManager[None]:
        """Names the editor in what its code raises; of one whose steps are watched, it may be the code of who watches."""
        return nullcontext() if self.editor.stepwise else naming("editor", self.editor)

    def _finished(self, result: Result) -> Result:
        """A result that says how it was made."""
        name, mask = self.name or EDITORS.name_of(self.editor), result.prepared.mask
        result = composed(result, self.settings)
        if "kept" in result.composition:
            _report_kept(result.prepared.request.image.name, result.composition["kept"])
        elif mask is not None and not result.composition:
            _report_outside(result, mask)
        return replace(result, card=self.card(result), method=name, model=self.settings.model)

    def card(self, result: Result) -> dict[str, Any]:
        """The run card of a result."""
        return make_card(self.model, self.settings, result)


def _check_queue(batch: Sequence[Prepared]) -> None:
    if not batch:
        raise UserError("there is nothing to edit: give a list of what prepare returns, one for each image")
    sizes = dict.fromkeys(f"{prepared.image.width} x {prepared.image.height}" for prepared in batch)
    if len(sizes) > 1:
        raise UserError(f"the images of a queue have one size, these are {', '.join(sizes)}; edit each size by itself")


def _report_kept(name: str, kept: float) -> None:
    if kept:
        log.info("%s: %.0f%% of the pixels are the source's own", name, 100 * kept)
    else:
        log.warning("%s: no pixel is kept: there is no mask, or it covers the whole image", name)


def _report_outside(result: Result, mask: Image.Image) -> None:
    """Says how far pixels outside a user's mask have moved, which the autoencoder alone does."""
    outside = np.asarray(mask.convert("L")) < 128
    moved = np.abs(np.asarray(result.image, np.int16) - np.asarray(result.prepared.image, np.int16))[outside]
    if moved.size:
        text = "%s: outside the mask values moved by %.1f of 255 on average, since the autoencoder does not keep them exactly"
        log.info(text, called(result.prepared.request.image.name), moved.mean())


def load_method(settings: Settings) -> LoadedMethod:
    """The method with a model of its own, which nothing else uses."""
    with process_state():
        number_format = format_on(choose_device(settings.device).partition(":")[0], settings.precision)
        wanted = (settings.editor.conditions, DTYPES[number_format], settings.load_options)
        backbone = load_backbone(settings.model, settings.device, *wanted)
        return LoadedMethod(settings, adapt(backbone, settings))


def adapt(model: Backbone, settings: Settings) -> Backbone:
    """A model in float32 or in its precision already, made into what the settings want. Raises UserError if it cannot be."""
    with allocating(model.device, f"model {model.name} in the precision {settings.precision}"), naming("editor", settings.editor):
        settings.editor.adapt(model, settings.precision)
        model.finish()
    model.text.configure(settings.clip_skip, settings.prompt_blocks, settings.prompt_weights)
    model.compile(settings.compile)
    if settings.checkpoint:
        model.denoiser.enable_gradient_checkpointing()
    return model


class ModelCache:
    """Loads a model when it is first needed, so that bad input is known at once, and keeps the last few.

    Settings that want the same model get the same object, in any thread.
    """

    def __init__(self, kept: int) -> None:
        self._kept, self._models, self._lock = kept, OrderedDict[Hashable, Backbone](), threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """Another process gets an empty one, and loads for itself."""
        return type(self), (self._kept,)

    def in_memory(self, settings: Settings) -> Backbone | None:
        """The model of the settings if it is loaded, without waiting for one that is being loaded."""
        return self._models.get(_identity(settings))

    def get(self, settings: Settings) -> LoadedMethod:
        """The method of the settings, with its model loaded."""
        key = _identity(settings)
        with self._lock:
            if key not in self._models:
                while len(self._models) >= self._kept:
                    self._models.popitem(last=False)  # before the next one needs its memory
                self._models[key] = load_method(settings).model
            self._models.move_to_end(key)
            return LoadedMethod(settings, self._models[key])


def _identity(settings: Settings) -> Hashable:
    """What a loaded model depends on; files in a folder are told apart by when they were written."""
    kind = choose_device(settings.device).partition(":")[0]
    needs = (settings.editor.conditions, settings.editor.model_key(format_on(kind, settings.precision)))
    added = [AddedFile.read(text).place for _, text in settings.load_options.added]
    folders = [Path(source) for source in (*find_model(settings.model).sources, *added)]
    inside = (path for folder in folders for depth in ("*", "*/*") for path in folder.glob(depth))
    paths = sorted(path for path in (*folders, *inside) if path.is_file())
    files = tuple((str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    return repr(([getattr(settings, name) for name in LOADED], needs, files))


model_cache = ModelCache(kept=2)
