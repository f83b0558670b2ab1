"""Trains tinyworld-instruct: tinyworld's UNet with eight input channels, which edits a picture by an instruction.

    python experiments/train_tinyworld_instruct.py --work runs/instruct                      # continues where it stopped
    python experiments/train_tinyworld_instruct.py --work runs/instruct --compile --minutes 4       # on a GPU
    python experiments/train_tinyworld_instruct.py --work runs/instruct --export instruct    # weights -> a pipeline's folder
    python experiments/train_tinyworld_instruct.py --work runs/instruct --evaluate 200

The layout is InstructPix2Pix's (Brooks et al. 2023, arXiv 2211.09800): the noisy latents beside the picture's, unscaled; both
conditions are dropped at random. Trained on edits that tinyworld draws; the text encoder starts as tinyworld's, with the words
of instructions added. Everything random about a step follows from its number. WORK/weights.safetensors is the averaged model.
"""

import argparse
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from train_tinyworld import GRID, GROUNDING, Run, as_pixels, new_scheduler, weights_of
from transformers import CLIPTextModel, CLIPTokenizer

from sdist.hooks.layers import Layer
from sdist.models.catalogue import TINYWORLD
from sdist.models.unet_layout import UNetLayout
from sdist.tinyworld.captions import PLAIN, vocabulary
from sdist.tinyworld.compositions import has_held_out
from sdist.tinyworld.edits import KINDS, EditPair, changed_area, make_pair
from sdist.tinyworld.instructions import WORDS, instruct, instruction
from sdist.tinyworld.judge import look
from sdist.tinyworld.scene import Scene, render_parts, sample_scene
from sdist.tinyworld.truth import autoencoded, distance

PAIR_SEED, HELD_OUT_SEED = 5_000_000, 6_000_000  # the training's edits come from (PAIR_SEED, scene), others are held out
EDITS = 3  # of one scene: they share its render, and only the instruction tells them apart
BY_PAIR = ("cells", "ids", "subject", "kinds")
WORDINGS = 4  # instructions for an edit
LONGEST = 32  # tokens of an instruction, with both marks
TEXT_ONLY, BOTH, IMAGE_ONLY = 0.05, 0.10, 0.15  # up to these draws in [0, 1) the text, both, the image are left out
RATE, DECAY, AVERAGE = 5e-4, 0.5, 0.999
STEPS = 30  # of sampling


# --- the tokenizer and the models --------------------------------------------------------------------------------------


@cache
def new_tokenizer() -> CLIPTokenizer:
    """Tinyworld's, with merges that make each word of an instruction one token; what was there keeps its numbers."""
    state = json.loads((Path(TINYWORLD) / "tokenizer" / "tokenizer.json").read_text())["model"]
    vocabulary, merges = dict(state["vocab"]), [tuple(m) for m in state["merges"]]
    for word in WORDS:
        pieces = _pieces(word, merges)
        while len(pieces) > 1:
            *pieces, left, right = pieces
            merges.append((left, right))
            pieces.append(left + right)
            vocabulary.setdefault(left + right, len(vocabulary))
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def _pieces(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """The word by byte-pair merges, the first of the list first."""
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    pieces = [*word[:-1], word[-1] + "</w>"]
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(pieces)) if pair in ranks]
        if not found:
            return pieces
        i = min(found)[1]
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


def new_text_encoder() -> CLIPTextModel:
    """Tinyworld's, in float32, with random embeddings of the new tokens."""
    torch.manual_seed(0)
    encoder = CLIPTextModel.from_pretrained(TINYWORLD, subfolder="text_encoder", dtype=torch.float32)
    encoder.resize_token_embeddings(len(new_tokenizer()), mean_resizing=False)
    return encoder.train()


def new_unet() -> UNet2DConditionModel:
    """Tinyworld's, in float32, without its middle block (a quarter of the weights), with four input channels more, all zero."""
    old = UNet2DConditionModel.from_pretrained(TINYWORLD, subfolder="unet", torch_dtype=torch.float32)
    unet = UNet2DConditionModel.from_config({**old.config, "in_channels": 8, "mid_block_type": None, "_name_or_path": None})
    state = {name: value for name, value in old.state_dict().items() if not name.startswith("mid_block.")}
    state["conv_in.weight"] = F.pad(state["conv_in.weight"], (0, 0, 0, 0, 0, 4))
    unet.load_state_dict(state)
    return unet.train()


