"""An edit in three lines of Python.

>>> import sdist
>>> result = sdist.edit("photo.jpg", source="a cat", target="a dog")
>>> result.save("dog.png")
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from .config.build import settings_of
from .config.settings import Settings
from .distillation.callbacks import ProgressBar, Snapshot, StepObserver
from .editors.base import Observers, report_unread
from .editors.loading import LoadedMethod, model_cache
from .editors.request_checks import check_before_loading
from .edits.request import Request, Result
from .errors import UserError
from .errors.arguments import checked
from .files.in_memory import Picture, image_file, in_memory
from .files.opening import image_size
from .models.catalogue import default_method
from .plugins import load_plugins

log = logging.getLogger("sdist")


@checked("image", "mask", "model", "settings")
def edit(
    image: Picture,
    source: str = "",
    target: str = "",
    *,
    instruction: str = "",
    model: str | os.PathLike[str] | None = None,
    method: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    words: str | Sequence[str] = (),
    mask: Picture | None = None,
    steps: int | None = None,
    size: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    keep_background: bool | None = None,
    output_size: str | None = None,
    crop: str | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    on_step: Callable[[Snapshot], None] | None = None,
    progress: bool = True,
    plugins: Sequence[str | os.PathLike[str]] = (),
) -> Result:
    """The edited image, with its last mask and its run card.

    Without `method` it is the model's own: localflow for tinyworld, LUSD for most.

    `plugins` are files (my_loss.py) or modules of components of one's own, imported first and once per process.

    An image is a path, a PIL image, an array (height, width[, 3 or 4]) of 8-bit values, or the bytes of a file; a mask also an
    array (height, width) of truth values or numbers. `instruction` says what to do, for methods that read one and need no
    prompts then. `keep_background`, `output_size` ("source") and `crop` ("auto", "mask") put the edit back into the image: see
    docs/bring_your_own.md. `settings` are further values of the method's yaml, {"optimizer": {"lr": 0.1}} or
    ["optimizer.lr=0.1"]; arguments win over them, and None leaves a value to the method. `on_step` gets the start (step 0) and
    every step as it is made. `progress` shows a bar, and warns if the result has another size than the image, unless that was
    asked for. The model stays in memory for the next call. Raises UserError for bad input.
    """
    arguments = {
        "model": model, "seed": seed, "steps": steps, "size": size, "device": device, "precision": precision,
        "keep_background": keep_background, "output_size": output_size, "crop": crop,
    }  # fmt: skip
    load_plugins(plugins)
    method = default_method(model, settings) if method is None else method
    resolved = settings_of(method, settings, arguments)
    if on_step is not None and not resolved.editor.watchable:
        raise UserError(f"on_step: the steps of {method} cannot be watched")
    chosen = (words,) if isinstance(words, str) else tuple(words)
    named = os.fspath(method)
    with ExitStack() as stack:
        file = stack.enter_context(image_file(image))
        mask_file = None if mask is None else stack.enter_context(image_file(mask, is_mask=True))
        request = Request(file, source, target, resolved.seed, chosen, mask_file, instruction)
        check_before_loading(resolved, request, named)
        report_unread(resolved.editor, request)
        watching = [] if on_step is None else [StepObserver(on_step)]
        bar = [ProgressBar(quiet=False)] if progress and resolved.editor.stepwise else []
        result = make(resolved, request, Observers([*bar, *watching]), named, progress)
    return replace(result, card=without_folders(result.card, in_memory(image=image, mask=mask)))


@checked("model", "settings")
def load(
    method: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    precision: str | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    plugins: Sequence[str | os.PathLike[str]] = (),
) -> LoadedMethod:
    """A method with its model, to check, prepare and edit requests with, or for a loop of one's own (docs/python.md).

    The arguments are those of `edit`; the model stays in memory for the next call. Raises UserError for bad input.
    """
    chosen = {"model": model, "device": device, "precision": precision}
    load_plugins(plugins)
    method = default_method(model, settings) if method is None else method
    resolved = settings_of(method, settings, chosen)
    return replace(model_cache.get(resolved), name=os.fspath(method))


def make(
    settings: Settings,
    request: Request,
    run: Observers = Observers(),  # noqa: B008 (it is frozen)
    name: str = "",
    progress: bool = False,
) -> Result:
    """One edit by a method of that name, from its files to its result; edits with the same model wait for each other.

    `progress`: warns if the result has another size than the image.
    """
    method = replace(model_cache.get(settings), name=name)
    with method.model.alone:
        prepared = method.prepare(request)
        resized = image_size(request.file) != prepared.image.size and not settings.at_source
        if progress and resized and not log.isEnabledFor(logging.INFO):
            log.warning("%s", "; ".join(prepared.notes["image"]))  # which the log has already where it shows information
        (result,) = method.edit([prepared], run)
    return result


def without_folders(card: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The card with those files of its job by name alone, for files that will not stay where they are."""
    names = {key: Path(card["job"][key]).name for key in keys if card["job"][key] is not None}
    return {**card, "job": {**card["job"], **names}}
