"""Trains tinyworld-flow, a rectified-flow model of Stable Diffusion 3's class, on the scenes and latents of tinyworld.

    python experiments/train_tinyworld_flow.py --work runs/flow --single runs/flow.safetensors --minutes 5 --compile  # a GPU
    python experiments/train_tinyworld_flow.py --single runs/flow.safetensors --export runs/flow                      # anywhere
    python experiments/train_tinyworld_flow.py --evaluate 100 runs/flow

The first command renders, encodes and trains, and goes on where it stopped; it ends when the samples or the minutes are used up.
--single keeps the averaged weights in half precision in one file, from which the second makes a StableDiffusion3Pipeline. The
third measures one: what the judge sees in its pictures, and how well joint attention finds the things.

Text is what StableDiffusion3Pipeline feeds without a T5: 77 rows of both towers' second-last layers, then 256 rows of zeros. The
zero rows stay equal to one another in every layer, so training carries three of them, each of which counts 256/3 times in the
softmax: exact, and a third faster. Callers keep the pipeline's default max_sequence_length of 256.
"""

import argparse
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.attention_processor import Attention
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from train_tinyworld import (
    GRID,
    GROUNDING,
    GROUPS,
    NULL_CAPTIONS,
    SHUFFLE_SEED,
    Run,
    as_pixels,
    label_masks,
    scene_of,
    word_groups,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from sdist.files.images import to_pixels
from sdist.models.catalogue import TINYWORLD
from sdist.models.vocabulary import LIST
from sdist.tinyworld.captions import caption, sample_wording, vocabulary
from sdist.tinyworld.compositions import HELD_OUT, has_held_out
from sdist.tinyworld.judge import facts, look
from sdist.tinyworld.quality import RENDER_SEED, agreement, auc, captioned_scenes, held_out_scenes, ratio
from sdist.tinyworld.scene import SIDE, Scene, render_parts, render_with_masks, sample_scene

ZERO_ROWS = 256  # what the pipeline appends in place of T5's tokens
KEPT_ROWS = 3  # of these in training: with 77 of the caption and 256 of the image, a multiple of 16, as kernels want
TOKENS = 77
WORDINGS = 6  # captions kept of every scene
SHIFT = 2.0  # of the noise levels, in training and in the saved scheduler
UNIFORM = 0.1  # share of levels drawn uniformly: the logit-normal hardly ever shows the ends, where sampling starts
WIDTH, HEADS, LAYERS = 128, 4, 7  # all small models beside tinyworld together may have 22 MB
GROUNDED = (2, 3, 4)  # the middle layers, whose attention from image to text is grounded
WARM_UP, DECAY = 0.03, 0.5  # parts of the training in which the rate rises from, and falls to, zero
TOWERS = ("text_encoder", "text_encoder_2")


# --- the model ---------------------------------------------------------------------------------------------------------


@cache
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(TINYWORLD, subfolder="tokenizer")


def autoencoder() -> AutoencoderKL:
    """Tinyworld's, with the shift of 0 written out that StableDiffusion3Pipeline adds."""
    vae = AutoencoderKL.from_pretrained(TINYWORLD, subfolder="vae").float().eval().requires_grad_(False)
    vae.register_to_config(shift_factor=0.0)
    return vae


def new_transformer() -> SD3Transformer2DModel:
    """4.1 million parameters; gates, modulations and the output start at zero (Peebles and Xie 2023, adaLN-Zero)."""
    model = SD3Transformer2DModel(
        sample_size=SIDE // 4, patch_size=2, in_channels=4, out_channels=4, num_layers=LAYERS,
        attention_head_dim=WIDTH // HEADS, num_attention_heads=HEADS, caption_projection_dim=WIDTH,
        joint_attention_dim=256, pooled_projection_dim=256, pos_embed_max_size=GRID, qk_norm="rms_norm",
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    gates = [norm.linear for block in model.transformer_blocks for norm in (block.norm1, block.norm1_context)]
    for layer in (*gates, model.norm_out.linear, model.proj_out):
        nn.init.zeros_(layer.weight)
    return model


def new_tower(layers: int, source: str) -> CLIPTextModelWithProjection:
    """A text tower that starts as tinyworld's own or that of its CLIP, as far as their layers go."""
    words = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=128, intermediate_size=384, num_hidden_layers=layers, num_attention_heads=4,
        max_position_embeddings=TOKENS, projection_dim=128, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    tower = CLIPTextModelWithProjection(config)
    known = {plain(k): v.float() for k, v in load_file(TINYWORLD / source / "model.safetensors").items()}
    own = tower.state_dict()
    taken = {k: known[plain(k)] for k in own if plain(k) in known}
    if len(taken) < 36:  # two layers, embeddings and the last norm
        raise RuntimeError(f"only {len(taken)} tensors of {source} fit the text tower: the names of its tensors have changed")
    tower.load_state_dict(own | taken)
    return tower


def plain(name: str) -> str:
    """A tensor's name without the prefix that versions of transformers disagree about."""
    return name.removeprefix("text_model.")


def new_modules() -> nn.ModuleDict:
    """Transformer and both towers. The pipeline reads a tower's second-last layer and, for pooling, its last.

    The first tower gets a third layer, so that the second-last is all of tinyworld's encoder; the second, the text half of
    tinyworld's CLIP, is read after its first layer, while its pooled output is what CLIP was trained for.
    """
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"transformer": new_transformer(), "text_encoder": new_tower(3, "text_encoder"), "text_encoder_2": new_tower(2, "clip")}
    )


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


