"""The run card: all that is needed to make an image again, as json beside it and inside the PNG."""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import __version__
from ..config.build import resolve
from ..config.settings import Settings
from ..config.yaml_files import check_values
from ..errors import UserError
from ..files.digest import file_digest
from ..files.images import CARD_KEY
from ..files.in_memory import is_kept
from ..models.added_files import AddedFile
from ..models.base import Backbone
from ..models.catalogue import IN_MEMORY
from ..plugins import check_recorded, plugins_of
from ..registry import classes_in
from ..spelling import escaped
from ..taggers import default_tagger
from .request import Prepared, Request, Result

PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "pytorch-lightning", "omegaconf", "pillow", "numpy")


def make_card(backbone: Backbone, settings: Settings, result: Result) -> dict[str, Any]:
    """The card of one image; what else was edited beside it does not matter."""
    return {
        "sdist": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": plain_settings(settings),
        "model": {
            "name": settings.model,
            "source": backbone.source,
            "prediction_type": backbone.prediction_type,
            "fingerprint": backbone.fingerprint,
            "precision": str(backbone.denoiser.dtype).removeprefix("torch."),
            "configuration": backbone.configuration,
            **({"tiled": backbone.tiled} if backbone.tiled else {}),
            **({"changed": changed} if (changed := backbone.changes) else {}),
        },
        **({"weights": weights} if (weights := settings.editor.weights(backbone)) else {}),
        **({"plugins": plugins} if (plugins := plugins_of({type(backbone), *classes_in(settings)})) else {}),
        "job": {**describe(result.prepared.request), **_tokens(result.prepared)},
        "lanes": result.parallel,
        "words": list(result.prepared.words),
        **_tagger(settings, result.prepared.request),
        "size": list(result.image.size),
        **({"composition": result.composition} if result.composition else {}),
        **({} if result.prepared.request.plain else {"read": result.prepared.notes}),
        "attempts": list(result.attempts),
        "seconds": result.timings,
        "machine": machine(backbone),
        "versions": dict(_versions()),  # the caller's own
    }


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _tagger(settings: Settings, request: Request) -> dict[str, str]:
    """What chose the words, where nobody named them."""
    if request.words or request.plain or "words" not in settings.editor.reads:
        return {}
    return {"tagger": default_tagger()[0]}


def _tokens(prepared: Prepared) -> dict[str, list[int]]:
    """Those that the mask followed."""
    return {"tokens": list(prepared.tokens), "source_tokens": list(prepared.source_tokens)}


def plain_settings(settings: Settings) -> dict[str, Any]:
    """The settings as json would give them back; files and folders of a model as absolute paths.

    Raises UserError for what is not UTF-8, which no card can hold.
    """
    plain = json.loads(json.dumps(settings.plain()))
    for key in ("model", "model_config", "vae"):
        if plain[key] and Path(plain[key]).exists():
            plain[key] = str(Path(plain[key]).resolve())
    for key in ("lora", "embedding"):
        plain[key] = [AddedFile.read(text).absolute for text in plain[key]]
    for key, value in plain.items():
        text = json.dumps(value, ensure_ascii=False)
        if (shown := escaped(text)) != text:
            raise UserError(f"{key} is not UTF-8: {shown[:200]}; no run card can hold it")
    return plain


def described(backbone: Backbone) -> dict[str, Any]:
    """What a card says of a model beside its fingerprint, as json gives it back."""
    return json.loads(json.dumps({"prediction_type": backbone.prediction_type, **backbone.configuration}))


def machine(backbone: Backbone) -> dict[str, Any]:
    """What bit-exactness depends on beside versions."""
    return {
        "device": str(backbone.device),
        "engine": backbone.engine,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
    }


def _where(path: Path) -> str:
    """A file as a card names it; one that will not stay by its name alone."""
    return path.name if is_kept(path) else str(path.resolve())


def describe(request: Request, digest: Callable[[Path], str] = file_digest) -> dict[str, Any]:
    """What a card says about one job, beside the tokens that were found. `digest` may remember the files of many requests."""
    return {
        "image": _where(request.image),
        "sha256": digest(request.file),
        "source": request.source,
        "target": request.target,
        "seed": request.seed,
        "words": list(request.words),
        "instruction": request.instruction or None,
        "mask": None if request.mask is None else _where(request.mask),
        "mask_sha256": None if request.mask_file is None else digest(request.mask_file),
    }