def new_models(device: torch.device) -> nn.ModuleDict:
    models = nn.ModuleDict({"unet": new_unet(), "text_encoder": new_text_encoder()}).to(device)
    unet: Any = models["unet"]
    unet.to(memory_format=torch.channels_last)
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # on CPUs faster to train than the fused kernel
    return models


# --- edits -------------------------------------------------------------------------------------------------------------


def edit_of(rng: np.random.Generator, before: Scene, kind: str) -> Scene | None:
    after = KINDS[kind](rng, before)
    return None if after is None or has_held_out(after) else after


def scene_and_edits(index: int) -> tuple[np.random.Generator, Scene, list[tuple[str, Scene]]]:
    """A scene of the training and EDITS changes of it; the kind of the first goes by the index, the other kinds are random."""
    rng, kinds, edits = np.random.default_rng((PAIR_SEED, index)), list(KINDS), list[tuple[str, Scene]]()
    while not edits:
        before = sample_scene(rng)
        kind = kinds[index % len(kinds)]
        after = None if has_held_out(before) else edit_of(rng, before, kind)
        edits += [] if after is None else [(kind, after)]
    while len(edits) < EDITS:  # ends: a change of background is always possible
        kind = str(rng.choice(kinds))
        after = edit_of(rng, before, kind)
        edits += [] if after is None else [(kind, after)]
    return rng, before, edits


def draw_scene(index: int) -> dict[str, np.ndarray]:
    """What the training sees of a scene's edits.

    sources (3, SIDE, SIDE) and targets (EDITS, ...): uint8 pixels, channels last; cells (EDITS, GRID, GRID): where it changes;
    ids, subject (EDITS, WORDINGS, LONGEST): tokens of the instructions, and which name what changes; kinds (EDITS,).
    """
    rng, before, edits = scene_and_edits(index)
    source, old = render_parts(before)
    rows: dict[str, list] = {"targets": [], "cells": [], "ids": [], "subject": [], "kinds": []}
    for kind, after in edits:
        target, new = render_parts(after)
        rows["targets"].append(np.asarray(target))
        rows["cells"].append(change_cells(changed_area(old, new)))
        tokens, subject = zip(*(tokenize(*instruct(kind, before, after, rng)) for _ in range(WORDINGS)), strict=True)
        rows["ids"].append(np.stack(tokens))
        rows["subject"].append(np.stack(subject))
        rows["kinds"].append(list(KINDS).index(kind))
    return {"sources": np.asarray(source)} | {name: np.stack(values) for name, values in rows.items()}


def change_cells(mask: np.ndarray) -> np.ndarray:
    """(GRID, GRID) bool: the cells that the change covers by 0.3, or the most covered one."""
    shares = mask.reshape(GRID, mask.shape[0] // GRID, GRID, -1).mean((1, 3))
    return shares >= min(0.3, shares.max())


def tokenize(text: str, subject: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(LONGEST,) numbers of tokens, padded, and bool: the subject's. Every word and every mark is one token."""
    tokenizer = new_tokenizer()
    vocabulary, eos = _vocabulary(), tokenizer.eos_token_id
    words = [vocabulary[word + "</w>"] for word in re.findall(r"\w+|[^\w\s]", text)]
    ids = np.full(LONGEST, eos, np.int16)
    ids[: len(words) + 1] = [tokenizer.bos_token_id, *words]
    if len(words) + 2 > LONGEST:
        raise ValueError(f"'{text}' has more than {LONGEST - 2} tokens")
    named = np.zeros(LONGEST, bool)
    named[[i + 1 for i in subject]] = True
    return ids, named


@cache
def _vocabulary() -> dict[str, int]:
    return new_tokenizer().get_vocab()


def _draw_chunk(bounds: tuple[int, int]) -> dict[str, np.ndarray]:
    scenes = [draw_scene(i) for i in range(*bounds)]
    return {name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]}


def drawn_chunks(scenes: int, workers: int) -> Generator[dict[str, np.ndarray], None, None]:
    chunks = [(a, min(a + 32, scenes)) for a in range(0, scenes, 32)]
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_draw_chunk, chunks)


