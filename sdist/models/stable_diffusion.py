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
from .text import ClipText, PromptEncoder
from .unet_layout import UNetLayout

PREDICTION_TYPES = ("epsilon", "v_prediction")


@FAMILIES.register("stable_diffusion")
class StableDiffusion(Backbone):
    """A UNet with cross-attention to the tokens of one CLIP text encoder, on a discrete schedule of noise."""

    denoiser_name = "unet"
    components: ClassVar[Mapping[str, str]] = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "scheduler": "DDPMScheduler",  # of any class: only the schedule is read
    }

    def __init__(self, parts: Mapping[str, Any], device: str, options: Mapping[str, Any], conditions: int = 0) -> None:
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler.from_config(parts["scheduler"].config)
        self.prediction_type = scheduler.config.prediction_type
        super().__init__({**parts, "scheduler": scheduler}, device, options, conditions)
        self._alphas_cumprod = scheduler.alphas_cumprod.float().to(self.device)

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return config.get("addition_embed_type") is None

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        return ClipText([parts["text_encoder"]], [parts["tokenizer"]])

    def check(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise UserError(
                f"this model predicts '{self.prediction_type}', of which score distillation here knows "
                f"{' and '.join(PREDICTION_TYPES)}"
            )
        kind = "InstructPix2Pix" if self.conditions else "text-to-image Stable Diffusion"
        check_widths(kind, "UNet", self.widths())

    def widths(self) -> dict[str, tuple[int, int]]:
        """What the UNet reads, and what it gets."""
        config = self.denoiser.config
        return {
            "latent channels": (config.in_channels, (1 + self.conditions) * self.channels),
            "text width": (config.cross_attention_dim, sum(encoder.config.hidden_size for encoder in self.text.encoders)),
        }

    @property
    def last_timestep(self) -> int:
        return len(self._alphas_cumprod) - 1

    def scales(self, t: Real[Tensor, " n"], size: tuple[int, int]) -> tuple[PerImage, PerImage]:
        return discrete_scales(self._alphas_cumprod, t)

    def denoise(
        self, z_t: Float[Tensor, "n c h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        return self.forward(z_t, t, encoder_hidden_states=text.tokens)

    @cached_property
    def layout(self) -> AttentionLayout:
        return UNetLayout(self.denoiser)
