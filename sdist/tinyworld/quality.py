"""How good the embedded model is: what the judge sees in generated pictures, the autoencoder, and what attention points at."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch.nn import functional as F

from ..diffusion import add_noise, size_of
from ..files.images import to_pixels
from ..hooks.attention import Attention, AttentionRecorder
from ..metrics.encoders.clip import Clip
from ..metrics.similarity import cosine
from ..models.base import Backbone
from ..models.catalogue import MODELS, TINYWORLD
from ..prediction import SOURCE_SOURCE, call
from .captions import caption, sample_wording
from .compositions import HELD_OUT, has_held_out
from .edits import EditPair, sample_edit
from .judge import Facts, facts, look
from .scene import Scene, render, render_with_masks, sample_scene

CAPTION_SEED, RENDER_SEED, EDIT_SEED = 2_000_000, 3_000_000, 4_000_000  # streams that training never used
GUIDANCE, SAMPLING_STEPS = 5.0, 50
TIMESTEPS = range(50, 951, 100)


def measure(backbone: Backbone, n: int, seed: int, guidance: float = GUIDANCE) -> dict[str, Any]:
    """Everything at once, over `n` captions and `n` held-out renders.

    judge: share of renders where the judge names the place and exactly the pairs that are there. noun: share of named nouns
    that the judge finds in the generated picture. colour: share of the found nouns that have the named colour. background:
    share of pictures of the named place. heldout_composition: share of pictures, of one thing whose noun and colour training
    never showed together, where both are found. psnr: of the autoencoder, in dB, mean over renders. mask_auc, mask_auc_p10:
    median and 10th percentile of the area under the ROC curve of a noun's refined map against the true mask of the object.
    clip: share of held-out edits where the embedded CLIP finds both prompts closer to their own renders.
    """
    captioned = list(captioned_scenes(seed, n))
    pictures = generate(backbone, [text for _, text in captioned], seed, guidance)
    right = [agreement(facts(scene), seen) for (scene, _), seen in zip(captioned, look(pictures), strict=True)]
    unseen = [(scene, caption(scene)) for scene in held_out_scenes(seed, max(len(HELD_OUT), n // 5))]
    pictures = generate(backbone, [text for _, text in unseen], seed + 1, guidance)
    composed = [facts(scene).pairs <= seen.pairs for (scene, _), seen in zip(unseen, look(pictures), strict=True)]
    scenes = [sample_scene(np.random.default_rng((RENDER_SEED + seed, i))) for i in range(n)]
    renders = [render(scene) for scene in scenes]
    areas = [m.auc for m in map_quality(backbone, scenes[: max(1, n // 5)], seed)]
    return {
        "judge": float(np.mean([facts(scene) == seen for scene, seen in zip(scenes, look(renders), strict=True)])),
        "noun": ratio(right, "nouns_found", "nouns"),
        "colour": ratio(right, "colours_right", "nouns_found"),
        "background": float(np.mean([a.place_right for a in right])),
        "heldout_composition": float(np.mean(composed)),
        "psnr": float(np.mean(psnr(backbone, renders))),
        "mask_auc": float(np.median(areas)),
        "mask_auc_p10": float(np.percentile(areas, 10)),
        "clip": float(tells(cosines(Clip("tinyworld", "cpu"), [sample_edit(EDIT_SEED + seed, i) for i in range(n)])).mean()),
    }


class Agreement(NamedTuple):
    """One generated picture against its caption."""

    nouns: int
    nouns_found: int
    colours_right: int
    place_right: bool


def agreement(asked: Facts, seen: Facts) -> Agreement:
    common = asked.nouns & seen.nouns
    return Agreement(len(asked.nouns), len(common), len({n for n, _ in asked.pairs & seen.pairs}), asked.place == seen.place)


def ratio(rows: Iterable[Agreement], part: str, whole: str) -> float:
    rows = list(rows)
    return sum(getattr(r, part) for r in rows) / max(1, sum(getattr(r, whole) for r in rows))


def captioned_scenes(seed: int, n: int) -> Iterator[tuple[Scene, str]]:
    """Scenes without held-out compositions, and captions that tell all of them."""
    rng = np.random.default_rng((CAPTION_SEED, seed))
    while n > 0:
        scene = sample_scene(rng)
        wording = replace(sample_wording(rng), colours=True, place=True)
        if not has_held_out(scene):
            yield scene, caption(scene, wording)
            n -= 1


def held_out_scenes(seed: int, n: int) -> Iterator[Scene]:
    """Scenes of one thing, the held-out compositions in turn."""
    rng = np.random.default_rng((CAPTION_SEED, seed, 1))
    pairs = sorted(HELD_OUT)
    for i in range(n):
        noun, colour = pairs[i % len(pairs)]
        scene = sample_scene(rng, count=1)
        yield scene.with_thing(0, noun=noun, colour=colour, attachment=None)


def generate(backbone: Backbone, prompts: list[str], seed: int, guidance: float = GUIDANCE) -> list[Image.Image]:
    """Pictures of the prompts by DDIM; picture i depends on its prompt and on (seed, i) alone."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=backbone.vae, unet=backbone.denoiser, text_encoder=backbone.text.encoders[0], tokenizer=backbone.text.tokenizers[0],
        scheduler=DDIMScheduler.from_pretrained(TINYWORLD, subfolder="scheduler"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    side, pictures = backbone.native_side, []
    for a in range(0, len(prompts), 25):
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in range(a, min(a + 25, len(prompts)))]
        pictures += pipeline(
            prompts[a : a + 25], side, side, SAMPLING_STEPS, guidance_scale=guidance, generator=generators
        ).images
    return pictures


