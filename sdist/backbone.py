"""Loads a Stable Diffusion pipeline in diffusers format and speaks latents, pixels and prompts; the one home of dtypes."""

import logging
import threading
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor

from .allocator import keep_freed_memory
from .compiled import CompiledForward
from .diffusion import alpha_sigma, eps_from_v
from .errors import UserError
from .models import Model, find_model, hub_problem, is_folder, on_disk
from .text import PromptEncoder

log = logging.getLogger("sdist")

PREDICTION_TYPES = ("epsilon", "v_prediction")


def memory_format(device: str) -> torch.memory_format:
    """Of the noise predictor's weights and input, for a type of device; MPS is not reliable with channels last."""
    return torch.contiguous_format if device == "mps" else torch.channels_last


class Backbone:
    """The frozen networks of one pipeline. Not a Module, so that neither checkpoints nor optimizers see them."""

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
        self.alphas_cumprod = scheduler.alphas_cumprod.float().to(self.device)
        self.fingerprint = fingerprint(self.networks)
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

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """What `eps` reads of prompts, see PromptEncoder; UserError for a prompt beyond the encoder's limit, never a cut."""
        return self.text.embed(prompts)

    def eps(self, z_t: Float[Tensor, "n c h w"], t: Int[Tensor, " n"], text: Float[Tensor, "n l d"]) -> Float[Tensor, "n c h w"]:
        """The predicted noise in float32; a velocity prediction is converted."""
        dtype = next(self.unet.parameters()).dtype  # diffusers' own `dtype` walks through all modules: 2 ms
        tokens, pooled = self.text.split(text.to(dtype))
        z = z_t.to(dtype, memory_format=self.format)
        more = {} if pooled is None else {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": self._sizes(z)}}
        predict = self.compiled or self._plain
        out = predict(z, t, encoder_hidden_states=tokens, **more).float().contiguous()
        if self.prediction_type == "epsilon":
            return out
        return eps_from_v(out, z_t, *alpha_sigma(self.alphas_cumprod, t))

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


def load_backbone(name: str, device: str = "auto", conditions: int = 0) -> Backbone:
    """The model of that alias, hub id or folder, float32, on "auto", "cpu", "cuda", "cuda:1" or "mps".

    `conditions`: how many latents its UNet reads beside the noisy one, 1 for InstructPix2Pix.
    """
    model, where = find_model(name), choose_device(device)
    keep_freed_memory()
    backbone = _load_first(name, model, where, conditions)
    log.info("model %s from %s on %s", name, backbone.source, where)
    return backbone


def choose_device(device: str) -> str:
    """The given device if this machine has it; "auto" takes CUDA, else MPS, else the CPU."""
    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(d for d in ("cuda", "mps", "cpu") if have[d])
    kind, _, index = device.partition(":")
    if not have.get(kind) or (index and (not index.isdigit() or int(index) >= torch.cuda.device_count())):
        raise UserError(f"device '{device}' is not on this machine: have {', '.join(d for d in have if have[d])}")
    return device


def _load_first(name: str, model: Model, device: str, conditions: int) -> Backbone:
    failures = []
    for source in model.sources:
        backbone, problem = _try_load(source, device, conditions)
        if backbone is not None:
            return backbone
        failures.append(f"{source}: {problem}")
    raise UserError(
        f"model '{name}' could not be loaded ({'; '.join(failures)}). "
        "Give a folder with a diffusers pipeline, or --model tinyworld, which is in the package"
    )


def _try_load(source: str, device: str, conditions: int) -> tuple[Backbone | None, str]:
    """The model, or why it cannot be had; what the disk has only in part is fetched."""
    local, problem = on_disk(source), ""
    for only_local in (True, False) if local and not is_folder(source) else (local,):
        blocked = None if only_local else hub_problem(source)
        if blocked:
            return None, problem or blocked
        try:
            backbone = _load(source, device, only_local, conditions)
            backbone.source = source
            return backbone, ""
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        except (OSError, ValueError, TypeError, RuntimeError, OverflowError, SafetensorError) as error:  # missing or damaged
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None, problem


def _load(source: str, device: str, local: bool, conditions: int) -> Backbone:
    """Only the parts that score distillation needs: no safety checker, no image processor, safetensors alone."""
    from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel

    where = {"local_files_only": local}
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, **where}
    unet = _load_network(UNet2DConditionModel, source, "unet", **options)
    two = reads_pooled(unet)
    parts = {
        "unet": unet,
        "vae": _load_network(AutoencoderKL, source, "vae", **options),
        "scheduler": DDPMScheduler.from_pretrained(source, subfolder="scheduler", **where),
        **_load_text(source, two, where),
    }
    index = DiffusionPipeline.load_config(source, **where) if two else {}
    return assemble(parts, device, conditions, bool(index.get("force_zeros_for_empty_prompt", True)))


def _load_text(source: str, two: bool, where: dict[str, bool]) -> dict[str, Any]:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    options = {"dtype": torch.float32, **where}
    classes = {"text_encoder": CLIPTextModel} | ({"text_encoder_2": CLIPTextModelWithProjection} if two else {})
    encoders = {name: _load_network(cls, source, name, **options) for name, cls in classes.items()}
    names = [name.replace("text_encoder", "tokenizer") for name in classes]
    return {**encoders, **{name: CLIPTokenizer.from_pretrained(source, subfolder=name, **where) for name in names}}


def _load_network(cls: Any, source: str, part: str, **options: Any) -> Any:
    """One part with all of its weights; UserError where the libraries would go on with random ones."""
    network, report = cls.from_pretrained(source, subfolder=part, use_safetensors=True, output_loading_info=True, **options)
    if report["missing_keys"]:
        raise UserError(
            f"{part} lacks {len(report['missing_keys'])} weights of {cls.__name__}, {min(report['missing_keys'])} among them"
        )
    return network


def reads_pooled(unet: Any) -> bool:
    """Whether a UNet reads a second text encoder's pooled embedding, as SDXL's does; UserError if it wants anything else."""
    kind = getattr(unet.config, "addition_embed_type", None)
    if kind not in (None, "text_time"):
        raise UserError(f"this model wants '{kind}' beside a prompt's embedding, which is not supported")
    return kind == "text_time"


def assemble(parts: Mapping[str, Any], device: str, conditions: int = 0, zero_empty: bool = True) -> Backbone:
    """The backbone of components, by their names in diffusers; of the scheduler, of any class, only the noise schedule is read.

    `zero_empty`: whether a model with two text encoders was trained with zeros for an empty prompt.
    """
    from diffusers import DDPMScheduler

    two = reads_pooled(parts["unet"])
    suffixes = ("", "_2") if two else ("",)
    missing = [name + s for name in ("text_encoder", "tokenizer") for s in suffixes if parts.get(name + s) is None]
    if missing:
        raise UserError(f"this UNet needs {', '.join(missing)} beside it, which the pipeline does not have")
    encoders, tokenizers = ([parts[name + s] for s in suffixes] for name in ("text_encoder", "tokenizer"))
    text = PromptEncoder(encoders, tokenizers, two and zero_empty)
    scheduler = DDPMScheduler.from_config(parts["scheduler"].config)
    return Backbone(parts["unet"], parts["vae"], text, scheduler, device, conditions)
