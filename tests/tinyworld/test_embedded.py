"""The embedded model itself: small, sound, and able to edit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sdist.config.build import load_settings
from sdist.diffusion import add_noise, size_of
from sdist.distillation.distiller import attempts_of
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request
from sdist.files.images import to_pixels
from sdist.models.base import Backbone
from sdist.models.catalogue import TINYWORLD
from sdist.models.loading import load_backbone
from sdist.tinyworld.edits import make_pair, sample_edit
from sdist.tinyworld.scene import render, sample_scene

from ..conftest import run_to_end


@pytest.fixture(scope="module")
def tinyworld() -> Backbone:
    return load_backbone("tinyworld", "cpu")


def test_weights_are_small_and_safe() -> None:
    files = [path for path in TINYWORLD.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 41.5e6  # tinyworld 19, the models beside it 22
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}


def test_latents_have_the_promised_shape_and_scale(tinyworld: Backbone) -> None:
    scenes = [sample_scene(np.random.default_rng((77, i))) for i in range(24)]
    pixels = to_pixels([render(scene) for scene in scenes])
    z = tinyworld.encode(pixels)
    assert z.shape == (24, 4, 32, 32)
    assert 0.8 < z.std() < 1.2
    error = ((tinyworld.decode(z) - pixels) ** 2).mean((1, 2, 3))
    psnr = 10 * torch.log10(4 / error)
    assert psnr.mean() > 30


def test_every_word_of_a_caption_is_one_token(tinyworld: Backbone) -> None:
    for index in range(50):
        pair = sample_edit(77, index)
        for prompt in (pair.source, pair.target):
            tokens = sum(start < end for start, end in tinyworld.text.token_spans(prompt))
            assert tokens == len(prompt.split())


def test_the_right_prompt_predicts_the_noise_best(tinyworld: Backbone) -> None:
    """On held-out scenes the caption beats the caption of another place, averaged over noise."""
    from sdist.tinyworld.edits import background

    errors = []
    for index in range(6):
        rng = np.random.default_rng((78, index))
        scene = sample_scene(rng, count=1)
        other = background(rng, scene)
        assert other is not None
        pair = make_pair("background", scene, other, sample_wording(rng))
        z = tinyworld.encode(to_pixels([pair.source_image]))
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(index))
        t = torch.tensor([800])
        z_t = add_noise(z, noise, *tinyworld.scales(t, size_of(z)))
        with torch.no_grad():
            eps = [tinyworld.estimate(z_t, t, tinyworld.embed([prompt])).eps for prompt in (pair.source, pair.target)]
        errors.append([((e - noise) ** 2).mean().item() for e in eps])
    right, wrong = np.mean(errors, 0)
    assert right < 0.9 * wrong


def sample_wording(rng: np.random.Generator):
    from dataclasses import replace

    from sdist.tinyworld.captions import sample_wording as any_wording

    return replace(any_wording(rng), colours=True, place=True)


def test_the_demo_edit_makes_a_red_thing_in_the_sky_and_leaves_the_rest(tinyworld: Backbone) -> None:
    """The README's first command, with nothing shortened."""
    demo = Path(__file__).parent.parent.parent / "assets" / "demo.png"
    settings = load_settings("lusd")
    job = LoadedMethod(settings, tinyworld).prepare(Request(demo, "a field of snow", "a red balloon in the snow"))
    (result,) = LoadedMethod(settings, tinyworld).edit([job])
    edited, source = (np.asarray(i, float) for i in (result.image, job.image))
    red, green, blue = np.moveaxis(edited, -1, 0)
    balloon = (red - np.maximum(green, blue)) > 60
    assert 0.02 < balloon.mean() < 0.2
    assert balloon[:64].sum() > 0.9 * balloon.sum()  # in the sky
    assert np.abs(edited - source)[64:].mean() < 10
    assert len(result.attempts) == 300


def test_eight_edits_of_the_embedded_model_equal_single_ones(tinyworld: Backbone, tmp_path: Path) -> None:
    from sdist.distillation.distiller import ScoreDistiller

    settings = load_settings("lusd", steps=4)
    jobs = []
    for index in range(8):
        pair = sample_edit(80, index)
        pair.source_image.save(tmp_path / f"{index}.png")
        jobs.append(
            LoadedMethod(settings, tinyworld).prepare(Request(tmp_path / f"{index}.png", pair.source, pair.target, seed=index))
        )

    def run(chosen: list) -> ScoreDistiller:
        edit = settings.editor.encode(tinyworld, chosen)
        identities = [(p.request.seed, p.key) for p in chosen]
        distiller = ScoreDistiller(tinyworld, edit, settings.editor.method(tinyworld), identities)
        return run_to_end(distiller)

    together = run(jobs)
    for index in range(8):
        alone = run(jobs[index : index + 1])
        assert attempts_of(alone, 0) == attempts_of(together, index)
        torch.testing.assert_close(alone.latents[0], together.latents[index], rtol=0, atol=1e-4)
