"""Trains the CLIP of tinyworld on rendered scenes, in one resumable command, and measures it on held-out edits.

python experiments/train_clip.py --work runs/tinyworld              # CPU or CUDA, continues where it stopped
python experiments/train_clip.py --work runs/tinyworld --export sdist/tinyworld/weights/clip
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from train_judge import parse, worsen
from train_tinyworld import Run, as_pixels, make_labels, make_renders, scene_of, train
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from sdist.metrics.encoders.clip import Clip
from sdist.models.catalogue import TINYWORLD
from sdist.tinyworld.captions import caption, sample_wording
from sdist.tinyworld.edits import KINDS, sample_edit
from sdist.tinyworld.judge import COLOUR_NAMES, NOUN_NAMES, facts
from sdist.tinyworld.quality import EDIT_SEED, cosines, tells
from sdist.tinyworld.scene import Scene

SIDE, PATCH = 64, 8  # pixels that the model reads; tinyworld's pictures are twice as large
CELLS = SIDE // PATCH
WRONG = 3  # captions after an edit, for every picture
SHARES = (0.1, 0.4, 0.15, 0.1, 0.15, 0.1)  # of the kinds of edit, in their order: what is attached is small, and hard to see
PAIRS = len(NOUN_NAMES) * len(COLOUR_NAMES)


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """1.5 million parameters."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        image_size=SIDE, patch_size=PATCH, hidden_size=128, intermediate_size=384, num_hidden_layers=5, num_attention_heads=4
    )
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128))


def seen_cells(scenes: list[Scene], labels: Tensor) -> Tensor:
    """Which noun-colour pairs each of the model's cells shows: uint8 (n, CELLS, CELLS, parts), part k of a scene in column k."""
    blocks = rearrange(labels, "n (y a) (x b) -> n y x (a b)", y=CELLS, x=CELLS)
    return torch.stack([(blocks == k).any(-1) for k in range(1, 5)], -1)


def numbers(scene: Scene) -> list[int]:
    """The class of every part of a scene, in the order of the labels."""
    parts = [p for thing in scene.things for p in (thing, thing.attachment) if p is not None]
    return [NOUN_NAMES.index(p.noun) * len(COLOUR_NAMES) + COLOUR_NAMES.index(p.colour) for p in parts]


def changed(rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene after an edit of any kind that it allows: what a caption must be told from."""
    while True:  # ends: a change of place is always allowed
        after = KINDS[str(rng.choice(list(KINDS), p=SHARES))](rng, scene)
        if after is not None:
            return after


class Trained(nn.Module):
    """CLIP, and a head that says what each cell of the picture shows, which only training needs."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.clip, self.cells = new_clip(tokenizer), nn.Linear(128, PAIRS)
        nn.init.constant_(self.cells.bias, -5.0)
        self.tokenizer = tokenizer

    def texts(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.clip.device)
        features = self.clip.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return F.normalize(features.float(), dim=-1)

    def loss(self, pixels: Tensor, texts: list[str], same: Tensor, cells: Tensor) -> Tensor:
        """Contrastive both ways, `same` (b, texts) says what belongs together; and what each cell shows (b, cells, PAIRS)."""
        seen = self.clip.vision_model(pixels)
        image = F.normalize(self.clip.visual_projection(seen.pooler_output).float(), dim=-1)
        logits = self.clip.logit_scale.exp().clamp(max=100) * image @ self.texts(texts).T
        by_text, by_image = logits.log_softmax(1), logits[:, : len(pixels)].log_softmax(0)
        columns = same[:, : len(pixels)]
        contrast = -(by_text * same).sum(1) / same.sum(1) - (by_image * columns).sum(0) / columns.sum(0)
        shown = self.cells(seen.last_hidden_state[:, 1:]).float()
        return contrast.mean() / 2 + F.binary_cross_entropy_with_logits(shown, cells, reduction="none").sum(2).mean()


def preprocess(images: np.ndarray, rng: np.random.Generator, device: torch.device) -> Tensor:
    """What `Clip` makes of a picture, of worsened ones."""
    x = F.interpolate(worsen(as_pixels(images, device), rng), (SIDE, SIDE), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return ((x + 1) / 2 - mean) / std


def train_clip(args: argparse.Namespace, device: torch.device) -> Trained:
    renders = make_renders(args.work / "renders.npy", args.scenes, args.workers)
    scenes = [scene_of(i)[1] for i in range(len(renders))]
    cells = seen_cells(scenes, make_labels(args.work / "labels.safetensors", args.scenes, args.workers))
    classes, known = [numbers(s) for s in scenes], [facts(s) for s in scenes]
    torch.manual_seed(0)
    model = Trained(CLIPTokenizer.from_pretrained(TINYWORLD / "tokenizer")).to(device)
    run = Run(args.work / "clip_run.safetensors", nn.ModuleDict({"clip": model}), 1e-3, args.samples, 0.5, 0.998)

    def loss_of(rng: np.random.Generator, batch: int) -> Tensor:
        chosen = np.sort(rng.integers(0, len(renders), batch))
        wordings = [replace(sample_wording(rng), colours=True, place=True) for _ in chosen]
        others = [changed(rng, scenes[i]) for _ in range(WRONG) for i in chosen]
        described = [scenes[i] for i in chosen] + others
        texts = [caption(scene, wording) for scene, wording in zip(described, wordings * (1 + WRONG), strict=True)]
        facts_described = [known[i] for i in chosen] + [facts(s) for s in others]
        same = torch.tensor(
            [[known[i] == other for other in facts_described] for i in chosen], dtype=torch.float32, device=device
        )
        shown = torch.zeros(batch, CELLS * CELLS, PAIRS, device=device)
        for row, i in enumerate(chosen):
            shown[row, :, classes[i]] = cells[i].flatten(0, 1)[:, : len(classes[i])].to(shown)
        return model.loss(preprocess(renders[chosen], rng, device), texts, same, shown)

    train(run, 64, loss_of, 100, "clip")
    run.use_average()
    return model


def measure(folder: Path, count: int) -> None:
    """Prints, by kind of edit, how well the model tells before from after; CLIP-R is that of the rendered target."""
    clip = Clip(str(folder), "cpu")
    for kind in KINDS:
        seen = cosines(clip, [sample_edit(EDIT_SEED, i, kind) for i in range(count)])
        ratio = np.median(seen[:, 1, 1] / seen[:, 0, 1])
        print(f"{kind}: {tells(seen).mean():.3f} told apart, CLIP-R {ratio:.2f}, cosines {np.median(seen, 0).round(2).tolist()}")


def main() -> None:
    args = parse(__doc__, "clip", 200_000)
    trained = train_clip(args, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    trained.clip.half().save_pretrained(args.export)
    trained.tokenizer.save_pretrained(args.export)
    print(f"saved {args.export}")
    measure(args.export, 100)


if __name__ == "__main__":
    main()
