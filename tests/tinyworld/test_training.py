"""The parts of the training recipe that can be wrong without anyone noticing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

from experiments.train_tinyworld import (
    GRID,
    Run,
    as_pixels,
    colour_code,
    grounding_loss,
    label_map,
    new_autoencoder,
    new_tokenizer,
    scene_of,
    whiten,
    word_groups,
)
from sdist.hooks.layers import Layer
from sdist.models.catalogue import TINYWORLD
from sdist.tinyworld.captions import caption
from sdist.tinyworld.scene import Attachment, render


def test_training_scenes_are_a_function_of_their_number() -> None:
    assert scene_of(3)[1] == scene_of(3)[1] != scene_of(4)[1]


def test_the_tokenizer_can_be_made_again() -> None:
    from transformers import CLIPTokenizer

    saved = CLIPTokenizer.from_pretrained(TINYWORLD, subfolder="tokenizer")
    assert new_tokenizer().get_vocab() == saved.get_vocab()


def test_words_are_matched_with_their_parts() -> None:
    from dataclasses import replace

    scene = next(s for s in (scene_of(i)[1] for i in range(500)) if [t.noun for t in s.things] == ["cat", "house"])
    cat, house = scene.things
    cat = replace(cat, colour="white", attachment=Attachment("hat", "red"))
    scene = replace(scene, place="snow", things=(cat, replace(house, colour="red", attachment=None)))
    text = caption(scene)
    assert text == "a white cat wearing a red hat and a red house in the snow"
    groups = word_groups(scene, text)
    words = ["<start>", *text.split()]
    named = {k: [words[i] for i in groups[:, k].nonzero()[0]] for k in range(4)}
    assert named == {0: ["snow"], 1: ["white", "cat"], 2: ["red", "hat"], 3: ["red", "house"]}
    labels = label_map(scene)
    assert labels.shape == (GRID, GRID)
    assert set(np.unique(labels)) <= {0, 1, 2, 3}


def test_attention_on_the_right_words_costs_less() -> None:
    """Keys of the first token point to the upper half; the loss is low if that is where its part is."""
    layer = Layer("x", 1, "up", heads=1, scale=1.0)
    q = torch.zeros(1, 8, 2)
    q[0, :4, 0] = q[0, 4:, 1] = 5.0
    tape = {"x.to_q": q, "x.to_k": torch.eye(2)[None] * 2}
    groups = torch.eye(2)[None]
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])[None]
    right, wrong = (grounding_loss(tape, [layer], groups, x) for x in (labels, 1 - labels))
    assert right < 0.01 < 5 < wrong


def pixels_of(count: int) -> torch.Tensor:
    renders = np.stack([np.asarray(render(scene_of(i)[1])) for i in range(count)])
    return as_pixels(renders, torch.device("cpu"))


def test_whitening_changes_the_latents_but_not_the_pictures() -> None:
    torch.manual_seed(0)
    vae, pixels = new_autoencoder().eval(), pixels_of(4)
    with torch.no_grad():
        before = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        whiten(vae, pixels)
        z = vae.encode(pixels).latent_dist.mean
        after = vae.decode(z).sample
    rows = rearrange(z, "b c h w -> c (b h w)")
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(rows.cov(), torch.eye(4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(rows.mean(1), torch.zeros(4), rtol=0, atol=1e-3)


def test_the_colour_code_is_white_and_tells_colours_apart() -> None:
    pixels = pixels_of(16)
    code = colour_code(pixels)
    rows = rearrange(code(pixels), "b c h w -> c (b h w)")
    torch.testing.assert_close(rows.cov(), torch.eye(3), rtol=1e-3, atol=1e-3)
    red, blue = (code(torch.tensor(c)[None, :, None, None].expand(1, 3, 8, 8)) for c in ((0.6, -0.6, -0.6), (-0.6, -0.6, 0.6)))
    assert (red - blue).norm() > 1


def train_some(path: Path, until: int) -> Run:
    torch.manual_seed(0)
    run = Run(path, nn.ModuleDict({"x": nn.Linear(3, 1)}), 1e-2, 40, 0.5, 0.9)
    while run.samples < until:
        x = torch.from_numpy(np.random.default_rng(run.steps).standard_normal((4, 3), np.float32))
        run.step(run.modules["x"](x).square().mean(), 4)
    return run


def test_a_training_that_was_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    train_some(tmp_path / "broken.safetensors", 20).save()
    resumed = train_some(tmp_path / "broken.safetensors", 40)
    whole = train_some(tmp_path / "whole.safetensors", 40)
    for name, value in whole.modules.state_dict().items():
        assert torch.equal(value, resumed.modules.state_dict()[name])
        assert torch.equal(whole.average[name], resumed.average[name])
    assert whole.optimizer.param_groups[0]["lr"] == pytest.approx(resumed.optimizer.param_groups[0]["lr"])
