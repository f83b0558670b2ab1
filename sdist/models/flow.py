"""What flow transformers have in common: levels that their scheduler shifts, and attention that text and image share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from jaxtyping import Float, Real
from torch import Tensor

from ..diffusion import OutputKind, PerImage, flow_scales
from ..errors import UserError
from ..hooks.layers import AttentionLayout, Kind, Layer, refuse_fused
from .base import Backbone
from .packing import PATCH
from .schedules import exponential_shift
from .vae import native_side

INSTRUCTED = ("Kontext", "ImageEdit", "ImageLayered")  # in the names of pipelines that read an image


class Flow(ABC):
    """The levels of a family that is a rectified flow: timesteps 0..1000 are even, the noise level s is shifted."""

    prediction_type: OutputKind = "flow"
    last_timestep = 1000

    @abstractmethod
    def shift(self, size: tuple[int, int]) -> float:
        """k of s = k u / (1 + (k - 1) u), for latents of that height and width (arXiv 2403.03206, eq. 23)."""

    def scales(self, t: Real[Tensor, " n"], size: tuple[int, int]) -> tuple[PerImage, PerImage]:
        return flow_scales(self.level(t, size))

    def level(self, t: Real[Tensor, " n"], size: tuple[int, int]) -> Float[Tensor, " n"]:
        """1000 s of timesteps 0..1000, where u = t / 1000."""
        shift = self.shift(size)
        return shift * t / (1 + (shift - 1) * t / self.last_timestep)

    def timestep(self, s: float, size: tuple[int, int]) -> float:
        """The timestep of a noise level in 0..1: the inverse of `level`."""
        shift = self.shift(size)
        return self.last_timestep * s / (shift - (shift - 1) * s)


def check_pipeline(name: str) -> None:
    """Raises UserError for the class of an editor by instruction, whose parts have the classes of what it was made from."""
    if any(word in name for word in INSTRUCTED):
        raise UserError(f"a {name} reads an instruction and the image, which is not known here: give the model for text to image")


class PatchedFlow(Flow, Backbone, ABC):
    """A flow whose tokens are squares of latents, and whose scheduler may shift levels by how many there are."""

    denoiser_name = "transformer"

    def __init__(self, parts: Mapping[str, Any], device: str, options: Mapping[str, Any], conditions: int = 0) -> None:
        """Raises UserError for the parts of an editor by instruction."""
        check_pipeline(str(options.get("_class_name")))
        super().__init__(parts, device, options, conditions)

    @property
    def multiple(self) -> int:
        return self.factor * PATCH

    @property
    def native_side(self) -> int:
        return native_side(None, self.vae.config, self.factor)

    def shift(self, size: tuple[int, int]) -> float:
        """exp of a line through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift), if shifting is dynamic."""
        config, tokens = self.scheduler.config, size[0] * size[1] / PATCH**2
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        return exponential_shift(self.scheduler, config.base_shift + slope * (tokens - config.base_image_seq_len))

    @property
    def configuration(self) -> dict[str, Any]:
        shifts = ("use_dynamic_shifting", "shift", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
        return {**super().configuration, **{name: self.scheduler.config[name] for name in shifts}}


class JointLayout(AttentionLayout):
    """Blocks of a transformer in which tokens of image and text attend jointly: those whose maps are worth reading."""

    def __init__(self, transformer: Any, blocks: Iterable[int] | None, level: int) -> None:
        """By number, of the blocks that keep text apart; None: the middle third. `level`: that of the image's tokens."""
        depth, self._transformer, self._level = transformer.config["num_layers"], transformer, level
        chosen = range(depth // 3, depth - depth // 3) if blocks is None else blocks
        self._layers = [self.layer(f"transformer_blocks.{i}.attn") for i in chosen]

    def layer(self, name: str) -> Layer:
        """The attention of a block."""
        config = self._transformer.config
        return Layer(name, self._level, "mid", config["num_attention_heads"], config["attention_head_dim"] ** -0.5)

    def layers(self, kind: Kind) -> list[Layer]:
        for layer in self._layers:
            refuse_fused(layer, self._transformer.get_submodule(layer.name), "transformer")
        return self._layers

    def features(self) -> list[Layer]:
        """The image's part of joint attention, after the output projection."""
        return [Layer(f"{layer.name}.to_out.0", layer.level, layer.part, layer.heads, layer.scale) for layer in self._layers]
