"""Trains the embedded model from nothing: renders, autoencoder, tokenizer, diffusion model, in one resumable command.

    python experiments/train_tinyworld.py --work runs/tinyworld              # CPU or CUDA, continues where it stopped
    python experiments/train_tinyworld.py --work runs/tinyworld --export sdist/tinyworld/weights

Every stage leaves a file in the work folder and is skipped when that file says it is done. Checkpoints are safetensors.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from einops import rearrange
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdist.hooks.attach import record
from sdist.hooks.layers import Layer
from sdist.models.unet_layout import UNetLayout
from sdist.models.vocabulary import LIST
from sdist.tinyworld.captions import caption, sample_wording, vocabulary
from sdist.tinyworld.compositions import has_held_out
from sdist.tinyworld.drawing import PALETTE
from sdist.tinyworld.scene import SIDE, Scene, part_masks, render, sample_scene

TRAINING_SEED = 1_000_000  # scene i of the training set is sampled from (TRAINING_SEED, i); other streams are held out
NULL_CAPTIONS = 0.1  # fraction of captions replaced by the empty one, for classifier-free guidance
SHUFFLE_SEED = 7


def scene_of(index: int) -> tuple[np.random.Generator, Scene]:
    rng = np.random.default_rng((TRAINING_SEED, index))
    return rng, sample_scene(rng)


# --- renders -----------------------------------------------------------------------------------------------------------


def _render_chunk(bounds: tuple[int, int]) -> np.ndarray:
    return np.stack([np.asarray(render(scene_of(i)[1])) for i in range(*bounds)])


def make_renders(path: Path, count: int, workers: int) -> np.ndarray:
    """All training images, uint8 (count, SIDE, SIDE, 3), memory-mapped."""
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        out = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, SIDE, SIDE, 3))
        chunks = [(a, min(a + 256, count)) for a in range(0, count, 256)]
        with ProcessPoolExecutor(workers) as pool:
            for (a, b), images in zip(chunks, pool.map(_render_chunk, chunks), strict=True):
                out[a:b] = images
        out.flush()
        unfinished.rename(path)
    return np.load(path, mmap_mode="r")


def as_pixels(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (b, h, w, 3) -> float (b, 3, h, w) in [-1, 1], channels last."""
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


# --- checkpoints -------------------------------------------------------------------------------------------------------


class Run:
    """Modules, their moving averages and an AdamW, saved together so that a killed training goes on where it stopped."""

    def __init__(
        self, path: Path, modules: nn.ModuleDict, rate: float, total: int, decay: float, ema: float, fused: bool | None = None
    ) -> None:
        self.path, self.modules, self.rate, self.total, self.decay, self.ema = path, modules, rate, total, decay, ema
        self.optimizer = torch.optim.AdamW(modules.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=fused)
        self.average = {k: v.detach().clone() for k, v in modules.state_dict().items()}
        self.samples, self.steps, self.seconds = 0, 0, 0.0
        if path.exists():
            self._load()

    def step(self, loss: Tensor, batch: int) -> None:
        """One optimizer step; the rate warms up over 200 steps and falls to zero over the last `decay` of the samples."""
        remaining = (self.total - self.samples) / (self.decay * self.total)
        self.optimizer.param_groups[0]["lr"] = self.rate * min(1.0, (self.steps + 1) / 200, max(0.0, remaining))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimizer.step()
        self.samples, self.steps = self.samples + batch, self.steps + 1
        keep = min(self.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for key, value in self.modules.state_dict().items():
                self.average[key].lerp_(value, 1 - keep) if value.is_floating_point() else None

    def save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self.modules.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        numbers = {"samples": self.samples, "steps": self.steps, "seconds": self.seconds}
        unfinished = self.path.with_suffix(".unfinished")
        contiguous = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
        save_file(contiguous, unfinished, {k: repr(v) for k, v in numbers.items()})
        os.replace(unfinished, self.path)

    def _load(self) -> None:
        from safetensors import safe_open

        tensors = load_file(self.path, device=str(next(self.modules.parameters()).device))
        with safe_open(self.path, "pt") as file:
            numbers = file.metadata()
        self.samples, self.steps = int(numbers["samples"]), int(numbers["steps"])
        self.seconds = float(numbers["seconds"])
        self.modules.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        self.average = {k[8:]: v for k, v in tensors.items() if k.startswith("average.")}
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                states.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})

    def use_average(self) -> nn.ModuleDict:
        self.modules.load_state_dict(self.average)
        return self.modules.eval()


