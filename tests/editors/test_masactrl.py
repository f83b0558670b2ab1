"""MasaCtrl through the loaded method and the command line, on a tiny network of Stable Diffusion's layout."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.hooks.mutual import MutualSelfAttention
from sdist.models.base import Backbone
from sdist.prediction import NULL, SOURCE_NULL, SOURCE_SOURCE, TARGET

from ..conftest import walk_together

QUICK = ("editor.steps=4", "size=keep")


def walked(model: Backbone, requests: Sequence[Request], *overrides: str) -> torch.Tensor:
    """The edited latents of those requests, all at once."""
    return walk_together(LoadedMethod(load_settings("masactrl", [*QUICK, *overrides]), model), requests)


@pytest.fixture
def requests(picture: Path) -> list[Request]:
    return [Request(picture, "a cat", "a dog"), Request(picture, "a cat", "a cat wearing a hat")]


def test_the_source_is_read_after_the_first_steps_in_fine_layers(tiny: Backbone, requests: list[Request]) -> None:
    plain = walked(tiny, requests, "editor.start=1")
    assert torch.equal(walked(tiny, requests, "editor.start=1", "editor.self_level=1"), plain)
    assert len({walked(tiny, requests, f"editor.start={start}").sum().item() for start in (0, 0.5, 1)}) == 3
    assert len({walked(tiny, requests, f"editor.self_level={level}").sum().item() for level in (0, 1)}) == 2


def test_company_changes_nothing(tiny: Backbone, requests: list[Request]) -> None:
    together = walked(tiny, requests, "editor.start=0")
    for row, request in enumerate(requests):
        alone = walked(tiny, [request], "editor.start=0")
        torch.testing.assert_close(alone, together[row : row + 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("guidance", "read"), [(1, SOURCE_SOURCE), (2, SOURCE_NULL)])
def test_the_null_row_reads_the_sources_if_it_has_one(guidance: int, read: object) -> None:
    editor = load_settings("masactrl", [f"editor.source_guidance={guidance}"]).editor
    assert [len(editor.plan(k).hooks) for k in (0, 3, 4, 49)] == [0, 0, 1, 1]
    (hook,) = editor.plan(4).hooks
    assert isinstance(hook, MutualSelfAttention)
    assert hook.reads == {TARGET: SOURCE_SOURCE, NULL: read}


def test_bad_input_is_one_line(tiny: Backbone, requests: list[Request], picture: Path) -> None:
    with pytest.raises(UserError, match=r"start is a part of the steps, 0\.\.1, got 2"):
        load_settings("masactrl", ["editor.start=2"])
    with pytest.raises(UserError, match=r"self_level -1: the decoder's self-attention of this model is at levels \[0, 1\]"):
        walked(tiny, requests, "editor.self_level=-1")
    with pytest.raises(UserError, match="prompt has 33 tokens, this model reads 24"):
        walked(tiny, [Request(picture, "a cat", "a cat wearing " + "a red hat and " * 7)])
    with pytest.raises(UserError, match="masactrl reads no words"):
        walked(tiny, [Request(picture, "a cat", "a dog", words=("dog",))])


def test_the_command_makes_an_image_that_its_card_replays(
    tiny_folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = ("edit", picture, "--source", "a cat", "--target", "a dog", "--method", "masactrl", "--model", tiny_folder)
    assert main([*map(str, edit), "--output", str(tmp_path), "--quiet", "--set", *QUICK]) == 0
    assert main(["replay", str(tmp_path / "picture_masactrl_a-dog_seed0.png"), "--quiet"]) == 0
    assert "identical" in capsys.readouterr().out
