"""What score distillation asks of a model and gives back, whatever its parts are."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdist import prompts
from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.base import Observers
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.filters import Filter
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone


@dataclass(frozen=True)
class Strict(Filter):
    """A filter of a package's own, which tells much smaller gradients from nothing than rounding leaves."""

    def threshold_at(self, attempt: torch.Tensor) -> torch.Tensor:
        return torch.full(attempt.shape, 1e-9)

    def accept(self, gradient: torch.Tensor, attempt: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(attempt), dtype=torch.bool)


def test_a_format_is_measured_against_any_filter(tiny_folder: Path) -> None:
    editor = replace(load_settings("lusd").editor, filter=Strict())
    with pytest.raises(UserError, match="bf16"):
        editor.adapt(load_backbone(str(tiny_folder), "cpu"), "bf16")


def test_a_mask_image_of_one_gives_no_mask_to_another(tiny: Backbone, picture: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / "mask.png")
    dds = LoadedMethod(load_settings("dds", ["steps=1"]), tiny)
    plain = Request(picture, "a cat", "a dog")
    masked = replace(plain, mask=tmp_path / "mask.png")
    alone, given = (dds.edit([dds.prepare(request)], Observers())[0] for request in (plain, masked))
    together = dds.edit([dds.prepare(request) for request in (plain, masked)], Observers())
    assert (alone.mask, together[0].mask) == (None, None)
    assert torch.equal(together[1].mask, given.mask)


BOTH = "regularizers.attention_mask.maps=both"


@pytest.mark.parametrize(
    ("target", "words", "followed"),
    [
        ("a cat", (), (["hat"], [])),  # what goes stands in the source alone
        ("a dog wearing a hat", (), (["cat"], ["dog"])),
        ("a dog wearing a hat", ("hat",), (["hat"], ["hat"])),
    ],
)
def test_a_mask_of_both_branches_follows_words_of_either_prompt(
    tiny: Backbone, picture: Path, caplog: pytest.LogCaptureFixture, target: str, words: tuple, followed: tuple
) -> None:
    loaded = LoadedMethod(load_settings("lusd", [BOTH, "steps=1", "filter=null"]), tiny)
    prepared = loaded.prepare(Request(picture, "a cat wearing a hat", target, words=words))
    spans = [tiny.text.token_spans(prompt) for prompt in ("a cat wearing a hat", target)]
    edit = loaded.editor.encode(tiny, [prepared])
    for focus, one, prompt, named in zip(
        (edit.source_focus, edit.focus), spans, ("a cat wearing a hat", target), followed, strict=True
    ):
        found = [prompt[start:end] for (start, end), on in zip(one, focus[0].tolist(), strict=True) if on]
        assert found == named
    with caplog.at_level("INFO", logger="sdist"):
        assert loaded.edit([prepared], Observers())[0].mask is not None
    assert f"the mask follows {', '.join([*followed[0], *followed[1]])}" in caplog.text


def test_a_word_of_neither_prompt_is_one_line(tiny: Backbone, picture: Path) -> None:
    request = Request(picture, "a cat", "a dog", words=("house",))
    for overrides, message in (
        ([BOTH], "word 'house' is in neither prompt; they have a, cat, dog"),
        ([], "unknown word 'house'"),
    ):
        with pytest.raises(UserError, match=message):
            LoadedMethod(load_settings("lusd", overrides), tiny).prepare(request)


@pytest.mark.parametrize(("method", "more"), [("lusd", (BOTH, "steps=3", "filter=null")), ("vimaedit", ("editor.steps=2",))])
def test_a_card_keeps_the_tokens_of_the_source_whatever_finds_its_nouns_later(
    tiny_folder: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    method: str,
    more,
) -> None:
    edit = ("edit", picture, "--source", "a cat wearing a hat", "--target", "a cat", "--method", method, "--model", tiny_folder)
    assert main([*map(str, edit), "--output", str(tmp_path), "--quiet", "--set", *more]) == 0
    monkeypatch.setattr(prompts, "default_tagger", lambda: ("none", lambda words: ["DT"] * len(words)))
    assert main(["replay", str(next(tmp_path.glob("*_seed0.png"))), "--quiet"]) == 0
    assert "identical" in capsys.readouterr().out
