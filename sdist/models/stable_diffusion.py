"""Stable Diffusion 1 and 2. Rombach et al. 2022, arXiv 2112.10752."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from jaxtyping import Float, Real
from torch import Tensor

from ..diffusion import PerImage, discrete_scales
from ..errors import UserError
from ..hooks.layers import AttentionLayout
from ..prediction import Text
from ..registry import FAMILIES
from .base import Backbone, check_widths
from .schedules import DISCRETE, discrete_schedule, schedule_keys
from .text import ClipText, PromptEncoder
from .unet_layout import UNetLayout

UNREAD = {  # configuration of a UNet that says that it reads something which nothing here gives it
    "class_embed_type": "class labels or a second time",
    "num_class_embeds": "class labels",
    "encoder_hid_dim_type": "embeddings of another kind than CLIP's text, such as an image's",
    "time_cond_proj_dim": "an embedded guidance scale (a latent consistency model)",
}
IP_ADAPTER = "has an IP-Adapter, which reads an image: call unload_ip_adapter() on the pipeline that loaded it"
KINDS = {  # whether an image is read beside the noisy latents: what such a model is called, and what to do with another one
    False: ("text-to-image Stable Diffusion", "an InstructPix2Pix goes with --method instruct_pix2pix or lime"),
    True: ("InstructPix2Pix", "--model instruct-pix2pix is one"),
}


@FAMILIES.register("stable_diffusion")
class StableDiffusion(Backbone):
    """A UNet with cross-attention to the tokens of one CLIP text encoder, on a discrete schedule of noise."""

    denoiser_name = "unet"
    pipeline_name = "StableDiffusionPipeline"
    components: ClassVar[Mapping[str, str]] = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "scheduler": "DDPMScheduler",
    }

    accepts: ClassVar[Mapping[str, tuple[str, ...]]] = {"scheduler": DISCRETE, "text_encoder": ("CLIPTextModelWithProjection",)}

    def __init__(self, parts: Mapping[str, Any], device: str, options: Mapping[str, Any], conditions: int = 0) -> None:
        scheduler = discrete_schedule(parts["scheduler"])
        self.prediction_type = scheduler.config.prediction_type
        super().__init__({**parts, "scheduler": scheduler}, device, options, conditions)
        self._alphas_cumprod = scheduler.alphas_cumprod.float().to(self.device)

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return config.get("addition_embed_type") is None

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        return ClipText([parts["text_encoder"]], [parts["tokenizer"]])

    def check(self) -> None:
        check_inputs(self.denoiser)
        kind, instead = KINDS[bool(self.conditions)]
        check_widths(kind, "UNet", self.widths(), instead)

    def widths(self) -> dict[str, tuple[int, int]]:
        """What the UNet reads, and what it gets."""
        config = self.denoiser.config
        text = sum(encoder.config.hidden_size for encoder in self.text.encoders)
        return {
            "latent channels": (config.in_channels, (1 + self.conditions) * self.channels),
            "text width": (one_of_all(config.cross_attention_dim), text),
        }

    @property
    def last_timestep(self) -> int:
        return len(self._alphas_cumprod) - 1

    def scales(self, t: Real[Tensor, " n"], size: tuple[int, int]) -> tuple[PerImage, PerImage]:
        return discrete_scales(self._alphas_cumprod, t)

    def denoise(
        self, z_t: Float[Tensor, "n _ h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        return self.forward(z_t, t, encoder_hidden_states=text.tokens)

    @property
    def configuration(self) -> dict[str, Any]:
        return {**super().configuration, **schedule_keys(self.scheduler)}

    @cached_property
    def layout(self) -> AttentionLayout:
        return UNetLayout(self.denoiser)


def one_of_all(value: Any) -> Any:
    """What a list of equal values, one per block, says for all."""
    return value[0] if isinstance(value, list | tuple) and len(set(value)) == 1 else value


def check_inputs(unet: Any) -> None:
    """Raises UserError for a UNet that wants more than latents, a timestep and a prompt.

    An IP-Adapter that was unloaded leaves its key in the configuration, as an item and not as an attribute.
    """
    if type(getattr(unet, "encoder_hid_proj", None)).__name__ == "MultiIPAdapterImageProjection":
        raise UserError(f"unet {IP_ADAPTER}")
    for key, what in UNREAD.items():
        if (value := getattr(unet.config, key, None)) is not None:
            raise UserError(f"this UNet reads {what} ({key}={value}), which nothing here gives it: another model is needed")
