"""Qwen-Image. Alibaba 2025, arXiv 2508.02324; the network as diffusers has it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float, Real
from torch import Tensor

from ..diffusion import size_of
from ..prediction import Text
from ..registry import FAMILIES
from .autoencoder import Posterior
from .base import check_widths
from .flow import PatchedFlow
from .packing import PATCH, pack, unpack
from .schedules import check_flow
from .text import PromptEncoder, TemplateText

TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships "
    "of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
BEFORE = 34  # tokens of the template before the prompt, which the transformer does not see
NATIVE = 1024  # side in pixels; the autoencoder does not say


class QwenImageText(TemplateText):
    """The last layer of Qwen2.5-VL behind the first BEFORE tokens; padding is not read."""

    tokens: ClassVar[int] = BEFORE + 256  # of up to 1024 behind the first that the pipeline takes: all are computed with

    def wrapped(self, prompt: str) -> str:
        return TEMPLATE.format(prompt)

    @property
    def length(self) -> int:
        return self.tokens - BEFORE

    def token_spans(self, prompt: str) -> list[tuple[int, int]]:
        return super().token_spans(prompt)[BEFORE:]

    def embed(self, prompts: Sequence[str]) -> Text:
        layers, read = self.hidden_states(prompts)
        return Text(layers[-1][:, BEFORE:].float(), mask=read[:, BEFORE:])


@FAMILIES.register("qwen_image")
class QwenImage(PatchedFlow):
    """FLUX's packing; the autoencoder is one of videos. Its pipeline rescales guided velocities, which is left out here."""

    components: ClassVar[Mapping[str, str]] = {
        "transformer": "QwenImageTransformer2DModel",
        "vae": "AutoencoderKLQwenImage",
        "text_encoder": "Qwen2_5_VLForConditionalGeneration",
        "tokenizer": "Qwen2Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }
    native_side = NATIVE

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        """Those of editing and of layers have one of these."""
        return not any(config.get(name) for name in ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope"))

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        return QwenImageText([parts["text_encoder"]], [parts["tokenizer"]])

    def check(self) -> None:
        check_flow(self.scheduler, stretched=True)
        config, width = self.denoiser.config, self.text.encoders[0].get_input_embeddings().embedding_dim
        widths = {
            "latent channels": (config.in_channels, PATCH**2 * self.channels),
            "text width": (config.joint_attention_dim, width),
        }
        check_widths("Qwen-Image", "transformer", widths)

    @property
    def factor(self) -> int:
        return 2 ** len(self.vae.config.temperal_downsample)

    @property
    def channels(self) -> int:
        return int(self.vae.config.z_dim)

    def posterior(self, pixels: Float[Tensor, "b 3 height width"]) -> Posterior:
        """Of videos of one frame."""
        found = self.vae.encode(pixels[:, :, None]).latent_dist
        return Posterior(found.mean[:, :, 0], found.std[:, :, 0])

    def pixels(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        return self.vae.decode(z[:, :, None]).sample[:, :, 0]

    def denoise(
        self, z_t: Float[Tensor, "n c h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        size = size_of(z_t)
        velocity = self.forward(
            pack(z_t), encoder_hidden_states=text.tokens, encoder_hidden_states_mask=text.mask,
            timestep=self.level(t, size) / self.last_timestep, img_shapes=[[(1, size[0] // PATCH, size[1] // PATCH)]] * len(z_t),
        )  # fmt: skip
        return unpack(velocity, size)
