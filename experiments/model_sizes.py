"""The weights of every model that has an alias, counted from the classes on the meta device, and what fits on which card.

    python experiments/model_sizes.py          # the table of docs/models.md

An edit needs the denoiser and the VAE; text encoders run once, before it. A card is said to hold a model if these weights
leave ROOM for what an edit computes; with offloaded text they need not fit beside the denoiser.
"""

from collections.abc import Iterator
from typing import Any

import torch
from architectures import UNETS
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from sdist.models.memory import GIB
from sdist.models.residence import ROOM, count
from sdist.models.text import text_format

CARDS = (8, 12, 16, 24)  # GB as sold, each about 0.93 GiB
BYTES = {"fp32": 4, "bf16": 2, "fp8": 1}
Config = dict[str, Any]
CLIP_L: Config = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768,
}  # fmt: skip
CLIP_G: Config = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280,
}  # fmt: skip
CLIP_H: Config = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
T5_XXL: Config = {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
QWEN3_4B: Config = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_8B: Config = QWEN3_4B | {"hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False}
KLEIN_4B: Config = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 3 * 2560}
KLEIN_9B: Config = {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 3 * 4096}
SD3: Config = {
    "sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "out_channels": 16,
    "joint_attention_dim": 4096, "pooled_projection_dim": 2048,
}  # fmt: skip
SD35_MEDIUM: Config = SD3 | {"pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13))}
SD35_LARGE: Config = SD3 | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"}


def clip(config: Config, projected: bool = False) -> nn.Module:
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(CLIPTextConfig(vocab_size=49408, **config))


def t5() -> nn.Module:
    return T5EncoderModel(T5Config(**T5_XXL))


def qwen3(config: Config, kind: type[nn.Module] = Qwen3Model) -> nn.Module:
    return kind(Qwen3Config(vocab_size=151936, **config))


def qwen_vl() -> nn.Module:
    """Qwen2.5-VL 7B, with its eyes."""
    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    text = {**sizes, "num_key_value_heads": 4, "vocab_size": 152064}
    eyes = {"hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "depth": 32, "out_hidden_size": 3584}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=eyes))


def unet(name: str) -> nn.Module:
    return UNet2DConditionModel(layers_per_block=2, **UNETS[name])


def vae(channels: int) -> nn.Module:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip


def models() -> Iterator[tuple[str, nn.Module, list[nn.Module], nn.Module]]:
    """Alias, denoiser, text encoders, VAE; call on the meta device."""
    yield "sd14, sd15", unet("sd15"), [clip(CLIP_L)], vae(4)
    yield "sd21, sd21-base, sd-turbo", unet("sd21"), [clip(CLIP_H)], vae(4)
    yield "sdxl", unet("sdxl"), [clip(CLIP_L), clip(CLIP_G, projected=True)], vae(4)
    both = [clip(CLIP_L, projected=True), clip(CLIP_G, projected=True)]
    for name, config in {"sd3": SD3, "sd35-medium": SD35_MEDIUM, "sd35-large": SD35_LARGE}.items():
        yield name, SD3Transformer2DModel(**config), [*both, t5()], vae(16)
    for name, dev in {"flux-dev": True, "flux-schnell": False}.items():
        yield name, FluxTransformer2DModel(guidance_embeds=dev), [clip(CLIP_L), t5()], vae(16)
    yield "chroma", ChromaTransformer2DModel(), [t5()], vae(16)
    for name, klein, encoder in (("flux2-klein-4b", KLEIN_4B, QWEN3_4B), ("flux2-klein-9b", KLEIN_9B, QWEN3_8B)):
        yield (
            name,
            Flux2Transformer2DModel(guidance_embeds=False, **klein),
            [qwen3(encoder, Qwen3ForCausalLM)],
            AutoencoderKLFlux2(),
        )
    yield "qwen-image", QwenImageTransformer2DModel(), [qwen_vl()], AutoencoderKLQwenImage()
    yield "z-image, z-image-turbo", ZImageTransformer2DModel(), [qwen3(QWEN3_4B)], vae(16)


def billions(*networks: nn.Module) -> float:
    return sum(map(count, networks)) / 1e9


def cards(gigabytes: float) -> str:
    """The smallest card on which those weights leave ROOM, in GiB."""
    fitting = [card for card in CARDS if card * 1e9 / GIB >= gigabytes + ROOM / GIB]
    return f"{fitting[0]} GB" if fitting else f"over {CARDS[-1]} GB"


def main() -> None:
    columns = ["alias", "denoiser", "text encoders", "VAE", *(f"{name}: weights, card" for name in BYTES), "with text, bf16"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with torch.device("meta"):
        for alias, denoiser, encoders, autoencoder in models():
            parts = [billions(denoiser), billions(*encoders), billions(autoencoder)]
            weights = [(parts[0] * size + parts[2] * 4) * 1e9 / GIB for size in BYTES.values()]  # the VAE stays in fp32
            text = sum(billions(encoder) * text_format(type(encoder), torch.bfloat16).itemsize for encoder in encoders)
            whole = (parts[0] * 2 + text + parts[2] * 4) * 1e9 / GIB
            shown = [f"{size:.1f} GiB, {cards(size)}" for size in (*weights, whole)]
            print(f"| `{alias.replace(', ', '`, `')}` | {' | '.join(f'{part:.2f} B' for part in parts)} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
