"""A whole model in one safetensors file, in the names of its original code: read by diffusers' conversion.

The file holds weights alone. Configurations and tokenizers are those of the pipeline that it was trained from, which is found by
its weights, or named.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..errors import UserError
from .base import Backbone
from .catalogue import MODELS, find_model, hub_problem
from .folders import INDEX, find_class, local_folder, read_index
from .hub_progress import hub_says
from .stored_weights import ConvertedWeights, Format, cast, fill, lacking, without_weights
from .text import text_format
from .weights import MissingError, find_weights, mapped

log = logging.getLogger("sdist")

Weights = Mapping[str, Tensor]

FLOAT32 = Format()
TRAINED_FROM = {  # the alias of what diffusers takes a file for
    "v1": "sd15", "v2": "sd21", "xl_base": "sdxl", "sd3": "sd3", "sd35_medium": "sd35-medium", "sd35_large": "sd35-large",
    "flux-dev": "flux-dev", "flux-schnell": "flux-schnell", "instruct-pix2pix": "instruct-pix2pix",
    "inpainting": "sd15-inpainting", "xl_inpaint": "sdxl-inpainting",
}  # fmt: skip
TEXTS = ("*.json", "*.txt", "*.model")  # what is fetched of a pipeline: all but its weights


class AbsentError(Exception):
    """A file has no weights of a component."""


class LoadedParts(NamedTuple):
    """The components of a model by their names in diffusers."""

    family: type[Backbone]
    parts: dict[str, Any]
    model_index: dict[str, Any]
    configs: Path  # the folder with its configurations
    stored: Mapping[str, Tensor] | None  # the denoiser's weights as they are in files


def load_single_file(path: Path, config: str, form: Format = FLOAT32, given: Collection[str] = ()) -> LoadedParts:
    """The components of a file but for those `given`: the denoiser in that format, the others in float32.

    `config`: an alias, hub id or folder whose configurations it has; empty: found by the weights. Raises UserError for a file
    that is damaged or lacks weights, and where the configurations are out of reach.
    """
    folder = config_folder(config or trained_from(path))
    index, listed, family = read_index(folder)
    names = [name for name in family.components if name not in given and (name in listed or name not in family.optional)]
    denoiser = family.denoiser_name
    kind = find_class(_class(denoiser, family, listed))
    try:
        network, stored = converted_network(denoiser, kind, folder, path, form)
    except AbsentError:
        raise UserError(f"{path.name} has no {denoiser}: it is a part of a model, or a LoRA (--lora)") from None
    parts: dict[str, Any] = {denoiser: network}
    for name in (name for name in names if name != denoiser):
        kind = find_class(_class(name, family, listed))
        parts[name] = _part(name, kind, folder, path, Format(text_format(kind, form.dtype)))
    return LoadedParts(family, parts, index, folder, stored)


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


def trained_from(path: Path) -> str:
    """The alias of the pipeline whose weights have the names and shapes of those in the file. Raises MissingError, UserError."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    kind = infer_diffusers_model_type(mapped(path))
    if kind not in TRAINED_FROM:
        have = ", ".join(sorted({*TRAINED_FROM.values()} & MODELS.keys()))
        raise UserError(f"{path.name} looks like a {kind}, which is not known here; --model-config names what it is: {have}")
    return TRAINED_FROM[kind]


def _class(name: str, family: type[Backbone], listed: Mapping[str, list[str]]) -> str:
    """The family's own, but for the scheduler, which the pipeline chooses."""
    if name in listed:
        family.check_kind(name, listed[name])
    return listed[name][0] if name == "scheduler" and name in listed else family.components[name]


def _part(name: str, kind: Any, folder: Path, file: Path, form: Format) -> Any:
    """One component: a network from the file, or what the file does not have from the folder of configurations."""
    from diffusers import ModelMixin

    if not issubclass(kind, nn.Module):
        return kind.from_pretrained(folder / name, local_files_only=True)
    try:
        if issubclass(kind, ModelMixin):
            return converted_network(name, kind, folder, file)[0]
        return _text_encoder(name, kind, folder, file, form)
    except AbsentError as error:
        return _from_folder(name, kind, folder, form, error)


def converted_network(name: str, kind: Any, folder: Path, file: Path, form: Format = FLOAT32) -> tuple[Any, Mapping[str, Tensor]]:
    """A network of diffusers in that format, and its weights as the file has them; `folder` has its configuration.

    Raises UserError if a weight is missing.
    """
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    if kind.__name__ not in SINGLE_FILE_LOADABLE_CLASSES:
        raise UserError(f"the installed diffusers reads no {kind.__name__} from a single file: a folder is needed")
    network, config = without_weights(kind, folder / name), kind.load_config(folder / name)
    convert = SINGLE_FILE_LOADABLE_CLASSES[kind.__name__]["checkpoint_mapping_fn"]
    own = network.state_dict().keys()

    def read() -> Mapping[str, Tensor]:
        weights = mapped(file)
        return weights if weights.keys() == own else convert(config=config, checkpoint=weights)

    with _absence():
        stored = ConvertedWeights(read)
    if not stored:
        raise AbsentError("none of its weights")
    fill(name, network, stored, form)
    return network.eval(), stored


@contextmanager
def _absence() -> Iterator[None]:
    """Raises AbsentError for what diffusers raises where a file has no weights of a component."""
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    try:
        yield
    except UserError:
        raise
    except (SingleFileComponentError, ValueError, KeyError, AttributeError) as error:
        raise AbsentError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def _text_encoder(name: str, kind: Any, folder: Path, file: Path, form: Format) -> Any:
    """A network of transformers."""
    from diffusers.loaders import single_file_utils as files

    is_t5 = "T5" in kind.__name__
    make = files.create_diffusers_t5_model_from_checkpoint if is_t5 else files.create_diffusers_clip_model_from_ldm
    with _absence():
        network = make(_complete(name, kind), mapped(file), subfolder=name, config=str(folder), local_files_only=True)
    if lacks := sorted(key for key, weight in network.named_parameters() if weight.is_meta):
        raise lacking(name, kind, lacks)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = cast(tensor.data, form)  # what is in that format already would be a part of the file as long as it is used
    network.__class__ = kind
    return network.eval()


def _from_folder(name: str, kind: Any, folder: Path, form: Format, error: Exception) -> Any:
    """A network that the file lacks. Raises UserError if the folder lacks it too."""
    try:
        variant = find_weights(folder / name).variant
    except MissingError:
        raise UserError(f"the file has no {name} ({error}), nor has {folder}: --model-config names a whole pipeline") from error
    log.info("%s is not in the file, it is that of %s", name, folder)
    network = kind.from_pretrained(folder / name, local_files_only=True, use_safetensors=True, variant=variant)
    return nn.Module.to(network, form.dtype).eval()


def _complete(name: str, kind: Any) -> Any:
    """The class, but for weights that are missing: diffusers would go on with random ones."""

    def load_state_dict(self: Any, weights: Weights, strict: bool = True, assign: bool = False) -> Any:
        report = kind.load_state_dict(self, weights, strict=False, assign=assign)
        if report.missing_keys:
            raise lacking(name, kind, report.missing_keys)
        return report

    return type(kind.__name__, (kind,), {"load_state_dict": load_state_dict})
