"""A whole model in one safetensors file, in the names of its original code: read by diffusers' conversion.

The file holds weights alone. Configurations and tokenizers are those of the pipeline that it was trained from, which is found by
its weights, or named.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import UserError
from .base import Backbone
from .catalogue import MODELS, find_model, hub_problem
from .folders import INDEX, families_of, find_class, listed_parts, local_folder, matching
from .hub_progress import hub_says
from .weights import MissingError, find_weights, read_json

log = logging.getLogger("sdist")

Weights = Mapping[str, Tensor]

TRAINED_FROM = {  # the alias of what diffusers takes a file for
    "v1": "sd15", "v2": "sd21", "xl_base": "sdxl", "sd3": "sd3", "sd35_medium": "sd35-medium", "sd35_large": "sd35-large",
    "flux-dev": "flux-dev", "flux-schnell": "flux-schnell", "instruct-pix2pix": "instruct-pix2pix",
}  # fmt: skip
TEXTS = ("*.json", "*.txt", "*.model")  # what is fetched of a pipeline: all but its weights


class FileContents(NamedTuple):
    """What a file is with the configurations of a folder: its components are in float32."""

    family: type[Backbone]
    parts: dict[str, Any]
    model_index: dict[str, Any]
    configs: Path


def load_single_file(path: Path, config: str) -> FileContents:
    """The components of a file by their names in diffusers.

    `config`: an alias, hub id or folder whose configurations it has; empty: found by the weights. Raises UserError for a file
    that is damaged or lacks weights, and where the configurations are out of reach.
    """
    weights = read_file(path)
    folder = config_folder(config or _trained_from(path, weights))
    index = read_json(folder / INDEX)
    listed = listed_parts(index)
    families = families_of(listed)
    family = matching(families, read_json(folder / families[0].denoiser_name / "config.json"))
    names = [name for name in family.components if name in listed or name not in family.optional]
    parts = {name: _part(name, find_class(_class(name, family, listed)), folder, weights) for name in names}
    return FileContents(family, parts, index, folder)


def config_folder(name: str) -> Path:
    """A folder with the configurations and tokenizers of a pipeline: on this disk, or fetched. Raises UserError."""
    problems = []
    for source in find_model(name).sources:
        folder = local_folder(source)
        if folder is not None and any((folder / part).is_dir() for part in ("tokenizer", "tokenizer_2")):
            return folder
        problem = hub_problem(source)
        if problem is None:
            return _fetched(source)
        problems.append(f"{source}: {problem}")
    raise UserError(
        f"a single file has no configurations and no tokenizers, and those of {name} are out of reach ({'; '.join(problems)}): "
        "once with a network fetches them (2 MB), or --model-config names a folder that has them"
    )


def _fetched(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [INDEX, *(f"*/{text}" for text in TEXTS)]
    with hub_says(f"configurations of {hub_id}"):
        return Path(snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=["*.safetensors.index*"]))


def read_file(path: Path) -> Weights:
    """All weights of a file. Raises MissingError if it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MissingError(f"{path.name} is damaged or cut short ({' '.join(str(error).split())[:100]})") from None


def _trained_from(path: Path, weights: Weights) -> str:
    """The alias of the pipeline whose weights have these names and shapes."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    kind = infer_diffusers_model_type(weights)
    if kind not in TRAINED_FROM:
        have = ", ".join(sorted({*TRAINED_FROM.values()} & MODELS.keys()))
        raise UserError(f"{path.name} looks like a {kind}, which is not known here; --model-config names what it is: {have}")
    return TRAINED_FROM[kind]


def _class(name: str, family: type[Backbone], listed: Mapping[str, list[str]]) -> str:
    """The family's own, but for the scheduler, which the pipeline chooses."""
    if name in listed:
        family.check_kind(name, listed[name])
    return listed[name][0] if name == "scheduler" and name in listed else family.components[name]


def _part(name: str, kind: Any, folder: Path, weights: Weights) -> Any:
    """One component: a network from the file, or what the file does not have from the folder of configurations."""
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    if not issubclass(kind, nn.Module):
        return kind.from_pretrained(folder / name, local_files_only=True)
    try:
        return whole_network(name, kind, folder, weights)
    except UserError:
        raise
    except (SingleFileComponentError, ValueError, KeyError) as error:  # none of its weights are there
        return _from_folder(name, kind, folder, error)


def whole_network(name: str, kind: Any, folder: Path, weights: Weights) -> Any:
    """A network of the weights of a file and the configuration in a folder. Raises UserError if a weight is missing."""
    network = _converted(_complete(name, kind), name, folder, weights)
    if lacks := sorted(key for key, weight in network.named_parameters() if weight.is_meta):
        raise _lack(name, kind, lacks)
    network.__class__ = kind
    return network.float().eval()


def _from_folder(name: str, kind: Any, folder: Path, error: Exception) -> Any:
    """A network that the file lacks. Raises UserError if the folder lacks it too."""
    try:
        variant = find_weights(folder / name).variant
    except MissingError:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the file has no {name} ({type(error).__name__}: {reason}), nor has {folder}: --model-config names a whole pipeline"
        ) from error
    log.info("%s is not in the file, it is that of %s", name, folder)
    return kind.from_pretrained(folder / name, local_files_only=True, use_safetensors=True, variant=variant).float().eval()


def _converted(kind: Any, name: str, folder: Path, weights: Weights) -> Any:
    """What diffusers makes of the weights of one component."""
    from diffusers.loaders import single_file_utils as files

    if hasattr(kind, "from_single_file"):
        options: dict[str, Any] = {"config": str(folder), "subfolder": name, "low_cpu_mem_usage": False}
        return kind.from_single_file(dict(weights), local_files_only=True, **options)
    make = (
        files.create_diffusers_t5_model_from_checkpoint if "T5" in kind.__name__ else files.create_diffusers_clip_model_from_ldm
    )
    return make(kind, weights, subfolder=name, config=str(folder), local_files_only=True)


def _complete(name: str, kind: Any) -> Any:
    """The class, but for weights that are missing: diffusers would go on with random ones."""

    def load_state_dict(self: Any, weights: Weights, strict: bool = True, assign: bool = False) -> Any:
        report = kind.load_state_dict(self, weights, strict=False, assign=assign)
        if report.missing_keys:
            raise _lack(name, kind, report.missing_keys)
        return report

    return type(kind.__name__, (kind,), {"load_state_dict": load_state_dict})


def _lack(name: str, kind: Any, keys: list[str]) -> UserError:
    return UserError(f"the file lacks {len(keys)} weights of {name}, a {kind.__name__}: {min(keys)} among them")
