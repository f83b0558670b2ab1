"""Editors of instructions in the studio: one prompt, which says what to do."""

import json
from pathlib import Path

import pytest

from sdist.errors import UserError
from sdist.studio.bench import Bench
from sdist.studio.edits import Run, Work
from sdist.studio.form import EditOrder, runs_of
from sdist.studio.handle_edit import progress
from sdist.studio.handle_source import ask
from sdist.studio.html import run_stage
from sdist.studio.limits import Limits, Offer, plain_overrides
from sdist.studio.plot import curves
from sdist.studio.restore import restored
from sdist.studio.server import methods_here
from sdist.studio.visitor import Visitor

from ..conftest import save_tiny_pipeline

INSTRUCTION = "a red hat in the snow"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("instructed"), in_channels=8)


def a_run(picture: Path, folder: Path, **changes: object) -> Run:
    given = {"source": "", "target": INSTRUCTION, "methods": ["lime"], "steps": 4, "model": str(folder)}
    return runs_of(EditOrder(image=picture, **{**given, **changes}), Limits())[0]


def ended(run: Run, limits: Limits = Limits()) -> Work:  # noqa: B008 (it is frozen)
    work = Work([run], limits, lambda run: None)
    work()
    return work


def test_methods_that_read_an_instruction_are_offered() -> None:
    assert {"lime", "lime_released", "instruct_pix2pix", "lusd"} <= {*methods_here("tinyworld-instruct")}
    assert "sdedit" not in methods_here("tinyworld-instruct")


def test_the_one_prompt_is_the_instruction_and_the_run_is_watched(picture: Path, folder: Path) -> None:
    run = a_run(picture, folder)
    assert ended(run).problem == ""
    assert (run.request.source, run.request.target, run.request.instruction) == ("", "", INSTRUCTION)
    assert (run.timeline.made, run.timeline.steps) == (4, 4)
    assert run.result.mask is not None
    assert run.timeline.frames[-1].mask is not None
    assert INSTRUCTION in run_stage(run, run.picture(4), 4, 1.0)
    assert progress(run).startswith("lime, seed 0: done, ")
    assert curves(run.timeline) == ""
    card = restored(json.dumps(run.card), methods_here("tinyworld-instruct"))
    assert (card.target, card.steps) == (INSTRUCTION, 0)


def test_it_can_be_stopped(picture: Path, folder: Path) -> None:
    run = a_run(picture, folder)
    work = Work([run], Limits(), lambda run: work.stop.set())
    work()
    assert run.timeline.made < 4
    assert f"stopped after {run.timeline.made} of 4 steps" in progress(run)


def test_limits_hold_before_anything_is_computed(picture: Path, folder: Path) -> None:
    assert "size 32 x 32: this studio edits up to 16 pixels per side" in ended(a_run(picture, folder), Limits(side=16)).problem
    assert plain_overrides("editor.guidance_scale=3") == ["editor.guidance_scale=3"]
    for line in ("editor.name=sdedit", "editor={name: sdedit}", "model=sd15"):
        with pytest.raises(UserError, match="unknown setting"):
            plain_overrides(line)


@pytest.mark.parametrize(
    ("methods", "label", "shown"),
    [
        (["lusd"], "What should be there", True),
        (["lime", "instruct_pix2pix"], "What to do", False),
        (["lusd", "lime"], "What should be there, or what to do", True),
        ([], "What should be there", True),
    ],
)
def test_prompts_say_what_they_are_for(methods: list[str], label: str, shown: bool, tmp_path: Path) -> None:
    answer = ask(Visitor(Offer(Limits(), ["lusd"], ["tinyworld"], tmp_path, Bench(1))), methods)
    assert (answer["source"]["visible"], answer["target"]["label"]) == (shown, label)
