"""Trains an IP-Adapter for tinyworld: its UNet frozen, its CLIP's image embedding as a second prompt. Resumable, one command.

    python experiments/train_tinyworld_adapter.py --work runs/tinyworld           # CPU or CUDA, continues where it stopped
    python experiments/train_tinyworld_adapter.py --work runs/tinyworld --export sdist/tinyworld/weights/adapter.safetensors
    python experiments/train_tinyworld_adapter.py --work runs/tinyworld --evaluate 50    # of the weights in WORK

The last gives the model the embeddings of 50 held-out renders and no words, and asks the judge what its pictures show. The
file has the layout of h94/IP-Adapter (Ye et al. 2023, arXiv 2308.06721): `image_proj.*` turns an embedding into four tokens,
`ip_adapter.N.to_k_ip` and `to_v_ip` let the N-th attention layer's queries read them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from train_judge import parse
from train_tinyworld import Run, as_pixels, make_renders, new_scheduler, scene_of, train, weights_of
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from sdist.models.catalogue import TINYWORLD
from sdist.tinyworld.captions import caption, sample_wording
from sdist.tinyworld.compositions import has_held_out
from sdist.tinyworld.judge import facts, look
from sdist.tinyworld.quality import RENDER_SEED, agreement, ratio
from sdist.tinyworld.scene import render, sample_scene

TOKENS = 4  # that an embedding becomes
WORDINGS = 4  # captions of every scene
NO_TEXT, NO_IMAGE, NEITHER = 0.5, 0.05, 0.05  # fractions of rows that lose a condition; the paper has 0.05 for each, but captions
# here tell all, and an adapter that is hardly ever without one learns little (nouns found: 6 % after 160,000 samples)


def attention_names(unet: UNet2DConditionModel) -> list[str]:
    """The processors in the order in which the layout counts them: N is odd for cross-attention."""
    return list(unet.attn_processors)


def new_weights(unet: UNet2DConditionModel, embedding: int) -> dict[str, dict[str, Tensor]]:
    """A fresh adapter: the projection at random, keys and values those of the layer's text."""
    width = unet.config.cross_attention_dim
    projection = nn.Linear(embedding, TOKENS * width)
    norm = nn.LayerNorm(width)
    image = {f"proj.{k}": v for k, v in projection.state_dict().items()} | {f"norm.{k}": v for k, v in norm.state_dict().items()}
    text = unet.state_dict()
    layers: dict[str, Tensor] = {}
    for number, name in enumerate(attention_names(unet)):
        if name.endswith("attn2.processor"):
            layer = name.removesuffix(".processor")
            layers |= {f"{number}.to_{x}_ip.weight": text[f"{layer}.to_{x}.weight"].clone() for x in "kv"}
    return {"image_proj": image, "ip_adapter": layers}


def adapter_modules(unet: UNet2DConditionModel) -> nn.ModuleDict:
    """The trained part of a UNet that has an adapter: the projection, and the processors by number."""
    processors = unet.attn_processors
    layers = {str(n): p for n, p in enumerate(processors.values()) if isinstance(p, IPAdapterAttnProcessor2_0)}
    return nn.ModuleDict({"projection": unet.encoder_hid_proj, "layers": nn.ModuleDict(layers)})


def layout(modules: nn.ModuleDict) -> dict[str, Tensor]:
    """The weights by the names of h94/IP-Adapter, float16."""
    adapter: Any = modules["projection"]
    projection, layers = adapter.image_projection_layers[0], cast(nn.ModuleDict, modules["layers"])
    named = {f"image_proj.proj.{k}": v for k, v in projection.image_embeds.state_dict().items()}
    named |= {f"image_proj.norm.{k}": v for k, v in projection.norm.state_dict().items()}
    for number, processor in layers.items():
        named |= {f"ip_adapter.{number}.to_{x}_ip.weight": getattr(processor, f"to_{x}_ip")[0].weight for x in "kv"}
    return {k: v.detach().half().contiguous().cpu() for k, v in named.items()}