def encode(towers: Sequence[nn.Module], ids: Tensor, zero_rows: int) -> tuple[Tensor, Tensor]:
    """Rows (b, 77 + zero_rows, 256) and pooled (b, 256) of tokens (b, 77), as StableDiffusion3Pipeline encodes prompts."""
    seen = [tower(ids, output_hidden_states=True) for tower in towers]
    rows = torch.cat([s.hidden_states[-2] for s in seen], -1)
    return F.pad(rows, (0, 0, 0, zero_rows)), torch.cat([s.text_embeds for s in seen], -1)


def queries_keys(attn: Attention, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalized queries and keys (b, heads, n, d) of the image and of the text rows."""
    image_q, image_k, text_q, text_k = (
        norm(rearrange(layer(x), "b n (h d) -> b h n d", h=attn.heads))
        for norm, layer, x in (
            (attn.norm_q, attn.to_q, image),
            (attn.norm_k, attn.to_k, image),
            (attn.norm_added_q, attn.add_q_proj, text),
            (attn.norm_added_k, attn.add_k_proj, text),
        )
    )
    return image_q, image_k, text_q, text_k


class RepeatedRows:
    """Joint attention where the last `kept` rows of the text, equal to one another, stand for `rows` of them.

    n equal keys are one key whose logit is log n higher, and equal queries have equal outputs.
    """

    def __init__(self, kept: int, rows: int) -> None:
        self.kept, self.extra = kept, math.log(rows / kept)

    def bias(self, keys: Tensor) -> Tensor:
        """(1, 1, 1, n): what is added to the logits of keys (b, heads, n, d)."""
        last = torch.arange(keys.shape[2], device=keys.device) >= keys.shape[2] - self.kept
        return (last * self.extra).to(keys.dtype)[None, None, None]

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        image_q, image_k, text_q, text_k = queries_keys(attn, hidden_states, encoder_hidden_states)
        value = torch.cat([attn.to_v(hidden_states), attn.add_v_proj(encoder_hidden_states)], 1)
        query, key = torch.cat([image_q, text_q], 2), torch.cat([image_k, text_k], 2)
        value = rearrange(value, "b n (h d) -> b h n d", h=attn.heads)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=self.bias(key))
        image, text = rearrange(mixed, "b h n d -> b n (h d)").split([hidden_states.shape[1], encoder_hidden_states.shape[1]], 1)
        return attn.to_out[0](image), text if attn.context_pre_only else attn.to_add_out(text)


def attention_shares(block: JointTransformerBlock, image: Tensor, text: Tensor, temb: Tensor, columns: Tensor) -> Tensor:
    """What part of its attention each image cell gives to each column of text rows (b, rows, columns), mean over heads.

    (b, cells, columns), of a softmax over all keys, image and text; by attention with the columns for values, never as a matrix
    of cells by keys (`block` and the streams before it are those of SD3Transformer2DModel).
    """
    normed = block.norm1_context(text, temb) if block.context_pre_only else block.norm1_context(text, emb=temb)[0]
    image_q, image_k, _, text_k = queries_keys(block.attn, block.norm1(image, emb=temb)[0], normed)
    key, heads = torch.cat([image_k, text_k], 2), block.attn.heads
    value = F.pad(columns, (0, 0, image.shape[1], 0))[:, None].expand(-1, heads, -1, -1)
    processor = block.attn.processor
    bias = processor.bias(key) if isinstance(processor, RepeatedRows) else None
    return F.scaled_dot_product_attention(image_q, key, value.to(key.dtype), attn_mask=bias).float().mean(1)


def velocity_and_shares(
    model: SD3Transformer2DModel, z: Tensor, s: Tensor, text: Tensor, pooled: Tensor, columns: Tensor, layers: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """The forward pass of SD3Transformer2DModel at noise levels s in 0..1, and `attention_shares` of some layers on the way."""
    image = model.pos_embed(z).contiguous()
    temb, text, shares = model.time_text_embed(1000 * s, pooled), model.context_embedder(text), []
    for index, block in enumerate(model.transformer_blocks):
        if index in layers:
            shares.append(attention_shares(block, image, text, temb, columns))
        text, image = block(image, text, temb)
    out = model.proj_out(model.norm_out(image, temb))
    size = {"h": z.shape[2] // 2, "p": 2, "q": 2}
    return rearrange(out, "b (h w) (p q c) -> b c (h p) (w q)", **size), shares


# --- the data: everything that training reads, as tensors on its device --------------------------------------------------


@dataclass
class Data:
    """n scenes without held-out compositions: their latents and those of their mirror images, and several captions of each.

    A bit of `groups` says which of the scene's parts a token stands for, `labels` which part each cell of the image shows.
    """

    latents: Tensor  # (2, n, 4, 32, 32) float16, scaled
    labels: Tensor  # (n, GRID, GRID) uint8
    ids: Tensor  # (n, WORDINGS, TOKENS) int16
    groups: Tensor  # (n, WORDINGS, TOKENS) uint8


def _prepare(bounds: tuple[int, int]) -> tuple[np.ndarray, ...]:
    rows = [row for i in range(*bounds) if (row := _prepare_scene(i)) is not None]
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def _prepare_scene(index: int) -> tuple[np.ndarray, ...] | None:
    """Picture, labels, tokens and groups of a scene; None if it holds a held-out composition."""
    rng, scene = scene_of(index)
    if has_held_out(scene):
        return None
    image, masks = render_parts(scene)
    texts = [caption(scene, sample_wording(rng)) for _ in range(WORDINGS)]
    groups = np.stack([word_groups(scene, text) for text in texts]) @ (1 << np.arange(GROUPS))
    return np.asarray(image), label_masks(masks.values()), token_ids(texts).astype(np.int16), groups.astype(np.uint8)


def token_ids(texts: list[str]) -> np.ndarray:
    return np.array(tokenizer()(texts, padding="max_length", max_length=TOKENS, truncation=True).input_ids)


def chunks_of_scenes(args: argparse.Namespace) -> Iterator[tuple[np.ndarray, ...]]:
    """Chunks in the order of the scenes, until all are there or the time for rendering is over."""
    tokenizer()  # before the processes part: all share it
    start, bounds = time.monotonic(), [(a, min(a + 128, args.scenes)) for a in range(0, args.scenes, 128)]
    with ProcessPoolExecutor(args.workers) as pool:
        for chunk in pool.map(_prepare, bounds):
            yield chunk
            if time.monotonic() - start > args.render_seconds:
                pool.shutdown(wait=False, cancel_futures=True)
                return


@torch.no_grad()
def make_data(args: argparse.Namespace) -> Data:
    """Rendered, encoded and kept in the work folder, so that a training that goes on sees the same."""
    path, start, device = args.work / "scenes.safetensors", time.monotonic(), args.device
    args.work.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        columns, vae = [], None
        for images, *rest in chunks_of_scenes(args):
            vae = vae or autoencoder().to(device)  # after the processes have started: they must not inherit a GPU's state
            x = as_pixels(images, device).contiguous()
            latents = torch.stack([vae.encode(v.contiguous()).latent_dist.mean for v in (x, x.flip(3))], 1)
            columns.append(((latents * vae.config.scaling_factor).half(), *(torch.from_numpy(r).to(device) for r in rest)))
        latents, labels, ids, groups = (torch.cat(column) for column in zip(*columns, strict=True))
        tensors = {"latents": latents.transpose(0, 1).contiguous(), "labels": labels, "ids": ids, "groups": groups}
        save_file(tensors, path.with_suffix(".unfinished"))
        os.replace(path.with_suffix(".unfinished"), path)
    data = Data(**load_file(path, device=str(device)))
    print(f"scenes: {len(data.labels)} of {args.scenes}, {time.monotonic() - start:.0f} s", flush=True)
    return data


@dataclass
class Batch:
    """What a step reads: clean latents, noise and its levels, tokens, columns of text to ground, labels of cells."""

    z: Tensor  # (b, 4, 32, 32)
    noise: Tensor
    s: Tensor  # (b,)
    ids: Tensor  # (b, TOKENS)
    columns: Tensor  # (b, TOKENS + KEPT_ROWS, 8): GROUPS, then any caption row, then nothing (kernels want multiples of 8)
    labels: Tensor  # (b, GRID * GRID)
    captioned: Tensor  # (b,) of 0 and 1: whether there is a caption


def draw(data: Data, null: Tensor, seed: int, size: int) -> Batch:
    """A batch by its seed, without a loop over its rows and without waiting for the device."""
    device = data.latents.device
    generator = torch.Generator(device).manual_seed(SHUFFLE_SEED * 1_000_003 + seed)
    number = lambda high: torch.randint(high, (size,), generator=generator, device=device)  # noqa: E731
    uniform = lambda: torch.rand(size, generator=generator, device=device)  # noqa: E731
    chosen, mirrored, wording = number(len(data.labels)), number(2), number(WORDINGS)
    captioned = uniform() >= NULL_CAPTIONS
    u = torch.randn(size, generator=generator, device=device).sigmoid()
    u = torch.where(uniform() < UNIFORM, uniform(), u)
    z = data.latents[mirrored, chosen].float()
    labels = data.labels[chosen]
    labels = torch.where(mirrored[:, None, None] == 1, labels.flip(2), labels)
    bits = torch.arange(GROUPS, device=device, dtype=torch.uint8)
    groups = (data.groups[chosen, wording][..., None] >> bits) & 1
    columns = torch.cat([groups.float(), torch.ones_like(groups[..., :1]).float()], -1)
    return Batch(
        z=z,
        noise=torch.randn(z.shape, generator=generator, device=device),
        s=SHIFT * u / (1 + (SHIFT - 1) * u),
        ids=torch.where(captioned[:, None], data.ids[chosen, wording].long(), null),
        columns=F.pad(columns, (0, 8 - GROUPS - 1, 0, KEPT_ROWS)),
        labels=labels.flatten(1).long(),
        captioned=captioned.float(),
    )


# --- losses ------------------------------------------------------------------------------------------------------------


def grounding(shares: Tensor, labels: Tensor, captioned: Tensor) -> Tensor:
    """How far attention is from where the words' parts are: two cross-entropies, of captioned rows alone.

    Of every cell, over the parts, of what it gives to caption rows (as in train_tinyworld.py); and of every part, over the cells,
    of a softmax that has image rows among its keys, as a reader of maps sees it.
    """
    own = F.one_hot(labels, GROUPS).float()  # (b, cells, groups)
    groups, text = shares[..., :GROUPS], shares[..., GROUPS : GROUPS + 1]
    cost = -(own * (groups / (text + 1e-6) + 1e-4).log()).sum(-1)
    weights = [captioned[:, None] * where for where in (labels > 0, labels == 0)]
    cells = [(cost * w).sum() / w.sum().clamp(min=1) for w in weights]
    inside, whole = (own * groups).sum(1), groups.sum(1)
    there = captioned[:, None] * ((own.sum(1) > 0) & (whole > 0))
    parts = (-(inside / (whole + 1e-6) + 1e-4).log() * there).sum() / there.sum().clamp(min=1)
    return (cells[0] + cells[1]) / 2 + parts


def loss_of(modules: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean squared error of the velocity noise - z at (1-s) z + s noise, and the grounding loss."""
    s = batch.s[:, None, None, None]
    text, pooled = encode([modules[name] for name in TOWERS], batch.ids, KEPT_ROWS)
    v, shares = velocity_and_shares(
        modules["transformer"], (1 - s) * batch.z + s * batch.noise, batch.s, text, pooled, batch.columns, GROUNDED
    )
    return F.mse_loss(v.float(), batch.noise - batch.z), grounding(torch.stack(shares).mean(0), batch.labels, batch.captioned)


# --- training ----------------------------------------------------------------------------------------------------------


class TimedRun(Run):
    """A run that ends by samples or by time, and whose steps never wait for the device."""

    def __init__(self, path: Path, modules: nn.ModuleDict, rate: float, total: int, limit: float) -> None:
        self.limit = limit
        super().__init__(path, modules, rate, total, DECAY, ema=0.999, fused=True)
        names = [name for name, _ in modules.named_parameters()]
        self.weights, self.averages = list(modules.parameters()), [self.average[name] for name in names]

    @property
    def used(self) -> float:
        """Of the samples or of the time, whichever is further, in 0..1."""
        return max(self.samples / self.total, self.seconds / self.limit)

    def step(self, loss: Tensor, batch: int) -> None:
        self.optimizer.param_groups[0]["lr"] = self.rate * min(1.0, self.used / WARM_UP, max(0.0, 1 - self.used) / self.decay)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, 1.0)
        cast(Any, self.optimizer).found_inf = (~norm.isfinite()).float()  # the fused step passes over one that is not finite
        self.optimizer.step()
        self.samples, self.steps = self.samples + batch, self.steps + 1
        keep = min(self.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, [*self.weights], 1 - keep)


