"""CLIP skip as diffusers has it, and prompts in blocks: tokens at their places, the same for all prompts of a model."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from experiments.architectures import save_pipeline
from sdist.config.build import load_settings
from sdist.editors.loading import load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.models.text import in_pieces

LONG = "a cat in the snow and a dog in the house and a cat wearing a red party hat and a dog"  # 22 of tiny's tokens are read


@pytest.fixture
def fresh(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), "cpu")


def test_clip_skip_leaves_out_last_layers_of_stable_diffusion_1(tmp_path: Path) -> None:
    """The layer before goes through the last norm, as from an encoder that ends there."""
    model = load_backbone(str(save_pipeline(tmp_path, "sd15")), "cpu")
    whole = model.embed(["a cat"]).tokens
    model.text.configure(1, 1)
    skipped = model.embed(["a cat"]).tokens
    (encoder,) = model.text.encoders
    encoder.encoder.layers = encoder.encoder.layers[:-1]
    model.text.configure(0, 1)
    assert torch.allclose(skipped, model.embed(["a cat"]).tokens, atol=1e-6)
    assert not torch.allclose(skipped, whole, atol=1e-3)


def test_clip_skip_of_stable_diffusion_xl_is_that_of_diffusers(tmp_path: Path) -> None:
    folder = save_pipeline(tmp_path, "sdxl", layers=3)
    pipe, model = StableDiffusionXLPipeline.from_pretrained(folder), load_backbone(str(folder), "cpu")
    model.text.configure(1, 1)
    found, (expected, *_) = model.embed(["a cat"]), pipe.encode_prompt("a cat", do_classifier_free_guidance=False, clip_skip=1)
    assert torch.allclose(found.tokens, expected, atol=1e-6)


def test_a_prompt_that_fits_is_the_first_block(fresh: Backbone) -> None:
    one = fresh.embed(["a cat", ""]).tokens
    fresh.text.configure(0, 3)
    three = fresh.embed(["a cat", ""]).tokens
    assert three.shape == (2, 3 * one.shape[1], one.shape[2])
    assert torch.allclose(three[:, : one.shape[1]], one, atol=1e-6)
    assert torch.allclose(three[0, one.shape[1] :], one[1].repeat(2, 1), atol=1e-6)  # what is not filled is an empty prompt


def test_tokens_of_a_long_prompt_stand_for_their_words(fresh: Backbone) -> None:
    with pytest.raises(UserError, match=r"prompt has 2\d tokens, this model reads 24 .*; --prompt-blocks 2 reads it"):
        fresh.embed([f"{LONG} and a hat"])
    fresh.text.configure(0, 2)
    prompt = f"{LONG} and a hat"
    spans = fresh.text.token_spans(prompt)
    assert len(spans) == len(fresh.text.token_ids(prompt)) == fresh.text.length == 48
    assert [prompt[start:end] for start, end in spans if start < end] == prompt.split()
    assert prompt[slice(*spans[24 + 1])] in prompt.split()[20:]  # behind the mark that begins the second block
    with pytest.raises(UserError, match="which needs --prompt-blocks 4"):
        fresh.embed([f"{LONG} {LONG} {LONG} {LONG}"])


def test_blocks_end_where_words_do() -> None:
    tokens = [(0, (0, 2)), (1, (3, 5)), (2, (5, 7)), (3, (8, 9))]
    assert [[token for token, _ in piece] for piece in in_pieces(tokens, 2)] == [[0], [1, 2], [3]]
    assert in_pieces(tokens[1:3], 1) == [tokens[1:2], tokens[2:3]]  # a word that fits in no block is cut
    assert in_pieces([], 2) == [[]]


def test_an_edit_follows_a_word_of_the_second_block(tiny_folder: Path, picture: Path) -> None:
    values = ["scale.cross_level=1", "scale.self_level=0", "steps=1", "filter=null", "prompt_blocks=2", "clip_skip=0"]
    method = load_method(load_settings("lusd", values, model=str(tiny_folder), device="cpu"))
    prepared = method.prepare(Request(picture, LONG, f"{LONG} and a hat", words=("hat",)))
    assert max(prepared.tokens) > 24
    (result,) = method.edit([prepared])
    assert result.card["settings"]["prompt_blocks"] == 2
    assert result.mask is not None


@pytest.mark.parametrize(("family", "most"), [("sd15", 2), ("sdxl", 1)])
def test_no_family_reads_the_bare_embeddings(tmp_path: Path, family: str, most: int) -> None:
    text = load_backbone(str(save_pipeline(tmp_path, family, layers=3)), "cpu").text
    text.configure(most, 1)
    with pytest.raises(UserError, match=f"leave out at most {most}"):
        text.configure(most + 1, 1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clip_skip": 1}, "--clip-skip 1: this model's text encoder has 2 layers and the one before the last is read"),
        ({"prompt_blocks": 2}, "--prompt-blocks 2: this model reads"),
    ],
)
def test_what_a_family_cannot_do_is_one_line(values: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_method(load_settings("dds", ["timesteps.t_min=400"], model="tinyworld-flow", device="cpu", **values))