def train(run: Run, batch: int, loss_of: Callable[[np.random.Generator, int], Tensor], every: int, name: str) -> None:
    """Steps until the run has seen its samples; `loss_of(indices seed)` gives a loss; progress is one line per save."""
    recent, last = [], time.time()
    while run.samples < run.total:
        loss = loss_of(np.random.default_rng((SHUFFLE_SEED, run.steps)), batch)
        run.step(loss, batch)
        recent.append(loss.item())
        run.seconds, last = run.seconds + time.time() - last, time.time()
        if run.steps % every == 0 or run.samples >= run.total:
            run.save()
            print(f"{name}: {run.samples}/{run.total} samples, {run.seconds:.0f} s, loss {np.mean(recent):.5f}", flush=True)
            recent = []


# --- autoencoder -------------------------------------------------------------------------------------------------------


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=SIDE,
        latent_channels=4,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


# (samples, weights of KL, of the error of 4 x 4 means, of the colour code): the first phase orders the latents, the second
# lets every channel carry detail, the third sees to the colours of small things, the fourth puts colour where it is easy to read
AUTOENCODER_PHASES = ((16_000, 1e-4, 0.0, 0.0), (10_000, 1e-6, 0.0, 0.0), (8_000, 1e-6, 3.0, 0.0), (9_000, 1e-5, 3.0, 1.0))


def train_autoencoder(renders: np.ndarray, args: argparse.Namespace) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = new_autoencoder().to(args.device, memory_format=torch.channels_last)
    code = colour_code(as_pixels(renders[:1024], args.device))
    for phase, (samples, *weights) in enumerate(AUTOENCODER_PHASES):
        path = args.work / f"autoencoder_{phase}.safetensors"
        run = Run(path, nn.ModuleDict({"vae": vae}), 2e-3, samples, 0.4, 0.998)
        train(run, 8, partial(autoencoder_loss, vae, renders, code, weights, args), 100, f"autoencoder, phase {phase}")
        vae = run.use_average()["vae"].train()
    whiten(vae, as_pixels(renders[:1024], args.device))
    return vae.eval()


def autoencoder_loss(
    vae: AutoencoderKL, renders: np.ndarray, code: Callable[[Tensor], Tensor], weights: list[float], args: argparse.Namespace,
    rng: np.random.Generator, batch: int,
) -> Tensor:  # fmt: skip
    x = as_pixels(renders[np.sort(rng.integers(0, len(renders), batch))], args.device)
    with args.autocast():
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample.float()
    kl = (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean() / 2
    means = F.mse_loss(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4))
    coded = F.mse_loss(F.avg_pool2d(posterior.mean[:, :3].float(), 2), code(x))
    return F.mse_loss(y, x) + 0.3 * F.l1_loss(y, x) + weights[0] * kl + weights[1] * means + weights[2] * coded


def colour_code(pixels: Tensor) -> Callable[[Tensor], Tensor]:
    """What the first three channels should be at half their resolution: the means of 8 x 8 pixels, whitened.

    Left alone, an autoencoder may hide colour in directions of tiny variance, where a diffusion model, whose noise is the same
    in all directions, learns it last.
    """
    means = rearrange(F.avg_pool2d(pixels, 8), "b c h w -> (b h w) c")
    values, vectors = torch.linalg.eigh(means.T.cov())
    whitening, centre = (vectors / values.sqrt()).T, means.mean(0)
    return lambda x: torch.einsum("dc,bchw->bdhw", whitening, F.avg_pool2d(x, 8) - centre[:, None, None])