def train(args: argparse.Namespace) -> dict[str, Tensor]:
    """The averaged weights."""
    data, modules = make_data(args), new_modules().to(args.device)
    null = torch.from_numpy(token_ids([""])).to(args.device)
    transformer: Any = modules["transformer"]
    transformer.set_attn_processor(RepeatedRows(KEPT_ROWS, ZERO_ROWS))
    run = TimedRun(args.work / "flow.safetensors", modules.train(), args.rate, args.samples, 60 * args.minutes)
    if args.compile:
        torch._dynamo.config.suppress_errors = True  # what does not compile runs as it is, with a warning
        for part in (*transformer.transformer_blocks, *(modules[name] for name in TOWERS)):
            part.compile(dynamic=False)
        warm_up(modules, data, null, args)
    start, said, parts, count = time.monotonic() - run.seconds, run.seconds, torch.zeros(2, device=args.device), 0
    kept = run.seconds
    while run.used < 1:
        with args.autocast():
            denoising, grounded = loss_of(modules, draw(data, null, run.steps, args.batch))
        run.step(denoising + GROUNDING * grounded, args.batch)
        parts, count = parts + torch.stack([denoising, grounded]).detach(), count + 1
        run.seconds = time.monotonic() - start
        if run.used >= 1 or run.seconds - said > args.every:
            velocity, ground = (parts / count).tolist()  # waits for the device
            now = time.monotonic() - start
            speed = count * args.batch / (now - said)
            said, parts, count = now, torch.zeros_like(parts), 0
            print(f"{run.samples}/{run.total} samples, {now:.0f}/{run.limit:.0f} s, loss {velocity:.4f}, grounding {ground:.4f}, "
                  f"{speed:.0f} samples/s", flush=True)  # fmt: skip
        if run.used >= 1 or run.seconds - kept > args.keep:
            run.save()
            if args.single:
                save_single(run.average, args.single, run)
            kept = run.seconds
    return run.average