def psnr(backbone: Backbone, images: list[Image.Image]) -> Float[np.ndarray, " n"]:
    """Of each picture after encoding and decoding, in dB."""
    values = []
    for a in range(0, len(images), 32):
        pixels = to_pixels(images[a : a + 32])
        error = ((backbone.decode(backbone.encode(pixels)) - pixels) ** 2).mean((1, 2, 3))
        values.append((10 * torch.log10(4 / error)).numpy())
    return np.concatenate(values)


def cosines(clip: Clip, pairs: list[EditPair]) -> Float[np.ndarray, "n 2 2"]:
    """Of each pair's renders before and after the edit (rows) with its source and target prompt (columns)."""
    images = [clip.images([getattr(p, name) for p in pairs], "clean") for name in ("source_image", "target_image")]
    texts = [clip.texts([getattr(p, name) for p in pairs]) for name in ("source", "target")]
    return np.stack([np.stack([cosine(image, text) for text in texts], 1) for image in images], 1)


def tells(seen: Float[np.ndarray, "n 2 2"]) -> Bool[np.ndarray, " n"]:
    """Whether each of a pair's prompts is closer to its own render than to the other."""
    return (seen[:, 0, 0] > seen[:, 1, 0]) & (seen[:, 1, 1] > seen[:, 0, 1])


class MapQuality(NamedTuple):
    """How well one noun's map finds the object, at one timestep."""

    noun: str
    t: int
    auc: float


def map_quality(backbone: Backbone, scenes: list[Scene], seed: int) -> list[MapQuality]:
    """The refined map of every noun of the scenes against its mask, at ten timesteps from 50 to 950 each."""
    scale = MODELS["tinyworld"].scale
    recorder = AttentionRecorder(SOURCE_SOURCE, scale.cross_level, scale.self_level)
    qualities = []
    for index, scene in enumerate(scenes):
        recorded, focus, masks = observe(backbone, scene, recorder, (seed, index))
        for row, t in enumerate(TIMESTEPS):
            one = recorded.narrow(torch.tensor([row]))
            for noun, mask in masks.items():
                qualities.append(MapQuality(noun, t, auc(one.refined(focus[noun]), mask)))
    return qualities


@torch.no_grad()
def observe(
    backbone: Backbone, scene: Scene, recorder: AttentionRecorder, seed: tuple[int, int]
) -> tuple[Attention, dict[str, Float[torch.Tensor, "1 l"]], dict[str, Bool[np.ndarray, "h w"]]]:
    """Attention on the scene's render noised at every timestep; the tokens and the mask of each of its nouns."""
    image, parts = render_with_masks(scene)
    text = caption(scene)
    rows = len(TIMESTEPS)
    z = backbone.encode(to_pixels([image])).expand(rows, -1, -1, -1)
    t = torch.tensor(list(TIMESTEPS), device=z.device)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed[0] * 1_000_003 + seed[1])).to(z)
    z_t = add_noise(z, noise, *backbone.scales(t, size_of(z)))
    prompts = {"source": backbone.embed([text]).repeat(rows)}
    recorded = call(backbone, {"source": z_t}, t, prompts, [recorder.branch], [recorder]).recorded[recorder]
    focus, masks = {}, {}
    for noun, mask in parts.items():
        if (mask > 0.5).sum() >= 16:  # what is hidden behind others cannot be found
            focus[noun] = torch.tensor([[float(text[a:b] == noun) for a, b in backbone.text.token_spans(text)]], device=z.device)
            masks[noun] = mask > 0.5
    return recorded, focus, masks


def auc(raw: Float[torch.Tensor, "1 1 h w"], mask: Bool[np.ndarray, "height width"]) -> float:
    """Area under the ROC curve: the chance that a pixel of the mask has a higher value than one outside it."""
    values = F.interpolate(raw, mask.shape, mode="bicubic")[0, 0].cpu().numpy().ravel()
    ranks = np.empty(values.size)
    ranks[values.argsort()] = np.arange(values.size)
    inside = mask.ravel()
    count = int(inside.sum())
    return float((ranks[inside].sum() - count * (count - 1) / 2) / (count * (inside.size - count)))
