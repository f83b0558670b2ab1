"""Loads a Stable Diffusion pipeline in diffusers format and speaks latents, pixels and prompts; the one home of dtypes."""

import threading
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor

from ..diffusion import Estimate, PerImage, discrete_scales
from ..errors import UserError
from ..prediction import Guidance, Text
from .catalogue import IN_MEMORY
from .compiled import CompiledForward
from .devices import memory_format
from .text import PromptEncoder

PREDICTION_TYPES = ("epsilon", "v_prediction")


class Backbone:
    """The frozen networks of one pipeline. Not a Module, so that neither checkpoints nor optimizers see them."""

    guidance: Guidance = "cfg"

    def __init__(self, unet: Any, vae: Any, text: PromptEncoder, scheduler: Any, device: str, conditions: int = 0) -> None:
        self.prediction_type = scheduler.config.prediction_type
        if self.prediction_type not in PREDICTION_TYPES:
            raise UserError(
                f"this model predicts '{self.prediction_type}', of which score distillation here knows "
                f"{' and '.join(PREDICTION_TYPES)}"
            )
        _check_parts(unet, vae, text, conditions)
        self.device = torch.device(device)
        self.unet, self.vae, self.text = unet, vae, text
        for network in self.networks:
            network.to(self.device).eval().requires_grad_(False)
        self.scheduler = scheduler
        self.arrange(memory_format(self.device.type))
        self._alphas_cumprod = scheduler.alphas_cumprod.float().to(self.device)
        self.fingerprint = fingerprint(self.networks)
        self.name = IN_MEMORY  # as it was asked for
        self.source = ""  # where it was loaded from
        self.compiled: CompiledForward | None = None
        self.alone = threading.RLock()  # held while a thread edits: attention is read by hooks, which see every call

    def arrange(self, form: torch.memory_format) -> None:
        """The memory format of the noise predictor's weights and input."""
        self.format = form
        self.unet.to(memory_format=form)

    def compile(self) -> None:
        """From now on the noise predictor runs compiled, where autograd is off."""
        self.compiled = CompiledForward(self.unet)

    @property
    def networks(self) -> tuple[Any, ...]:
        return (self.unet, self.vae, *self.text.encoders)

    @property
    def factor(self) -> int:
        """Pixels a latent, along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def native_side(self) -> int:
        """The side in pixels of the square images that the model was trained on."""
        return int(self.unet.config.sample_size) * self.factor

    @property
    def last_timestep(self) -> int:
        """The noisiest of the schedule's timesteps."""
        return len(self._alphas_cumprod) - 1

    def scales(self, t: Real[Tensor, " n"]) -> tuple[PerImage, PerImage]:
        """alpha and sigma at timesteps 0..last_timestep, whole or not."""
        return discrete_scales(self._alphas_cumprod, t)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c h w"]:
        """The mean of the posterior in the VAE's own scaling: (mean - shift) x scale; pixels in [-1, 1].

        One image at a time, to bound the memory; so does `decode`.
        """
        height, width = pixels.shape[-2:]
        if height % self.factor or width % self.factor:
            raise UserError(f"image is {width} x {height}; this model needs both sides divisible by {self.factor}")
        rows = pixels.to(self.device, self.vae.dtype)
        mean = torch.cat([self.vae.encode(row[None]).latent_dist.mean.float() for row in rows])
        return (mean - self._shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """Pixels in [-1, 1], clipped, on the CPU."""
        z = (latents.detach() / self.vae.config.scaling_factor + self._shift).to(self.device, self.vae.dtype)
        return torch.cat([self.vae.decode(row[None]).sample.float().clamp(-1, 1).cpu() for row in z])

    @property
    def _shift(self) -> float:
        return getattr(self.vae.config, "shift_factor", None) or 0.0

    def embed(self, prompts: Sequence[str]) -> Text:
        """What `estimate` reads of prompts. Raises UserError for a prompt beyond the encoder's limit, which is never cut."""
        return self.text.embed(prompts)

    def estimate(
        self,
        z_t: Float[Tensor, "n c h w"],
        t: Real[Tensor, " n"],
        text: Text,
        guidance: Float[Tensor, " n"] | None = None,
    ) -> Estimate:
        """What each row of z_t is made of, in float32."""
        dtype = next(self.unet.parameters()).dtype  # diffusers' own `dtype` walks through all modules: 2 ms
        text = text.map(lambda part: part.to(dtype))
        z = z_t.to(dtype, memory_format=self.format)
        more = {} if text.pooled is None else {"added_cond_kwargs": {"text_embeds": text.pooled, "time_ids": self._sizes(z)}}
        predict = self.compiled or self._plain
        out = predict(z, t, encoder_hidden_states=text.tokens, **more).float().contiguous()
        return Estimate(out, z_t, *self.scales(t), self.prediction_type)

    def _plain(self, *inputs: Any, **options: Any) -> Tensor:
        return self.unet(*inputs, **options, return_dict=False)[0]

    def _sizes(self, z: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 6"]:
        """SDXL's micro-conditioning (arXiv 2307.01952, section 2.2): original size, no crop, target size."""
        size = [side * self.factor for side in z.shape[-2:]]
        return torch.tensor([*size, 0, 0, *size], dtype=z.dtype, device=z.device).expand(len(z), -1)


def fingerprint(networks: Sequence[Any]) -> str:
    """A digest of some values of every weight: tells two trainings of one architecture apart."""
    digest = sha256()
    for network in networks:
        for name, value in network.named_parameters():
            digest.update(name.encode() + value.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _check_parts(unet: Any, vae: Any, text: PromptEncoder, conditions: int) -> None:
    """UserError unless the networks belong together as those of a Stable Diffusion do."""
    config = unet.config
    kind = "InstructPix2Pix" if conditions else "text-to-image Stable Diffusion"
    widths = {"latent channels": (config.in_channels, (1 + conditions) * vae.config.latent_channels)}
    widths["text width"] = (config.cross_attention_dim, text.width)
    if text.pooled_width:
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        widths["pooled text width"] = (pooled, text.pooled_width)
    for what, (wanted, given) in widths.items():
        if wanted != given:
            raise UserError(f"this model is no {kind}: its UNet reads {wanted} {what}, it gets {given}")
