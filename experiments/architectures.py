"""Pipelines with the true configurations of SD 1.5, SD 2.1 and SDXL and random weights, at full width or narrower.

    python experiments/architectures.py FOLDER --narrow 8 --heads 1    # prints the command of a benchmark with it
    python experiments/architectures.py FOLDER --narrow 1              # SD 1.5 at its real size: for a GPU

With random weights the gradient's SD hardly depends on the draw, only on the prompts. So the command's filter lowers its
threshold by a tenth per reject, from where the fourth draw of a usual edit passes.

`narrow` divides channels; layers, levels and names are those of the real models. Text encoders keep their width ratios but
lose layers. Prompts are read by tinyworld's tokenizer.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sdist.benchmark.measure import prepare_edits
from sdist.config.build import load_settings
from sdist.distillation.distiller import ScoreDistiller
from sdist.editors.loading import load_method
from sdist.models.catalogue import TINYWORLD

CROSS = ("CrossAttnDownBlock2D",), ("CrossAttnUpBlock2D",)

UNETS: dict[str, dict[str, Any]] = {
    "sd15": {
        "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8,
        "down_block_types": (*CROSS[0] * 3, "DownBlock2D"), "up_block_types": ("UpBlock2D", *CROSS[1] * 3),
    },
    "sd21": {
        "sample_size": 96, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True,
        "down_block_types": (*CROSS[0] * 3, "DownBlock2D"), "up_block_types": ("UpBlock2D", *CROSS[1] * 3),
    },
    "sdxl": {
        "sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20), "use_linear_projection": True, "transformer_layers_per_block": (1, 2, 10),
        "down_block_types": ("DownBlock2D", *CROSS[0] * 2), "up_block_types": (*CROSS[1] * 2, "UpBlock2D"),
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
SCALING = {"sd15": 0.18215, "sd21": 0.18215, "sdxl": 0.13025}
TEXT = {"sd15": (768, 12), "sd21": (1024, 16), "sdxl": (768, 12)}  # width, heads
DECAY, REJECTS = 0.9, 3  # of the filter, per reject; rejects of a usual step
EDITS, DRAWS = 4, 4  # pictures, and draws of each, to find the threshold


def main() -> int:
    args = parse()
    save_pipeline(args.folder, args.model, args.narrow, args.heads)
    sets = [*args.overrides, f"filter.decay={DECAY}"]
    sets.append(f"filter.threshold={threshold(args.folder, args.device, sets):.4g}")
    print(f"sdist bench --model {args.folder} --device {args.device} --set {' '.join(sets)}")
    return 0


def threshold(folder: Path, device: str, overrides: list[str]) -> float:
    """At which a step that starts an edit usually takes REJECTS rejects."""
    overrides = [*overrides, "filter.threshold=0"]
    settings = load_settings("lusd", overrides, model=str(folder), device=device, precision="fp32")
    loaded = load_method(settings)
    backbone, editor = loaded.model, settings.editor
    with tempfile.TemporaryDirectory() as pictures:
        images = prepare_edits(Path(pictures), loaded, EDITS)
    method = replace(editor.method(backbone), steps=DRAWS)
    identities = [(image.request.seed, image.key) for image in images]
    distiller = ScoreDistiller(backbone, editor.encode(backbone, images), method, identities)
    while not distiller.finished:
        distiller.direction()  # no optimizer follows, so that all draws are of the pictures as they are
    usual = torch.cat([r.values["grad_std"] for r in distiller.rounds]).log().mean().exp()
    return float(usual) / DECAY ** (REJECTS - 0.5)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=list(UNETS), default="sd15")
    parser.add_argument("--narrow", type=int, default=8, help="1 (the real width), 2, 4 or 8 (default)")
    parser.add_argument("--heads", type=int, help="of the UNet (default: as many as the real model)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="KEY=VALUE", help="such as size=256x256")
    return parser.parse_args()


def save_pipeline(folder: Path, name: str, narrow: int = 8, heads: int | None = None, layers: int = 2) -> Path:
    """Saves the pipeline in float32; `narrow` 1 is the real size of all but the `layers` of text encoders (SD 1.5: 0.86 billion
    weights in the UNet).
    """
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TINYWORLD, subfolder="tokenizer")
    width, text_heads = TEXT[name]
    parts = {
        "unet": _unet(name, narrow, heads), "vae": _vae(name, narrow), "tokenizer": tokenizer,
        "text_encoder": CLIPTextModel(_text(tokenizer, width // narrow, text_heads, layers)),
        "scheduler": DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            prediction_type="v_prediction" if name == "sd21" else "epsilon", steps_offset=1,
        ),
    }  # fmt: skip
    if name == "sdxl":
        second = CLIPTextModelWithProjection(_text(tokenizer, 1280 // narrow, 20, layers))
        pipeline = StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=tokenizer, add_watermarker=False)
    else:
        pipeline = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.save_pretrained(folder)
    return folder


def _unet(name: str, narrow: int, heads: int | None) -> UNet2DConditionModel:
    config = dict(UNETS[name])
    config["attention_head_dim"] = heads or config["attention_head_dim"]  # diffusers' name for the number of heads
    config["block_out_channels"] = tuple(c // narrow for c in config["block_out_channels"])
    config["cross_attention_dim"] //= narrow
    if name == "sdxl":
        config["addition_time_embed_dim"] = 256 // narrow
        config["projection_class_embeddings_input_dim"] = 2816 // narrow
    return UNet2DConditionModel(norm_num_groups=32 // narrow, layers_per_block=2, **config)


def _vae(name: str, narrow: int) -> AutoencoderKL:
    channels = tuple(c // narrow for c in (128, 256, 512, 512))
    return AutoencoderKL(
        block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2 if narrow == 1 else 1, norm_num_groups=32 // narrow, latent_channels=4, scaling_factor=SCALING[name],
        force_upcast=name == "sdxl",
    )  # fmt: skip


def _text(tokenizer: CLIPTokenizer, width: int, heads: int, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=heads, projection_dim=width, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
