"""Loads what transformers publishes: frozen, in float32, from safetensors alone."""

import logging
from pathlib import Path
from typing import Any

import torch

from ...errors import UserError
from ...models.catalogue import hub_problem, is_cached, is_folder
from ...models.devices import choose_device
from ...models.folders import check_tokenizer
from ...models.hub_progress import hub_says, progress_of
from ...models.library import loading
from ...models.stored_weights import wrong_shape
from ...models.weights import check_indexes

log = logging.getLogger("sdist")

READ = ["*.json", "*.txt", "*.safetensors"]


def load_network(kind: str, source: str, device: str, **options: Any) -> Any:
    """A frozen network with all its weights, by the name of its class in transformers and its hub id or folder.

    Raises UserError if it cannot be loaded or lacks weights.
    """
    options |= {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = load_pretrained(kind, source, **options)
    if report["missing_keys"]:
        raise UserError(f"{source} is no {kind}: it lacks {sorted(report['missing_keys'])[0]}")
    for key, stored, own in sorted(report["mismatched_keys"]):
        raise wrong_shape(source, key, tuple(stored), type(model), tuple(own))
    return model.to(choose_device(device)).eval().requires_grad_(False)


def load_pretrained(kind: str, source: str, **options: Any) -> Any:
    """What `from_pretrained` of that class gives. Raises UserError if it is not on this disk or cannot be loaded."""
    import transformers  # takes seconds, and what a metric is called is asked without it

    try:
        if not is_folder(source) and not is_cached(source, "config.json"):
            _fetch(source)
        folder = Path(source) if is_folder(source) else _snapshot(source)
        check_indexes(folder)
        if folder.is_dir():
            check_tokenizer("it", getattr(transformers, kind), folder)
        with loading():
            return getattr(transformers, kind).from_pretrained(source, **options)
    except UserError:
        raise
    except Exception as error:  # of the file, of transformers, or whatever the network or the hub raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source} cannot be loaded as {kind} with safetensors: {reason}") from None


def _snapshot(hub_id: str) -> Path:
    """The folder of its files in the cache."""
    from huggingface_hub import try_to_load_from_cache

    return Path(str(try_to_load_from_cache(hub_id, "config.json"))).parent


def _fetch(hub_id: str) -> None:
    """Downloads what is read of a hub id, and says how far it is. Raises UserError if it cannot be downloaded."""
    from huggingface_hub import snapshot_download

    if problem := hub_problem(hub_id):
        raise UserError(f"{hub_id}: {problem}")
    log.info("fetching %s from the hub", hub_id)
    with hub_says(hub_id):
        snapshot_download(hub_id, allow_patterns=READ, ignore_patterns=["*/*"], tqdm_class=progress_of(hub_id))
