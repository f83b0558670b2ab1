"""Where the weights of image guidance are looked for: an adapter, and the CLIP whose embeddings it reads."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import UserError, unknown
from ..models.catalogue import MODELS, TINYWORLD, find_model, hub_problem, is_cached, is_folder

AUTO = "auto"
VIT_H = ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K",)  # both towers, which the estimate needs; the adapters' own folder has one
H94 = ("h94/IP-Adapter",)


@dataclass(frozen=True)
class Source:
    """An adapter's file in one of some folders or hub ids, and a CLIP in one of others, each tried in order."""

    places: tuple[str, ...]
    file: str
    clips: tuple[str, ...]


ADAPTERS: dict[str, Source] = {
    "tinyworld": Source((str(TINYWORLD),), "adapter.safetensors", (str(TINYWORLD / "clip"),)),
    "sd15": Source(H94, "models/ip-adapter_sd15.safetensors", VIT_H),
    "sdxl": Source(H94, "sdxl_models/ip-adapter_sdxl_vit-h.safetensors", VIT_H),
}
OF_CLIP = ("config.json", "model.safetensors", "tokenizer.json")  # files that it takes
OF_MODELS = {"tinyworld": "tinyworld", "sd14": "sd15", "sd15": "sd15", "sdxl": "sdxl"}  # by alias of a model


def find_adapter(name: str, model: str) -> Source | None:
    """Of an alias, a hub id, a file or a folder that holds `clip` too; of AUTO the model's own, None where it has none.

    Raises UserError for a name that is none of these, and for a folder that holds no adapter.
    """
    if name == AUTO:
        own = OF_MODELS.get(_alias(model), "")
        return ADAPTERS.get(own)
    if name in ADAPTERS:
        return ADAPTERS[name]
    if Path(name).exists():
        return _on_disk(Path(name))
    is_path = name.startswith((".", "/", "~")) or name.endswith(".safetensors")
    if is_path or name.count("/") > 1:
        raise UserError(f"the IP-Adapter {name} does not exist; give a folder, a file, a hub id (owner/name) or null for none")
    if "/" in name:
        layout = ADAPTERS[OF_MODELS.get(_alias(model), "sd15")]
        return Source((name,), layout.file, VIT_H)
    raise UserError(f"{unknown('IP-Adapter', name, ADAPTERS)}, or a hub id (owner/name), a folder, a file, or null for none")


def _alias(model: str) -> str:
    sources = find_model(model).sources
    return next((alias for alias, known in MODELS.items() if alias == model or set(sources) & set(known.sources)), "")


def _on_disk(path: Path) -> Source:
    patterns = ("*.safetensors", "models/*.safetensors")
    files = [path] if path.is_file() else [file for pattern in patterns for file in sorted(path.glob(pattern))]
    folder = path.parent if path.is_file() else path
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise UserError(f"{path} must hold one adapter (*.safetensors, there or in models/), found {found}; name the file itself")
    clips = (str(folder / "clip"), str(folder.parent / "clip"), *VIT_H)
    here = tuple(clip for clip in clips if clip in VIT_H or Path(clip).is_dir())
    return Source((str(files[0].parent),), files[0].name, here)


def fetch(source: Source) -> Path:
    """The adapter's file. Raises UserError if it is nowhere."""
    problems = []
    for place in source.places:
        if is_folder(place):
            if (path := Path(place) / source.file).is_file():
                return path
            problems.append(f"{place}: no {source.file}")
            continue
        cached = is_cached(place, source.file)
        problem = None if cached else _problem(place)
        if problem is None:
            return _download(place, source.file, only_cached=cached)
        problems.append(f"{place}: {problem}")
    raise UserError(f"no IP-Adapter for image guidance ({'; '.join(problems)})")


@cache
def _problem(place: str) -> str | None:
    """Asked once: the adapter of a model is looked for by every edit."""
    return hub_problem(place)


def _download(place: str, file: str, only_cached: bool) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(place, file, local_files_only=only_cached))
    except Exception as error:  # whatever the hub raises, the file cannot be had
        raise UserError(f"no IP-Adapter for image guidance ({place}: {' '.join(str(error).split())[:200]})") from error


def missing(source: Source) -> list[str]:
    """What of it is not on this disk."""
    lacks = [] if any(_there(place, source.file) for place in source.places) else [f"{source.places[0]}/{source.file}"]
    return lacks + ([] if any(all(_there(clip, file) for file in OF_CLIP) for clip in source.clips) else [source.clips[0]])


def _there(place: str, file: str) -> bool:
    return (Path(place) / file).is_file() if is_folder(place) else is_cached(place, file)
