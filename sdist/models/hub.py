"""Fetches of a hub id what its model's family needs, and no more: no pickle, no second precision, no safety checker."""

import logging
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError
from .folders import INDEX, families_of, listed_parts
from .hub_progress import hub_says, progress_of
from .weights import SUFFIX, MissingError, choose, read_json, variant_of

log = logging.getLogger("sdist")

TEXTS = (".json", ".txt", ".model", ".jinja")  # configurations, vocabularies and templates


def fetch(hub_id: str, variant: str = "") -> Path:
    """The folder of its files in the cache, downloaded where they are not there: weights of that variant, if it has some.

    Raises MissingError where the hub fails.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError

    try:
        with hub_says(f"model {hub_id}"):
            return _fetch(hub_id, variant)
    except UserError:
        raise
    except GatedRepoError:
        raise MissingError(
            f"gated: accept its licence at {constants.ENDPOINT}/{hub_id}, then log in with `hf auth login`"
        ) from None
    except Exception as error:  # whatever the network or the hub raises, the model is out of reach
        raise MissingError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def _fetch(hub_id: str, variant: str) -> Path:
    from huggingface_hub import hf_hub_download, model_info, snapshot_download

    log.info("fetching model %s from the hub", hub_id)
    parts = listed_parts(read_json(Path(hf_hub_download(hub_id, INDEX))))
    needed = {name for family in families_of(parts) for name in family.components} & parts.keys()
    names = [file.rfilename for file in model_info(hub_id, timeout=10).siblings or ()]
    wanted = [f"{part}/{name}" for part in sorted(needed) for name in wanted_files(_inside(part, names), variant)]
    return Path(snapshot_download(hub_id, allow_patterns=[INDEX, *wanted], tqdm_class=progress_of(f"model {hub_id}")))


def wanted_files(names: Iterable[str], first: str = "") -> list[str]:
    """Of the files of a part those that are read: its texts, and its weights in one variant, whole or in shards."""
    names = list(names)
    texts, chosen = [name for name in names if name.endswith(TEXTS)], choose(names, first)
    if chosen is None:
        return texts
    variant, name = chosen
    if name not in texts:
        return [*texts, name]
    return [*texts, *(n for n in names if n.endswith(SUFFIX) and "-of-" in n and variant_of(n) == variant)]


def _inside(part: str, names: Iterable[str]) -> list[str]:
    """Files right in the folder of a part."""
    inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
    return [name for name in inside if "/" not in name]
