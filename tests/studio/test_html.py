"""The studio without a browser: what is shown is text, and errors are one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdist.cli import main
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.files.images import png_bytes
from sdist.studio import handle_edit
from sdist.studio import html as page_html
from sdist.studio.limits import reason

from .samples import a_run, a_timeline, ended

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


def test_prompts_are_text_on_the_stage(picture: Path, tiny_folder: Path) -> None:
    run = a_run(picture, tiny_folder)
    run.request = Request(picture, HOSTILE, "a cat" + HOSTILE, 0)
    run.timeline = a_timeline(1, 3)
    html = page_html.run_stage(run, Image.new("RGB", (32, 32)), 1, 1.0)
    assert "<script>" not in html
    assert html.count("<img ") == 2
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("method", "shown"), [("vimaedit", ["source branch", "target branch, before the mask"]), ("p2p", ["source branch"])]
)
def test_both_branches_stand_beside_the_edit(picture: Path, tiny_folder: Path, method: str, shown: list[str]) -> None:
    """At a step in the middle; where nothing is masked the edit is the target branch. There is no gradient to draw."""
    run = ended(a_run(picture, tiny_folder, methods=[method], target="a dog", overrides="editor.steps=3", steps=0))
    seen = handle_edit.seen(run, 1)
    assert [name for name in page_html.BRANCHES.values() if f"<figcaption>{name}<" in seen["stage"]] == shown
    assert not seen["details"]["visible"]


def test_errors_are_told_without_markup_or_traceback() -> None:
    assert reason(UserError("unknown word '<b>'")) == "unknown word '<b>'"
    assert "&lt;b&gt;" in page_html.problem("unknown word '<b>'")
    assert page_html.problem("") == ""
    assert reason(RuntimeError("/secret/path")) == "this failed (RuntimeError); the terminal shows where"


@pytest.mark.parametrize("back", [{}, {"keep_background": True, "output_size": "source"}], ids=["alone", "put back"])
def test_a_picture_taken_from_the_timeline_is_replayed_bit_for_bit(
    picture: Path, tiny_folder: Path, tmp_path: Path, capsys, back: dict
) -> None:
    run = ended(a_run(picture, tiny_folder, steps=4, size="16x16" if back else "native", **back))
    assert run.picture(4).size == (32, 32)
    card = page_html.card_at(run, 2, 1.0)
    (tmp_path / "step2.png").write_bytes(png_bytes(run.picture(2), json.dumps(card)))
    assert main(["replay", str(tmp_path / "step2.png"), "--images", str(picture.parent)]) == 0
    assert capsys.readouterr().out == "identical\n"
    assert page_html.card_at(run, 4, 0.5)["strength"] == 0.5
    whole = run.result.image
    run.thin()
    assert np.array_equal(np.asarray(run.picture(4)), np.asarray(whole))
