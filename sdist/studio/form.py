"""From what stands on the page to the runs that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..config.build import load_settings, resolve, settings_of
from ..config.methods import find_yaml
from ..config.settings import Settings
from ..editors.loading import model_cache
from ..edits.request import Request
from ..errors import UserError
from ..files.images import fitted_size
from ..files.opening import image_size
from ..prompts import differing_nouns, words
from .edits import Run
from .limits import Limits, check_guide, check_prompts, plain_overrides

COMPOSED = ("keep_background", "output_size", "crop")  # settings of how an edit comes back into its source
CARD = "run card"  # stands among the methods for the settings of a restored card


@dataclass(frozen=True)
class EditOrder:
    """What a visitor asks for; None and 0 leave a value to the method."""

    image: Path | None
    source: str
    target: str
    methods: Sequence[str]
    model: str
    seed: int = 0
    seeds: int = 1
    chosen: Sequence[str] | None = None  # words that are localized; None where the automatic choice stands
    mask: Path | None = None
    steps: int = 0
    size: str = "native"
    overrides: str = ""
    card: dict[str, Any] | None = None  # settings that CARD stands for
    keep_background: bool = False
    output_size: str = "edit"
    crop: str = "none"
    added: dict[str, Any] = field(default_factory=dict)  # settings of what is put on the model


def runs_of(wanted: EditOrder, limits: Limits) -> list[Run]:
    """A run for each method and seed. Raises UserError for what is wrong or beyond the limits."""
    if wanted.image is None:
        raise UserError("there is no picture yet: drop one, or choose a scene")
    check_prompts(wanted.source, wanted.target)
    limits.check_edits(len(wanted.methods) * int(wanted.seeds))
    runs = []
    for method in wanted.methods:
        for seed in range(int(wanted.seed), int(wanted.seed) + int(wanted.seeds)):
            settings = _settings(wanted, method, seed)
            limits.check_steps(settings.editor.steps)
            check_guide(*settings.editor.guide_names)
            named = tuple(wanted.chosen or ()) if "words" in settings.editor.reads else ()
            _check_mask(wanted, method, settings)
            prompts = ("", "", wanted.target) if "instruction" in settings.editor.reads else (wanted.source, wanted.target, "")
            source, target, instruction = (prompt.strip() for prompt in prompts)
            request = Request(wanted.image, source, target, seed, named, wanted.mask, instruction)
            runs.append(Run(method, settings, request))
    return runs


def _check_mask(wanted: EditOrder, method: str, settings: Settings) -> None:
    """Raises UserError for what is painted and not read, and where something must be painted."""
    if wanted.mask is not None and "mask" not in settings.reads:
        raise UserError(f"{method} has no mask: clear what is painted, leave {method} out, or keep the background")
    if wanted.mask is None and settings.crop == "mask":
        raise UserError("paint where it may change first: the square around that is edited")
    if wanted.mask is None and settings.keep_background and not settings.editor.has_mask:
        raise UserError(f"{method} makes no mask: paint where it may change, or do not keep the background")


def _settings(wanted: EditOrder, method: str, seed: int) -> Settings:
    values: dict[str, Any] = {"model": wanted.model, "seed": seed, "size": wanted.size.strip() or "native"}
    values |= {"steps": int(wanted.steps)} if wanted.steps else {}
    values |= {name: getattr(wanted, name) for name in COMPOSED} | wanted.added
    overrides = plain_overrides(wanted.overrides)
    if method == CARD:
        if overrides:
            raise UserError("the settings of a run card stand as they are; choose a method to change single values")
        return resolve({**(wanted.card or {}), **values}, "the run card")
    settings = settings_of(method, overrides, values)
    if wanted.chosen is not None and not wanted.chosen and "words" in settings.editor.reads:
        return settings_of(method, [*overrides, *settings.editor.without_words], values)
    return settings


def reads(methods: Sequence[str], what: str) -> bool:
    """Whether one of these methods reads words or a mask."""
    return any(m == CARD or what in read_by(m) for m in methods)


@cache
def read_by(method: str) -> frozenset[str]:
    """What a method reads of a request; kept, since it is asked for with every letter that is typed."""
    return load_settings(method).editor.reads


@cache
def as_shipped(method: str, model: str, size: str = "native") -> Settings:
    """A method's settings with nothing changed but these; kept, since reading them takes a while."""
    return load_settings(method, model=model, size=size)


def edited_size(picture: Path, methods: Sequence[str], model: str, size: str) -> str:
    """The picture's size and that of its edit, where the model is in memory. Raises UserError for what the model cannot take."""
    width, height = stored = image_size(picture)
    plain = [name for name in methods if name != CARD]
    settings = as_shipped(plain[0], model, size.strip() or "native") if plain else None
    loaded = model_cache.in_memory(settings) if settings is not None else None
    if settings is None or loaded is None:
        return f"{width} x {height} pixels"
    goal = fitted_size(stored, settings.size, loaded.native_side, settings.editor.size_multiple(loaded))
    return f"{width} x {height} pixels" + ("" if goal == stored else f", edited at {goal[0]} x {goal[1]}")


@cache
def headline(method: str) -> str:
    """One line about a method: the first of its file."""
    if method == CARD:
        return "The settings of the run card that was restored."
    return find_yaml("method", method).read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


def words_of(source: str, target: str) -> tuple[list[str], list[str]]:
    """The target's words, each once, and those of them that an edit would localize by itself."""
    check_prompts(source, target)
    every = list(dict.fromkeys(word.text for word in words(target) if word.stem))
    nouns = {word.text for word in differing_nouns(source, target)}
    return every, [word for word in every if word in nouns]