def load_vae(device: torch.device) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(TINYWORLD, subfolder="vae", torch_dtype=torch.float32).to(device).eval()


@torch.no_grad()
def both_ways(vae: AutoencoderKL, pixels: np.ndarray, device: torch.device) -> Tensor:
    """Posterior modes of pictures and of their mirror images, unscaled, (2, n, 4, h, w) float16."""
    x = as_pixels(pixels, device).contiguous()
    modes = [torch.cat([vae.encode(part).latent_dist.mode() for part in v.split(64)]) for v in (x, x.flip(3))]
    return torch.stack(modes).half()


def make_data(args: argparse.Namespace) -> dict[str, Tensor]:
    """Everything that the loop reads, on the device: sources (2, scenes, ...), targets (2, pairs, ...), the rest by pair."""
    path = args.work / f"data_{args.pairs}.safetensors"
    if path.exists():
        return load_file(path, device=str(args.device))
    began, rows = time.time(), list[dict[str, Tensor]]()
    chunks = drawn_chunks(args.pairs // EDITS, args.workers)
    first = next(chunks)  # starts the workers, before the device is first used
    vae = load_vae(args.device)
    for chunk in chain([first], chunks):
        flat = {name: torch.from_numpy(rearrange(v, "s e ... -> (s e) ...")) for name, v in chunk.items() if name in BY_PAIR}
        flat["sources"] = both_ways(vae, chunk["sources"], args.device)
        flat["targets"] = both_ways(vae, rearrange(chunk["targets"], "s e ... -> (s e) ..."), args.device)
        rows.append(flat)
        if time.time() - began > args.drawing:
            break
    chunks.close()  # what was not begun is not drawn
    data = {name: torch.cat([r[name] for r in rows], int(name not in BY_PAIR)).to(args.device) for name in rows[0]}
    print(f"{len(data['kinds'])} edits: drawn and encoded in {time.time() - began:.0f} s", flush=True)
    _save(data, path)
    return data


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    unfinished = path.with_suffix(".unfinished")
    save_file({name: value.contiguous() for name, value in tensors.items()}, unfinished)
    os.replace(unfinished, path)


# --- batches -----------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """`z`, `image`: latents of target and source (zeros if left out); `ids` (b, 77); `subject` (b, 77) float; `cells` (b, GRID^2)
    float; `instructed` (b,) float: 0 where the instruction is left out.
    """

    z: Tensor
    image: Tensor
    ids: Tensor
    subject: Tensor
    cells: Tensor
    instructed: Tensor
    t: Tensor
    noise: Tensor


class Batches:
    """Batch number n is a function of n: everything is drawn and gathered on the device."""

    def __init__(self, data: dict[str, Tensor], scale: float, ends: tuple[int, int]) -> None:
        """`scale` multiplies the target's latents; `ends` are the numbers of the marks around a text."""
        self.data, self.scale, self.end = data, scale, ends[1]
        self.device = data["kinds"].device
        self.empty = torch.tensor([ends[0], *[ends[1]] * (LONGEST - 1)], device=self.device)
        self.order = data["kinds"].argsort(stable=True)
        counts = data["kinds"].bincount(minlength=len(KINDS))
        present = counts.nonzero()[:, 0]
        self.counts, self.starts = counts[present], (counts.cumsum(0) - counts)[present]
        self.generator = torch.Generator(self.device)

    def draw(self, number: int, batch: int) -> Batch:
        """Kinds are drawn alike, whatever their shares in the data."""
        self.generator.manual_seed(number)
        u = torch.rand(6, batch, generator=self.generator, device=self.device)
        kind = (u[0] * len(self.counts)).long()
        place = (u[1] * self.counts[kind]).long().minimum(self.counts[kind] - 1)  # a product may round up
        pair = self.order[self.starts[kind] + place]
        mirrored, wording = (u[2] * 2).long(), (u[3] * WORDINGS).long()
        instructed, shown = ~(u[4] < BOTH), ~((u[4] >= TEXT_ONLY) & (u[4] < IMAGE_ONLY))
        z = self.data["targets"][mirrored, pair].float() * self.scale
        image = self.data["sources"][mirrored, pair // EDITS].float() * shown[:, None, None, None]
        cells = self.data["cells"][pair]
        cells = torch.where(mirrored.bool()[:, None, None], cells.flip(-1), cells).flatten(1).float()
        ids = torch.where(instructed[:, None], self.data["ids"][pair, wording].long(), self.empty)
        subject = F.pad(self.data["subject"][pair, wording].float(), (0, 77 - LONGEST))
        noise = torch.randn(z.shape, generator=self.generator, device=self.device)
        t = (u[5] * 1000).long()
        return Batch(z, image, F.pad(ids, (0, 77 - LONGEST), value=self.end), subject, cells, instructed.float(), t, noise)


# --- the loss ----------------------------------------------------------------------------------------------------------


class Objective:
    """The recipe's denoising loss, and its grounding: cells that change attend to the words that name what changes."""

    def __init__(self, models: nn.ModuleDict, device: torch.device, compiled: bool) -> None:
        self.models, self.device, self.tape = models, device, dict[str, Tensor]()
        bars = new_scheduler().alphas_cumprod.to(device)
        self.bars, self.weight = bars, weights_of(bars)
        self.layers = UNetLayout(models["unet"]).at("cross", 1)
        for layer in self.layers:
            for part in ("to_q", "to_k"):
                name = f"{layer.name}.{part}"
                models["unet"].get_submodule(name).register_forward_hook(self._keep(name))
        self._estimate = torch.compile(self.estimate, dynamic=False) if compiled else self.estimate

    def _keep(self, name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            self.tape[name] = output

        return keep

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The denoising loss and that of attention, of which GROUNDING counts."""
        with torch.autocast(self.device.type, torch.bfloat16):
            text = self.models["text_encoder"](batch.ids).last_hidden_state
        return self._estimate(batch, text)

    def estimate(self, batch: Batch, text: Tensor) -> tuple[Tensor, Tensor]:
        bar = self.bars[batch.t][:, None, None, None]
        x = torch.cat([bar.sqrt() * batch.z + (1 - bar).sqrt() * batch.noise, batch.image], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            eps = self.models["unet"](x, batch.t, text, return_dict=False)[0]
        errors = F.mse_loss(eps.float(), batch.noise, reduction="none").mean((1, 2, 3))
        maps = [attention_to(self.tape, layer, batch.subject) for layer in self.layers]
        return (self.weight[batch.t] * errors).mean(), attention_loss(torch.stack(maps).mean(0), batch.cells, batch.instructed)


def attention_to(tape: dict[str, Tensor], layer: Layer, subject: Tensor) -> Tensor:
    """(b, cells): the share of a layer's attention that goes to the subject's words, mean over heads."""
    q, k = (rearrange(tape[f"{layer.name}.{x}"].float(), "b n (h d) -> b h n d", h=layer.heads) for x in ("to_q", "to_k"))
    return ((q @ k.mT * layer.scale).softmax(-1) @ subject[:, None, :, None])[..., 0].mean(1)


def attention_loss(share: Tensor, cells: Tensor, instructed: Tensor) -> Tensor:
    """Cross-entropy of the share against where the picture changes; inside and outside weigh the same, whatever their area."""
    losses, share = [], share.clamp(0, 1)  # a sum of probabilities in TF32 is as much as 1e-3 above 1
    for value, side in ((share, cells), (1 - share, 1 - cells)):
        where = side * instructed[:, None]
        losses.append((-(value + 1e-4).log() * where).sum() / where.sum().clamp(min=1))
    return (losses[0] + losses[1]) / 2


# --- training ----------------------------------------------------------------------------------------------------------


class TimedRun(Run):
    """A Run that ends, its rate decayed, after its samples or its minutes, whichever is first; without a wait for the device."""

    def __init__(self, path: Path, models: nn.ModuleDict, rate: float, samples: int, minutes: float) -> None:
        super().__init__(path, models, rate, samples, DECAY, AVERAGE)
        self.minutes = minutes
        for group in self.optimizer.param_groups:
            group["fused"] = True
        named = dict(models.named_parameters())
        self.live, self.means = list(named.values()), [self.average[name] for name in named]
        self.began = time.time() - self.seconds

    def _load(self) -> None:
        """What was saved, in the parameters' memory layout: the fused step reads all of a parameter's tensors in one order."""
        super()._load()
        for name, value in self.modules.named_parameters():
            self.average[name] = torch.empty_like(value, requires_grad=False).copy_(self.average[name])
            state = self.optimizer.state[value]
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = torch.empty_like(value, requires_grad=False).copy_(state[moment])

    @property
    def progress(self) -> float:
        return max(self.samples / self.total, (time.time() - self.began) / (60 * self.minutes))

    def step(self, loss: Tensor, batch: int) -> None:
        """One optimizer step; the rate warms up over 200 steps and falls to zero over the last `decay` of the run."""
        remaining = (1 - self.progress) / self.decay
        self.optimizer.param_groups[0]["lr"] = self.rate * min(1.0, (self.steps + 1) / 200, max(0.0, remaining))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.live, 1.0)
        cast(Any, self.optimizer).found_inf = (~norm.isfinite()).float()  # the fused step passes over one that is not finite
        self.optimizer.step()
        self.samples, self.steps = self.samples + batch, self.steps + 1
        keep = min(self.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.means, [value.detach() for value in self.live], 1 - keep)
        self.seconds = time.time() - self.began

    def save(self) -> None:
        super().save()
        _save({name: value.half() for name, value in self.average.items()}, self.path.with_name("weights.safetensors"))


def train(run: TimedRun, batches: Batches, objective: Objective, args: argparse.Namespace) -> None:
    """Steps until the run is over; a line every 15 s, a checkpoint every `save_every` s and at the end."""
    recent, reported, saved = list[Tensor](), time.time(), time.time()
    while run.progress < 1:
        losses = objective(batches.draw(run.steps, args.batch))
        run.step(losses[0] + GROUNDING * losses[1], args.batch)
        recent.append(torch.stack(losses).detach())
        if time.time() - reported > 15 or run.progress >= 1:
            denoising, attention = torch.stack(recent).mean(0).tolist()
            print(
                f"{run.samples}/{run.total} samples, {run.seconds:.0f} s, {run.progress:.0%}, "
                f"loss {denoising:.5f}, attention {attention:.4f}", flush=True,
            )  # fmt: skip
            recent, reported = [], time.time()
        if time.time() - saved > args.save_every:
            run.save()
            saved = time.time()
    run.save()


def fit(args: argparse.Namespace) -> TimedRun:
    """All of the training."""
    args.work.mkdir(parents=True, exist_ok=True)
    data = make_data(args)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    models, tokenizer = new_models(args.device), new_tokenizer()
    scale = AutoencoderKL.load_config(TINYWORLD, subfolder="vae")["scaling_factor"]
    batches = Batches(data, scale, (tokenizer.bos_token_id, tokenizer.eos_token_id))
    objective = Objective(models, args.device, args.compile)
    run = TimedRun(args.work / "run.safetensors", models, args.rate, args.samples, args.minutes)
    train(run, batches, objective, args)
    return run


# --- what the weights become -------------------------------------------------------------------------------------------


def new_pipeline(weights: Path) -> StableDiffusionInstructPix2PixPipeline:
    """The averaged model, in float32."""
    models = new_models(torch.device("cpu")).eval()
    models.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=load_vae(torch.device("cpu")), unet=models["unet"], text_encoder=models["text_encoder"], tokenizer=new_tokenizer(),
        scheduler=DDIMScheduler.from_pretrained(TINYWORLD, subfolder="scheduler"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export(weights: Path, folder: Path, with_vae: bool) -> None:
    """The pipeline in float16. Without its autoencoder, which is tinyworld's, from_pretrained takes it as `vae=`."""
    new_pipeline(weights).to(dtype=torch.float16).save_pretrained(folder)
    if not with_vae:
        shutil.rmtree(folder / "vae")
    (folder / "words.txt").write_text("\n".join(sorted({*vocabulary(), *WORDS})) + "\n")
    print(f"saved {folder}")


def held_out_edit(seed: int, index: int) -> tuple[EditPair, str]:
    """An edit that training never saw, of the kinds in turn, and its instruction."""
    rng, kind = np.random.default_rng((HELD_OUT_SEED, seed, index)), list(KINDS)[index % len(KINDS)]
    while True:
        before = sample_scene(rng)
        after = KINDS[kind](rng, before)
        if after is not None:
            pair = make_pair(kind, before, after, PLAIN)
            return pair, instruction(pair, rng).text


@torch.no_grad()
def evaluate(pipeline: StableDiffusionInstructPix2PixPipeline, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By kind and over all: success and background error as compare_methods.py has them, and the median, over all kinds but
    additions, of |edit - t| / |s - t|, where s and t are source and target after one trip through the autoencoder.
    """
    from edit_measures import background_error, is_success

    pairs, texts = zip(*(held_out_edit(args.seed, i) for i in range(args.evaluate)), strict=True)
    edits = []
    for a in range(0, len(pairs), 20):
        generators = [torch.Generator().manual_seed(args.seed * 1_000_003 + i) for i in range(a, min(a + 20, len(pairs)))]
        edits += pipeline(
            list(texts[a : a + 20]), [p.source_image for p in pairs[a : a + 20]], STEPS, args.guidance, args.image_guidance,
            generator=generators,
        ).images  # fmt: skip
    rows = [
        (
            pair.kind,
            is_success(pair, seen),
            background_error(pair, edit),
            distance(pair, edit, autoencoded(pair, partial(reconstruct, pipeline.vae))),
        )
        for pair, edit, seen in zip(pairs, edits, look(edits), strict=True)
    ]
    if args.sheet:
        sheet(pairs, edits, args.sheet)
    return {kind: figures([r for r in rows if kind in (r[0], "all")]) for kind in (*KINDS, "all")}


def figures(rows: list[tuple[str, bool, float, float | None]]) -> dict[str, float]:
    determined = [r[3] for r in rows if r[3] is not None] or [float("nan")]
    return {
        "success": float(np.mean([r[1] for r in rows])), "background_error": float(np.mean([r[2] for r in rows])),
        "distance": float(np.median(determined)), "edits": len(rows),
    }  # fmt: skip


def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    return vae.decode(vae.encode(pixels.to(vae.device)).latent_dist.mode()).sample.clamp(-1, 1).cpu()


def sheet(pairs: tuple[EditPair, ...], edits: list, path: Path) -> None:
    """Source, edit and target of every pair side by side, four pairs a row."""
    from PIL import Image

    rows = [
        np.concatenate([np.asarray(x) for x in (p.source_image, e, p.target_image)], 1) for p, e in zip(pairs, edits, strict=True)
    ]
    rows += [np.full_like(rows[0], 255)] * (-len(rows) % 4)
    Image.fromarray(np.concatenate([np.concatenate(rows[i : i + 4], 1) for i in range(0, len(rows), 4)])).save(path)


def main() -> None:
    args = parse()
    weights = args.work / "weights.safetensors"
    if args.export:
        export(weights, args.export, args.with_vae)
    if args.evaluate:
        for kind, row in evaluate(new_pipeline(weights), args).items():
            print(kind, json.dumps({name: round(value, 3) for name, value in row.items()}))
    if not args.export and not args.evaluate:
        fit(args)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the drawn edits and checkpoints")
    parser.add_argument("--pairs", type=int, default=45_000, help=f"drawn edits, {EDITS} a scene")
    parser.add_argument("--drawing", type=float, default=float("inf"), help="seconds after which drawing stops, with fewer edits")
    parser.add_argument("--samples", type=int, default=2_000_000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of training, from its first step")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--save-every", type=float, default=100, help="seconds between checkpoints")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    parser.add_argument("--export", type=Path, help="save WORK/weights.safetensors as a pipeline's folder, and do not train")
    parser.add_argument("--with-vae", action="store_true", help="export the autoencoder too")
    parser.add_argument("--evaluate", type=int, metavar="N", help="measure N held-out edits, and do not train")
    parser.add_argument("--seed", type=int, default=0, help="of the held-out edits")
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--image-guidance", type=float, default=1.5)
    parser.add_argument("--sheet", type=Path, help="of the held-out edits: source, edit, target")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
