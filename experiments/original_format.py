"""Pipelines as one file in the names of their original code: what diffusers' conversion reads, written the other way round."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
AUTOENCODER = (
    ("conv_norm_out", "norm_out"), ("mid_block.attentions.0.", "mid.attn_1."), ("mid_block.resnets.0.", "mid.block_1."),
    ("mid_block.resnets.1.", "mid.block_2."), ("conv_shortcut", "nin_shortcut"),
)  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_names(unet: Any) -> dict[str, str]:
    """The original name of every weight by diffusers' own."""
    layers, blocks = unet.config.layers_per_block, len(unet.config.block_out_channels)
    places = {"mid_block.attentions.0": "middle_block.1"} | {f"mid_block.resnets.{j}": f"middle_block.{2 * j}" for j in (0, 1)}
    for i in range(blocks):
        for j in range(layers + 1):
            down, up = (layers + 1) * i + j + 1, (layers + 1) * i + j
            places |= {
                f"down_blocks.{i}.{kind}.{j}": f"input_blocks.{down}.{n}" for n, kind in enumerate(("resnets", "attentions"))
            }
            places |= {f"up_blocks.{i}.{kind}.{j}": f"output_blocks.{up}.{n}" for n, kind in enumerate(("resnets", "attentions"))}
        places[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{(layers + 1) * (i + 1)}.0.op"
        is_plain = unet.config.up_block_types[i] == "UpBlock2D"
        places[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{(layers + 1) * i + layers}.{1 if is_plain else 2}.conv"
    return {key: _renamed(key, ENDS | places) for key in unet.state_dict()}


def _renamed(key: str, places: Mapping[str, str]) -> str:
    start = next(start for start in sorted(places, key=len, reverse=True) if key.startswith(f"{start}."))
    rest = key.removeprefix(f"{start}.")
    inner = next((name for name in RESNET if rest.startswith(f"{name}.") and "resnets" in start), None)
    return f"{places[start]}.{rest if inner is None else rest.replace(inner, RESNET[inner], 1)}"


def autoencoder_name(key: str, blocks: int) -> str:
    """The original name of a weight of an autoencoder with that many blocks."""
    for own, original in AUTOENCODER:
        key = key.replace(own, original)
    if "attn_1" in key:
        start, _, rest = key.partition("attn_1.")
        name, _, kind = rest.rpartition(".")
        key = f"{start}attn_1.{ATTENTION[name]}.{kind}"
    key = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{blocks - 1 - int(m[1])}.block.", key)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample.", key)


OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding", "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final", "encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip


def clip_weights(encoder: Any) -> dict[str, torch.Tensor]:
    """As in Stable Diffusion 1: transformers' own names below text_model."""
    return {key if key.startswith("text_") else f"text_model.{key}": value for key, value in encoder.state_dict().items()}


def open_clip_weights(encoder: Any) -> dict[str, torch.Tensor]:
    """As in Stable Diffusion 2 and XL: open_clip's names, queries, keys and values in one matrix."""
    found = {}
    for key, value in clip_weights(encoder).items():
        if key == "text_projection.weight":
            found["text_projection"] = value.T
            continue
        name = key.removeprefix("text_model.")
        for own, original in OPEN_CLIP.items():
            name = name.replace(own, original)
        found[name] = value
    for query in [key for key in found if "self_attn.q_proj." in key]:
        three = [found.pop(query.replace("q_proj", f"{name}_proj")) for name in "qkv"]
        found[query.replace("self_attn.q_proj.", "attn.in_proj_")] = torch.cat(three)
    return found


def text_weights(pipeline: Any) -> dict[str, torch.Tensor]:
    """Of all text encoders; open_clip's are those of widths that Stable Diffusion 2 has."""
    first = pipeline.text_encoder
    if second := getattr(pipeline, "text_encoder_2", None):
        found = {f"conditioner.embedders.0.transformer.{key}": value for key, value in clip_weights(first).items()}
        return found | {f"conditioner.embedders.1.model.{key}": value for key, value in open_clip_weights(second).items()}
    if pipeline.unet.config.use_linear_projection:
        return {f"cond_stage_model.model.{key}": value for key, value in open_clip_weights(first).items()}
    return {f"cond_stage_model.transformer.{key}": value for key, value in clip_weights(first).items()}


def original_weights(pipeline: Any) -> dict[str, torch.Tensor]:
    """All weights of a Stable Diffusion 1, 2 or XL, by their original names."""
    unet, vae = pipeline.unet, pipeline.vae
    names, blocks = unet_names(unet), len(vae.config.block_out_channels)
    found = {f"model.diffusion_model.{names[key]}": value for key, value in unet.state_dict().items()}
    for key, value in vae.state_dict().items():
        original = autoencoder_name(key, blocks)
        is_matrix = "attn_1" in original and value.dim() == 2
        found[f"first_stage_model.{original}"] = value[:, :, None, None] if is_matrix else value
    return found | text_weights(pipeline)


def save_original(folder: Path, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The pipeline of a folder as one file."""
    weights = original_weights(DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype))
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return path