@torch.no_grad()
def whiten(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Gives the latents of these pixels mean 0 and the identity as covariance of their channels, by the transform nearest
    to the identity, folded into the 1 x 1 convolutions on both sides: decode(encode(x)) stays what it was.
    """
    z = torch.cat([vae.encode(x).latent_dist.mean for x in pixels.split(64)])
    rows = rearrange(z, "b c h w -> (b h w) c").double()
    values, vectors = torch.linalg.eigh(rows.T.cov())
    forward, back = ((vectors * values**power @ vectors.T).float() for power in (-0.5, 0.5))
    mean, quant, post = rows.mean(0).float(), vae.quant_conv, vae.post_quant_conv
    quant.weight[:4] = torch.einsum("dc,cihw->dihw", forward, quant.weight[:4])
    quant.bias[:4] = forward @ (quant.bias[:4] - mean)
    quant.bias[4:] += (forward**2).sum(1).log()  # the log variance: exact where channels are uncorrelated and equally sure
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight[:] = torch.einsum("odhw,dc->ochw", post.weight, back)


def make_latents(vae: AutoencoderKL, renders: np.ndarray, args: argparse.Namespace) -> Tensor:
    """Posterior means of all renders and of their mirror images, unscaled, (2, count, 4, h, w) float16."""
    path = args.work / "latents.safetensors"
    if not path.exists():
        rows = []
        with torch.no_grad(), args.autocast():
            for a in range(0, len(renders), 64):
                x = as_pixels(renders[a : a + 64], args.device)
                rows.append(torch.stack([vae.encode(v).latent_dist.mean.float().cpu() for v in (x, x.flip(3))]))
        save_file({"latents": torch.cat(rows, 1).half()}, path)
    return load_file(path)["latents"]


# --- which words stand for which places --------------------------------------------------------------------------------

GRID = SIDE // 8  # the cross-attention that is grounded works at half the latents' side
PLACE_WORDS = {"meadow", "beach", "snow", "desert", "night"}
GROUPS = 5  # the place and at most four parts: two things, each with an attachment


def _label_chunk(bounds: tuple[int, int]) -> np.ndarray:
    return np.stack([label_map(scene_of(i)[1]) for i in range(*bounds)])


def label_map(scene: Scene) -> np.ndarray:
    """(GRID, GRID) uint8: 0 for the place, k for the k-th part where it covers at least 0.3 of a cell and most of all."""
    return label_masks(part_masks(scene).values())


def label_masks(masks: Iterable[np.ndarray]) -> np.ndarray:
    """`label_map` of the parts' masks."""
    shares = [m.reshape(GRID, 8, GRID, 8).mean((1, 3)) for m in masks]
    return np.stack([np.full((GRID, GRID), 0.3), *shares]).argmax(0).astype(np.uint8)


def make_labels(path: Path, count: int, workers: int) -> Tensor:
    if not path.exists():
        chunks = [(a, min(a + 256, count)) for a in range(0, count, 256)]
        with ProcessPoolExecutor(workers) as pool:
            labels = np.concatenate(list(pool.map(_label_chunk, chunks)))
        save_file({"labels": torch.from_numpy(labels)}, path)
    return load_file(path)["labels"]


def word_groups(scene: Scene, text: str) -> np.ndarray:
    """(77, GROUPS): 1 where a token of the caption names the place (or ends the text) or that part, by colour and noun.

    Every word of a caption is one token, and the first token marks the beginning.
    """
    words, groups = text.split(), np.zeros((77, GROUPS), np.float32)
    parts = [p for thing in scene.things for p in (thing, thing.attachment) if p is not None]
    for k, part in enumerate(parts, 1):
        for i in (i for i, word in enumerate(words) if word == part.noun):
            colour = words[i - 1] if words[i - 1] in PALETTE else None
            groups[i + 1, k] = colour in (None, part.colour)
            groups[i, k] = colour == part.colour
    named = [i + 1 for i, word in enumerate(words) if word in PLACE_WORDS]
    groups[named or slice(len(words) + 1, None), 0] = 1
    return groups


def grounding_loss(tape: Mapping[str, Tensor], layers: list[Layer], groups: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy between each cell's true part and the attention that goes to the words of each part.

    Attention is averaged over heads and layers; the place and the parts weigh the same, whatever their area.
    """
    maps = []
    for layer in layers:
        q, k = (rearrange(tape[f"{layer.name}.{x}"].float(), "b n (h d) -> b h n d", h=layer.heads) for x in ("to_q", "to_k"))
        maps.append((q @ k.mT * layer.scale).softmax(-1).mean(1))
    share = torch.stack(maps).mean(0) @ groups  # (b, cells, groups)
    cost = -(share.gather(2, labels.flatten(1)[..., None].long())[..., 0] + 1e-4).log()
    inside = labels.flatten(1) > 0
    means = [(cost * where).sum() / where.sum().clamp(min=1) for where in (inside, ~inside)]
    return (means[0] + means[1]) / 2


# --- tokenizer and diffusion -------------------------------------------------------------------------------------------


def new_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's form whose merges come from the captions of this world."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    captions = []
    for index in range(4000):
        rng, scene = scene_of(index)
        captions.append(caption(scene, sample_wording(rng)))
    trainer = trainers.BpeTrainer(
        vocab_size=2000, min_frequency=2, end_of_word_suffix="</w>", show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(captions, trainer)
    merges = [tuple(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(a + "</w>" for a in alphabet), *("".join(m) for m in merges)]
    words = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=merges, model_max_length=77)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE // 4,
        block_out_channels=(40, 80, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,  # diffusers' name for the number of heads
        norm_num_groups=8,
    )


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


GROUNDING = 0.02  # weight of the grounding loss


def weights_of(bars: Tensor) -> Tensor:
    """What the noise's squared error counts at each timestep, of alphas_cumprod.

    Min-SNR-5 of a velocity prediction (Hang et al. 2023, arXiv 2303.09556), written for noise and bounded: high noise, where
    the caption decides, counts more than it does in a plain noise prediction.
    """
    snr = bars / (1 - bars)
    return ((snr + 1).clamp(max=5) / snr).clamp(max=10) / 4


def train_diffusion(
    latents: Tensor, labels: Tensor, scale: float, args: argparse.Namespace
) -> tuple[nn.ModuleDict, CLIPTokenizer]:
    tokenizer, bars = new_tokenizer(), new_scheduler().alphas_cumprod.to(args.device)
    torch.manual_seed(0)
    models_ = nn.ModuleDict({"unet": new_unet(), "text_encoder": new_text_encoder(tokenizer)})
    models_.to(args.device)
    unet: Any = models_["unet"]
    unet.to(memory_format=torch.channels_last)
    if args.device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # on CPUs a quarter faster to train than the fused kernel
    shown = np.array([i for i in range(latents.shape[1]) if not has_held_out(scene_of(i)[1])])
    run = Run(args.work / "diffusion.safetensors", models_, 1e-3, args.diffusion_samples, 0.35, 0.9993)
    grounded = UNetLayout(unet).at("cross", 1)
    names = [f"{layer.name}.{part}" for layer in grounded for part in ("to_q", "to_k")]
    weight = weights_of(bars)

    def loss_of(rng: np.random.Generator, batch: int) -> Tensor:
        indices, mirrored = rng.choice(shown, batch), rng.integers(0, 2, batch)
        z = latents[mirrored, indices].to(args.device).float() * scale
        scenes = [scene_of(int(i))[1] for i in indices]
        texts = ["" if rng.random() < NULL_CAPTIONS else caption(s, sample_wording(rng)) for s in scenes]
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(args.device)
        has_text = torch.tensor([bool(text) for text in texts], device=args.device)
        groups = torch.from_numpy(np.stack([word_groups(s, text) for s, text in zip(scenes, texts, strict=True)]))
        cells = torch.stack([labels[i].flip(-1) if m else labels[i] for i, m in zip(indices, mirrored, strict=True)])
        t = torch.from_numpy(rng.integers(0, 1000, batch)).to(args.device)
        noise = torch.from_numpy(rng.standard_normal(z.shape, np.float32)).to(args.device)
        bar = bars[t][:, None, None, None]
        with args.autocast(), record(SimpleNamespace(denoiser=unet), names, slice(None)) as tape:
            text = models_["text_encoder"](ids).last_hidden_state
            eps = unet(bar.sqrt() * z + (1 - bar).sqrt() * noise, t, text, return_dict=False)[0]
        denoising = (weight[t] * F.mse_loss(eps.float(), noise, reduction="none").mean((1, 2, 3))).mean()
        rows = {name: value[has_text] for name, value in tape.values.items()}
        return denoising + GROUNDING * grounding_loss(
            rows, grounded, groups.to(args.device)[has_text], cells.to(args.device)[has_text]
        )

    train(run, args.batch, loss_of, 100, "diffusion")
    return run.use_average(), tokenizer


# --- the recipe --------------------------------------------------------------------------------------------------------


def main() -> None:
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    renders = make_renders(args.work / "renders.npy", args.scenes, args.workers)
    vae = train_autoencoder(renders, args)
    latents = make_latents(vae, renders, args)
    scale = 1 / latents.float().std().item()
    vae.register_to_config(scaling_factor=scale)
    labels = make_labels(args.work / "labels.safetensors", args.scenes, args.workers)
    models_, tokenizer = train_diffusion(latents, labels, scale, args)
    pipeline = StableDiffusionPipeline(
        vae=vae, unet=models_["unet"], text_encoder=models_["text_encoder"], tokenizer=tokenizer,
        scheduler=new_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    folder = args.export or args.work / "pipeline"
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    (folder / LIST).write_text("\n".join(vocabulary()) + "\n")
    print(f"saved {folder}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for renders, latents and checkpoints")
    parser.add_argument("--export", type=Path, help="where to save the pipeline (default: WORK/pipeline)")
    parser.add_argument("--scenes", type=int, default=24_000)
    parser.add_argument("--diffusion-samples", type=int, default=240_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    args = parser.parse_args()
    args.autocast = lambda: torch.autocast(args.device.type, torch.bfloat16)
    return args


if __name__ == "__main__":
    main()