def warm_up(modules: nn.ModuleDict, data: Data, null: Tensor, args: argparse.Namespace) -> None:
    """Compiles before the clock starts, by a loss and a gradient that nobody uses."""
    start = time.monotonic()
    for seed in range(2):
        with args.autocast():
            torch.stack(loss_of(modules, draw(data, null, seed, args.batch))).sum().backward()
    modules.zero_grad(set_to_none=True)
    if args.device.type == "cuda":
        torch.cuda.synchronize()
    print(f"compiled, {time.monotonic() - start:.0f} s", flush=True)


# --- files -------------------------------------------------------------------------------------------------------------


def save_single(weights: dict[str, Tensor], path: Path, run: Run) -> None:
    """Weights in half precision in one file, replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    halves = {k: v.half().contiguous() for k, v in weights.items() if v.is_floating_point()}
    save_file(halves, unfinished, {"samples": str(run.samples), "steps": str(run.steps), "seconds": f"{run.seconds:.0f}"})
    os.replace(unfinished, path)


def filled(weights: dict[str, Tensor]) -> nn.ModuleDict:
    """New modules with these weights."""
    modules = new_modules()
    modules.load_state_dict({k: v.float() for k, v in weights.items()})
    return modules.eval()


def export(modules: nn.ModuleDict, folder: Path) -> None:
    pipeline = StableDiffusion3Pipeline(
        **{name: modules[name] for name in ("transformer", *TOWERS)}, vae=autoencoder(), scheduler=new_scheduler(),
        tokenizer=tokenizer(), tokenizer_2=tokenizer(), text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    (folder / LIST).write_text("\n".join(vocabulary()) + "\n")
    print(f"saved {folder}", flush=True)


# --- quality -----------------------------------------------------------------------------------------------------------


def evaluate(pipeline: StableDiffusion3Pipeline, count: int, steps: int, guidance: float) -> dict[str, float]:
    """Of pictures of `count` held-out captions, as sdist.tinyworld.quality.measure; and the AUC of joint attention's maps."""
    captioned = list(captioned_scenes(0, count))
    pictures = generate(pipeline, [text for _, text in captioned], steps, guidance)
    right = [agreement(facts(scene), seen) for (scene, _), seen in zip(captioned, look(pictures), strict=True)]
    unseen = [(scene, caption(scene)) for scene in held_out_scenes(0, max(len(HELD_OUT), count // 5))]
    pictures = generate(pipeline, [text for _, text in unseen], steps, guidance)
    composed = [facts(scene).pairs <= seen.pairs for (scene, _), seen in zip(unseen, look(pictures), strict=True)]
    return {
        "noun": ratio(right, "nouns_found", "nouns"),
        "colour": ratio(right, "colours_right", "nouns_found"),
        "background": float(np.mean([a.place_right for a in right])),
        "heldout_composition": float(np.mean(composed)),
    } | map_areas(pipeline, max(1, count // 5))


def generate(pipeline: StableDiffusion3Pipeline, prompts: list[str], steps: int, guidance: float) -> list[Image.Image]:
    pictures = []
    for a in range(0, len(prompts), 50):
        generators = [torch.Generator().manual_seed(i) for i in range(a, min(a + 50, len(prompts)))]
        pictures += pipeline(
            prompts[a : a + 50], height=SIDE, width=SIDE, num_inference_steps=steps, guidance_scale=guidance, generator=generators
        ).images
    return pictures


@torch.no_grad()
def map_areas(pipeline: StableDiffusion3Pipeline, count: int) -> dict[str, float]:
    """Median and 10th percentile of the AUC of nouns' maps against their masks, at ten noise levels of held-out renders.

    The map is the mean over GROUNDED of the share of all keys (mask_auc), or of text rows alone (text_auc), also by layer.
    """
    areas: dict[str, list[float]] = {}
    for index in range(count):
        scene = sample_scene(np.random.default_rng((RENDER_SEED, index)))
        shares, masks = observe(pipeline, scene, index)
        for column, mask in enumerate(masks):
            of_all, of_text = shares[..., column], shares[..., column] / shares[..., -1]
            maps = {f"auc, layer {i}": of_all[i] for i in range(LAYERS)}
            maps |= {"mask_auc": of_all[list(GROUNDED)].mean(0), "text_auc": of_text[list(GROUNDED)].mean(0)}
            for name, levels in maps.items():
                areas.setdefault(name, []).extend(auc(rearrange(m, "(h w) -> 1 1 h w", h=GRID), mask) for m in levels)
    found = {name: float(np.median(values)) for name, values in areas.items()}
    return found | {f"{name}_p10": float(np.percentile(areas[name], 10)) for name in ("mask_auc", "text_auc")}


def observe(pipeline: StableDiffusion3Pipeline, scene: Scene, seed: int) -> tuple[Tensor, list[np.ndarray]]:
    """Shares (layers, levels, cells, nouns + 1) of a noised render's attention that its nouns get, last any text; their masks."""
    image, parts = render_with_masks(scene)
    text, device, dtype = caption(scene), pipeline.device, pipeline.transformer.dtype
    masks = {noun: mask > 0.5 for noun, mask in parts.items() if (mask > 0.5).sum() >= 16}
    words = ["", *text.split()]
    rows, _, pooled, _ = pipeline.encode_prompt(text, None, None, do_classifier_free_guidance=False)
    columns = torch.zeros(1, rows.shape[1], len(masks) + 1, device=device, dtype=dtype)
    for column, noun in enumerate(masks):
        columns[:, [i for i, word in enumerate(words) if word == noun], column] = 1
    columns[:, :TOKENS, -1] = 1
    vae, s = pipeline.vae, torch.linspace(0.05, 0.95, 10, device=device)
    z = vae.encode(to_pixels([image]).to(device, dtype)).latent_dist.mean * vae.config.scaling_factor
    noise = torch.randn((len(s), *z.shape[1:]), generator=torch.Generator().manual_seed(seed)).to(device, dtype)
    level = s.to(dtype)[:, None, None, None]
    _, shares = velocity_and_shares(
        pipeline.transformer, (1 - level) * z + level * noise, s, rows.expand(len(s), -1, -1), pooled.expand(len(s), -1),
        columns.expand(len(s), -1, -1), range(LAYERS),
    )  # fmt: skip
    return torch.stack(shares), list(masks.values())


def load_pipeline(folder: Path, device: torch.device) -> StableDiffusion3Pipeline:
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, torch.float32)


# --- the recipe --------------------------------------------------------------------------------------------------------


def main() -> None:
    args = parse()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if args.work:
        weights = train(args)
        if args.export:
            export(filled(weights), args.export)
    elif args.single and args.export:
        export(filled(load_file(args.single)), args.export)
    if args.evaluate:
        count, folder = args.evaluate
        found = evaluate(load_pipeline(Path(folder), args.device), int(count), args.steps, args.guidance)
        print("\n".join(f"{name:22}{value:.3f}" for name, value in found.items()))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="train; folder for latents and the checkpoint")
    parser.add_argument("--single", type=Path, help="file of the averaged weights: written with --work, read without")
    parser.add_argument("--export", type=Path, help="folder for the pipeline")
    parser.add_argument("--evaluate", nargs=2, metavar=("N", "FOLDER"), help="measure a saved pipeline on N captions")
    parser.add_argument("--scenes", type=int, default=64_000)
    parser.add_argument("--render-seconds", type=float, default=math.inf, help="stop rendering then, with the scenes so far")
    parser.add_argument("--samples", type=int, default=8_000_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="of training; the rate has fallen to zero by then")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--every", type=float, default=5, help="seconds between lines of progress")
    parser.add_argument("--keep", type=float, default=60, help="seconds between checkpoints")
    parser.add_argument("--steps", type=int, default=28, help="of sampling, for --evaluate")
    parser.add_argument("--guidance", type=float, default=4.5, help="for --evaluate")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    args = parser.parse_args(argv)
    args.autocast = lambda: torch.autocast(args.device.type, torch.bfloat16)
    return args


if __name__ == "__main__":
    main()