@dataclass(frozen=True)
class Card:
    """A card read back; the mask followed `words` by the tokens, `changed` are the plugins whose files are others now."""

    text: str
    settings: Settings
    request: Request
    words: tuple[str, ...]
    tokens: tuple[int, ...]
    source_tokens: tuple[int, ...] | None  # None: the card is older than that
    steps: int  # made; fewer than the settings' where the run was stopped
    parallel: int  # under "lanes" in the file
    threads: int
    fingerprint: str
    described: dict[str, Any]  # what else the model's outputs depended on
    weights: dict[str, str]  # of what an editor computes with beside the model
    versions: dict[str, str]
    changed: list[str]
    tiled: dict[str, int]  # what went through the autoencoder in tiles
    memory: str  # why no file holds the model, if none does


def card_text(path: Path) -> str:
    """The card inside a PNG, unread. Raises UserError if there is none."""
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(CARD_KEY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a PNG: {error}") from None
    if text is None:
        raise UserError(f"{path} has no run card; only PNGs that sdist made can be replayed")
    return text


def read_card(path: Path, images: Path | None = None) -> Card:
    """The card inside a PNG. Raises UserError if there is none, or if a source image is gone or has changed."""
    text = card_text(path)
    try:
        data = json.loads(text)
        check_values(json.dumps(data["settings"]))
        changed = check_recorded(data.get("plugins", {}), str(path))
        settings = resolve(data["settings"], f"run card of {path.name}")
        request = _request(data["job"], images, plain="read" not in data)
        words, tokens = tuple(map(str, data["words"])), tuple(map(int, data["job"]["tokens"]))
        source = data["job"].get("source_tokens")
        source = None if source is None else tuple(map(int, source))
        steps, parallel, threads = len(data["attempts"]), int(data["lanes"]), int(data["machine"]["threads"])
        if parallel < 1 or threads < 1:
            raise ValueError(f"{parallel} draws at once, {threads} threads")
        versions = {"sdist": str(data["sdist"]), **{str(k): str(v) for k, v in data["versions"].items()}}
        model, said = str(data["model"]["fingerprint"]), dict(data["model"].get("configuration", {}))
        said |= {key: value for key, value in data["model"].items() if key == "prediction_type"}
        weights = {name: str(value) for name, value in data.get("weights", {}).items()}
        tiled = {str(size): int(tiles) for size, tiles in data["model"].get("tiled", {}).items()}
        known = (model, said, weights, versions, changed, tiled, _in_memory(data["model"]))
        return Card(text, settings, request, words, tokens, source, steps, parallel, threads, *known)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: its run card is damaged ({type(error).__name__}: {error})") from None


def _in_memory(model: dict[str, Any]) -> str:
    """Of the model in a card: what of it is on no disk."""
    if model.get("changed"):
        return f"with networks that were changed in memory ({'; '.join(map(str, model['changed']))})"
    return "by a pipeline of components in memory" if model["name"] == IN_MEMORY else ""


def _request(entry: dict[str, Any], images: Path | None, plain: bool) -> Request:
    mask = entry["mask"] and _found(entry["mask"], entry["mask_sha256"], images, "mask")
    image = _found(entry["image"], entry["sha256"], images, "source image")
    words, instruction = tuple(entry["words"]), entry.get("instruction") or ""
    return Request(image, entry["source"], entry["target"], entry["seed"], words, mask, instruction, plain=plain)


def _found(recorded: str, digest: str, images: Path | None, what: str) -> Path:
    parts = Path(recorded).parts
    below = range(int(Path(recorded).is_absolute()), len(parts))
    places = [Path(recorded)] if images is None else [images.joinpath(*parts[i:]) for i in below]
    path = next((place for place in places if place.is_file()), places[-1])
    if not path.is_file():
        raise UserError(f"{what} {path} is not there; say where it is with --images DIR")
    if file_digest(path) != digest:
        raise UserError(f"{what} {path} has changed since (its sha256 is not the recorded {digest[:12]}...)")
    return path