def embed(clip: CLIPModel, x: Tensor) -> Tensor:
    """Projected embeddings (b, d) of pixels (b, 3, h, w) in [-1, 1], preprocessed as CLIP's own are."""
    x = F.interpolate(x, (64, 64), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return clip.get_image_features(((x.clamp(-1, 1) + 1) / 2 - mean) / std).pooler_output


class Data:
    """Latents and image embeddings of all renders and their mirror images, and token ids of some captions of each scene."""

    def __init__(self, renders: np.ndarray, device: torch.device) -> None:
        self.vae = AutoencoderKL.from_pretrained(TINYWORLD, subfolder="vae", torch_dtype=torch.float32).to(device)
        self.clip = CLIPModel.from_pretrained(TINYWORLD / "clip", dtype=torch.float32).to(device).eval()
        pairs = [self._encode(as_pixels(renders[a : a + 256], device)) for a in range(0, len(renders), 256)]
        self.latents, self.embeddings = (torch.cat(x, 1) for x in zip(*pairs, strict=True))
        tokenizer = CLIPTokenizer.from_pretrained(TINYWORLD / "tokenizer")
        texts = [text for i in range(len(renders)) for text in self._captions(i)]
        ids = tokenizer([*texts, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids.to(device)
        self.ids, self.empty = ids[:-1].view(len(renders), WORDINGS, -1), ids[-1]
        shown = [i for i in range(len(renders)) if not has_held_out(scene_of(i)[1])]
        self.shown = torch.tensor(shown, device=device)

    @torch.no_grad()
    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(2, b, ...): of the images and of their mirror images, latents as the UNet has them, projected CLIP embeddings."""
        both = [x.contiguous(), x.flip(3).contiguous()]
        latents = [self.vae.encode(v).latent_dist.mean * self.vae.config.scaling_factor for v in both]
        return torch.stack(latents).half(), torch.stack([embed(self.clip, v) for v in both])

    @staticmethod
    def _captions(index: int) -> Iterator[str]:
        rng, scene = scene_of(index)
        return (caption(scene, sample_wording(rng)) for _ in range(WORDINGS))


def train_adapter(args: argparse.Namespace, device: torch.device) -> nn.ModuleDict:
    data = Data(make_renders(args.work / "renders.npy", args.scenes, args.workers), device)
    unet = UNet2DConditionModel.from_pretrained(TINYWORLD, subfolder="unet", torch_dtype=torch.float32)
    encoder = CLIPTextModel.from_pretrained(TINYWORLD, subfolder="text_encoder", dtype=torch.float32).to(device).eval()
    torch.manual_seed(0)
    unet._load_ip_adapter_weights([new_weights(unet, data.embeddings.shape[-1])])
    unet.to(device, torch.float32).requires_grad_(False)
    modules = adapter_modules(unet).requires_grad_(True)
    run = Run(args.work / "adapter_run.safetensors", modules, 1e-3, args.samples, 0.5, 0.998)
    bars = new_scheduler().alphas_cumprod.to(device)
    weight = weights_of(bars)

    def loss_of(rng: np.random.Generator, batch: int) -> Tensor:
        draw = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        rows = data.shown[torch.randint(len(data.shown), (batch,), generator=draw, device=device)]
        mirrored, wording = (torch.randint(n, (batch,), generator=draw, device=device) for n in (2, WORDINGS))
        lost = torch.rand(batch, 1, generator=draw, device=device)
        ids = torch.where((lost < NO_TEXT) | (lost > 1 - NEITHER), data.empty, data.ids[rows, wording])
        image = data.embeddings[mirrored, rows]
        image = torch.where(((lost >= NO_TEXT) & (lost < NO_TEXT + NO_IMAGE)) | (lost > 1 - NEITHER), 0.0, image)
        z, t = data.latents[mirrored, rows].float(), torch.randint(1000, (batch,), generator=draw, device=device)
        noise, bar = torch.randn(z.shape, generator=draw, device=device), bars[t][:, None, None, None]
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                text = encoder(ids).last_hidden_state
            conditions = {"image_embeds": [image[:, None]]}
            z_t = bar.sqrt() * z + (1 - bar).sqrt() * noise
            eps = unet(z_t, t, text, added_cond_kwargs=conditions, return_dict=False)[0]
        return (weight[t] * F.mse_loss(eps.float(), noise, reduction="none").mean((1, 2, 3))).mean()

    train(run, args.batch, loss_of, 100, "adapter")
    return run.use_average()


def named(weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A file's weights as diffusers wants them: by part."""
    parts = ("image_proj", "ip_adapter")
    return {part: {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(part)} for part in parts}


@torch.no_grad()
def evaluate(count: int, path: Path) -> dict[str, float]:
    """What the judge sees in pictures made of the embeddings of held-out renders, without words: 30 DDIM steps, guidance 5."""
    scenes = [sample_scene(np.random.default_rng((RENDER_SEED, i))) for i in range(count)]
    clip = CLIPModel.from_pretrained(TINYWORLD / "clip", dtype=torch.float32)
    images = embed(clip, as_pixels(np.stack([np.asarray(render(scene)) for scene in scenes]), torch.device("cpu")))
    scheduler = DDIMScheduler.from_pretrained(TINYWORLD, subfolder="scheduler")
    pipeline = StableDiffusionPipeline.from_pretrained(
        TINYWORLD, safety_checker=None, torch_dtype=torch.float32, scheduler=scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet._load_ip_adapter_weights([named(load_file(path))])
    pipeline.unet.float()
    made = []
    for i, image in enumerate(images):  # one by one: of several, diffusers gives every picture the embeddings of all
        rows = torch.stack([torch.zeros_like(image), image])[:, None]
        generator = torch.Generator().manual_seed(i)
        made += pipeline("", 128, 128, 30, guidance_scale=5.0, generator=generator, ip_adapter_image_embeds=[rows]).images
    right = [agreement(facts(scene), seen) for scene, seen in zip(scenes, look(made), strict=True)]
    return {
        "noun": ratio(right, "nouns_found", "nouns"),
        "colour": ratio(right, "colours_right", "nouns_found"),
        "background": float(np.mean([a.place_right for a in right])),
    }


def main() -> None:
    args = parse(__doc__, "adapter.safetensors", 600_000, batch=128, evaluate=None)
    if args.evaluate:
        print(evaluate(args.evaluate, args.export))
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.work.mkdir(parents=True, exist_ok=True)
    save_file(layout(train_adapter(args, device)), args.export)
    print(f"saved {args.export}")


if __name__ == "__main__":
    main()
