"""The settings of a run: what all editors share, and the editor itself with what it may be set to."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ..errors import UserError
from ..files.sizes import stated_size
from ..models.catalogue import DEFAULT
from ..models.compiled import Choice
from ..models.options import LoadOptions
from ..models.precision import Precision
from ..models.residence import Offload, Storage
from ..plugins import loaded_plugins
from ..registry import EDITORS, one_of, plain

FLAT = "score_distillation"  # the editor whose keys stand at the top of a yaml, where no `editor` is named


@dataclass(frozen=True)
class LogSettings:
    """Where runs are logged (--log) and how often images are."""

    images_every: int = 30  # accepted steps between logged images
    offline: bool = True  # wandb: keep the run on disk
    project: str = "sdist"
    group: str = ""  # wandb group, for ablations

    def __post_init__(self) -> None:
        if self.images_every < 1:
            raise UserError(f"log.images_every must be at least 1, got {self.images_every}")


@dataclass(frozen=True)
class CompositionSettings:
    """How edited pixels come back into the source image, see sdist/edits/composition.py."""

    paste: Literal["residual", "pixels"] = "residual"  # at the source's size: its change is added, or its pixels replace
    threshold: float = 0.5  # of a method's mask: what is above may change
    grow: float = 1 / 64  # by how much of the edit's short side that is widened
    feather: float = 1 / 64  # and how wide its soft edge reaches, inwards and outwards; a mask image has its own edge

    def __post_init__(self) -> None:
        for name in ("threshold", "grow", "feather"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"composition.{name} is 0 or more and below 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Settings:
    """All of a run but its images and prompts."""

    model: str = DEFAULT  # alias, hub id, folder, or a file of a whole model (.safetensors)
    variant: str = ""  # of its weights, such as fp16, where there are several; empty: without one, or what there is
    model_config: str = ""  # of a file: alias, hub id or folder whose configurations it has; empty: what it looks like
    vae: str = ""  # in place of the model's own: a .safetensors file, folder or hub id
    lora: list[str] = field(default_factory=list)  # FILE[:WEIGHT], folder or hub id: added to the weights, in this order
    embedding: list[str] = field(default_factory=list)  # FILE[:WORD], folder or hub id: words of textual inversion
    clip_skip: int = 0  # last layers of CLIP that are left out, beyond those that the model leaves out anyway
    prompt_blocks: int = 1  # of 75 tokens, that prompts are read in: a longer prompt is an error
    prompt_weights: bool = False  # whether (cat:1.3) in a prompt weighs "cat" by 1.3; else it is text like any other
    device: str = "auto"
    precision: Precision = "auto"  # of the noise predictor alone: fp32, fp16, bf16; auto is fp16 on CUDA, else fp32
    offload: Offload = "auto"  # networks that wait leave the GPU ("model"), or the denoiser's layers one by one ("group")
    storage: Storage = "same"  # of the denoiser's weights: in its precision, or in fp8, each widened when it is used
    compile: Choice = "none"  # what runs the network: auto, inductor, openvino, or none beside torch; see docs/performance.md
    checkpoint: bool = False  # less memory, more time for losses that differentiate through the network (CDS)
    size: str = "native"  # "native": short side to the model's; "keep"; or "WIDTHxHEIGHT"
    keep_background: bool = False  # outside of the mask, the user's or else the method's last, pixels are the source's own
    output_size: Literal["edit", "source"] = "edit"  # of the result; "source": it is put back into the image as it was given
    crop: Literal["none", "auto", "mask"] = "none"  # "mask": a square around the mask image is edited; "auto": where there is one
    composition: CompositionSettings = field(default_factory=CompositionSettings)
    seed: int = 0  # of the first image; a request has its own
    scale: Any = field(default_factory=dict)  # of the model; given here it overrides sdist/models/catalogue.py
    log: LogSettings = field(default_factory=LogSettings)
    editor: Any = one_of("editor", FLAT)  # without it the keys of score_distillation stand beside these

    def __post_init__(self) -> None:
        stated_size(self.size)
        if self.clip_skip < 0 or self.prompt_blocks < 1:
            raise UserError(f"clip_skip is 0 or more and prompt_blocks 1 or more, got {self.clip_skip} and {self.prompt_blocks}")
        what = f"--offload {self.offload}" if self.storage == "same" else f"--storage {self.storage}"
        if self.compile != "none" and (self.offload in ("model", "group") or self.storage != "same"):
            raise UserError(f"--compile and {what} do not go together: a compiled network stays where it is, as it is")
        if self.editor.differentiates and (self.offload == "group" or self.storage != "same"):
            raise UserError(f"{what} does not go with a loss that differentiates through the network: its weights must stay")

    @property
    def load_options(self) -> LoadOptions:
        """What the model is loaded with beside its own files."""
        added = (self.vae, tuple(self.lora), tuple(self.embedding))
        stays = self.compile != "none" or self.editor.differentiates or "offload" in self.editor.ignores
        offload = "none" if self.offload == "auto" and stays else self.offload
        return LoadOptions(self.variant, self.model_config, *added, offload, self.storage)

    @property
    def reads(self) -> frozenset[str]:
        """What of a request is read: by the editor, and when its image is put together."""
        return self.editor.reads | ({"mask"} if self.keep_background or self.crop != "none" else frozenset[str]())

    @property
    def at_source(self) -> bool:
        """Whether a result has the size of the image as it was given."""
        return self.output_size == "source" or self.crop != "none"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process builds equal settings from plain data, after the plugins that their components may come from."""
        from .build import restore

        return restore, (self.plain(), tuple(loaded_plugins()))

    def plain(self) -> dict[str, Any]:
        """Every value as plain data, from which `resolve` makes equal settings."""
        data = {key: value for key, value in plain(self).items() if key not in self.editor.ignores}
        if data["editor"]["name"] != FLAT:
            return data
        flat = data.pop("editor")
        del flat["name"]
        return {**data, **flat}


def common_keys(editor: str) -> list[str]:
    """The keys beside an editor's own that a yaml of it may have."""
    return [f.name for f in fields(Settings) if f.name not in EDITORS.get(editor).ignores]
