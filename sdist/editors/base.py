"""What an editor is: from images and prompts to edited images, with a loaded model."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger

from ..distillation.method import Method
from ..draws import DrawKey
from ..edits.request import Prepared, Request, Result
from ..errors import ImagesError, NotFiniteError, UserError
from ..files.in_memory import called
from ..models.base import Backbone
from ..models.memory import AllocationError
from ..models.precision import Precision
from ..prediction import Edit
from ..prompts import named_words

log = logging.getLogger("sdist")

T = TypeVar("T")

STREAM = "baseline"  # of random numbers; its name is part of every image made so far

FAULTS = (AllocationError, NotFiniteError)  # of one image, which leave the others of its batch as they are


@dataclass(frozen=True)
class Observers:
    """Who watches an edit. An editor that is not stepwise has neither callbacks nor a logger."""

    callbacks: Sequence[Callback] = ()
    logger: Logger | None = None
    deliver: Callable[[Result], None] = lambda result: None  # gets each result as soon as it is there
    keeps: bool = True  # whether an edit returns its results too, which may be as large as photographs
    parallel: int | None = None  # draws tried at once; None: what suits the device
    admit: Callable[[int], bool] | None = None  # asked before an image begins; one that has not begun has no result
    names: Sequence[str] = ()  # of the results, for messages and logs; without, what they are made of names them
    staggered: bool = False  # the first image early, where that costs little: see Schedule


class Editor(ABC):
    """A frozen dataclass whose fields are what a method's yaml may set; it is found by its name in the registry EDITORS.

    If it is `stepwise`, its steps can be watched, logged, recorded, stopped and decoded; if it `queues`, several draws or images
    go through the network at once, as many as --parallel says. `conditions` latents are read by its denoiser beside the noisy
    one; if it `inpaints`, its denoiser may read a mask and the rest of the image instead. `ignores` are settings that mean
    nothing to it: giving one is an error. `steps_field` is the field that --steps sets.
    """

    stepwise: ClassVar[bool] = False
    queues: ClassVar[bool] = False
    conditions: ClassVar[int] = 0
    inpaints: ClassVar[bool] = False
    ignores: ClassVar[frozenset[str]] = frozenset()
    steps_field: ClassVar[str] = "steps"

    @property
    @abstractmethod
    def steps(self) -> int:
        """Of an image; often a field."""

    @property
    def watchable(self) -> bool:
        """Whether its steps can be watched and stopped, if not also logged and recorded."""
        return self.stepwise

    @property
    def progress(self) -> tuple[int, str]:
        """How many units of progress an image has, and what they are called."""
        return (self.steps, "step") if self.stepwise else (1, "image")

    @property
    @abstractmethod
    def reads(self) -> frozenset[str]:
        """Which of words, mask and instruction of a request it reads; LoadedMethod.check refuses any other that is given.

        The words are those that it blends, weights or masks by: a request has no second set of them. Both prompts may always
        be given, since sets of edits have them: see `unread`.
        """

    @property
    def has_mask(self) -> bool:
        """Whether its results have masks, if not each of them."""
        return False

    @property
    def differentiates(self) -> bool:
        """Whether gradients go through the network."""
        return False

    def unread(self, request: Request) -> Sequence[str]:
        """Which of the prompts, source and target, it would not read of that request."""
        return ()

    def size_multiple(self, model: Backbone) -> int:
        """What the sides of an image must be divisible by, in pixels."""
        return model.multiple

    def model_key(self, number_format: str) -> Hashable:
        """What of its fields a model in that format is loaded for: editors with equal keys share a loaded model."""
        return type(self).__name__

    @abstractmethod
    def adapt(self, model: Backbone, precision: Precision) -> None:
        """Brings a model into the precision, in which its denoiser may be already. Raises UserError if it cannot use it."""

    def check_model(self, model: Backbone) -> None:  # noqa: B027
        """Raises UserError if its fields ask for more than the model has; it has all that is asked where this stays as it is."""

    def weights(self, model: Backbone) -> dict[str, str]:
        """What it computes with beside the model, by name, for the run card: where images differ if these do."""
        return {}

    @property
    def guide_names(self) -> tuple[str | None, str | None]:
        """The IP-Adapter, and the CLIP beside the adapter's own, that it asks for, if any: names of files, perhaps."""
        return None, None

    @abstractmethod
    def check(self, model: Backbone, request: Request) -> None:
        """Raises UserError for what is wrong with a request and known without reading pixels."""

    def check_named(self, request: Request) -> None:
        """Raises UserError for words of a request that are not in the prompt that they are words of."""
        named_words(request.target, request.words)

    def words(self, model: Backbone, request: Request) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The words of the target prompt that it localizes, and the positions of their tokens."""
        return (), ()

    def source_tokens(self, model: Backbone, request: Request) -> tuple[int, ...]:
        """The positions of the tokens of the source prompt's words, if it localizes those too."""
        return ()

    def trace_parts(self, model: Backbone, prepared: Prepared) -> tuple[Edit, Method]:
        """What a trace of one edit is made with. Raises UserError for what the format of traces cannot hold."""
        raise UserError("a trace holds a run of score distillation; this method is another editor")

    @property
    def without_words(self) -> Sequence[str]:
        """Overrides that switch off those of its parts that read words; none where it has no such parts."""
        return ()

    def parallel(self, model: Backbone, images: int, size: tuple[int, int]) -> int:
        """How many draws at once suit the model's device for so many images with latents of (height, width)."""
        return 1

    @abstractmethod
    def edit(self, model: Backbone, batch: Sequence[Prepared], run: Observers) -> list[Result]:
        """Edits images of one size; each result is what it would be alone, up to float rounding.

        Raises ImagesError at the end if an image failed; the others are delivered.
        """


def generator_of(prepared: Prepared, stream: str = STREAM) -> torch.Generator:
    """Where an image's random numbers come from, one after the other, if its editor walks no steps that could be named."""
    return DrawKey(prepared.request.seed, prepared.key, 0, 0).generator(stream)


def check_steps(steps: int, model: Backbone) -> None:
    """Raises UserError for more steps than the model has timesteps."""
    if steps > model.last_timestep + 1:
        raise UserError(f"the editor asks for {steps} steps, this model has {model.last_timestep + 1}")


def report_unread(editor: Editor, request: Request) -> None:
    """Says which prompts of a single edit were given for nothing."""
    if given := [f"the {name} prompt" for name in editor.unread(request) if getattr(request, name)]:
        log.info("not read by this method: %s", " and ".join(given))


def without_faulty(batch: Sequence[Prepared], compute: Callable[[Sequence[Prepared]], T]) -> tuple[list[int], T, dict[int, str]]:
    """What `compute` makes of a batch, or, where that fails, of those images that do not fail alone.

    Gives their places, what was made of them, and why the others failed, by place. Raises ImagesError if all did.
    """
    try:
        return list(range(len(batch))), compute(batch), {}
    except FAULTS as error:
        failures = {0: reason_of(batch[0], error)} if len(batch) == 1 else {}
    for place, prepared in enumerate(batch if len(batch) > 1 else ()):
        try:
            compute([prepared])
        except FAULTS as error:
            failures[place] = reason_of(prepared, error)
    if len(failures) == len(batch):
        raise ImagesError(failures)
    places = [place for place in range(len(batch)) if place not in failures]
    return places, compute([batch[place] for place in places]), failures


def reason_of(prepared: Prepared, error: Exception) -> str:
    """Why an image failed, with its name."""
    return f"{called(prepared.request.image.name)}: {error}"
