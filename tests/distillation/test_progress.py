"""What a log shows of a run: lines at every tenth, and warnings that name their image."""

import logging
import sys

import pytest
import torch
from tqdm.auto import tqdm

from sdist.distillation.distiller import ScoreDistiller
from sdist.distillation.progress import Lines, steps_bar

from ..conftest import run_to_end, tiny_edit
from .test_distiller import lusd


@pytest.fixture(autouse=True)
def verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("sdist"), "level", logging.INFO)
    logging.getLogger("sdist").manager._clear_cache()


def test_a_log_gets_a_line_at_every_tenth(capsys) -> None:
    with steps_bar(178, "edit") as bar:
        for _ in range(178):
            bar.update()
            bar.set_postfix(sd="0.01")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == [f"{-(-178 * part // 10)}/178" for part in range(1, 11)]
    assert all(line.startswith("edit: ") and "steps" in line for line in lines)
    assert "left" in lines[0]
    assert lines[-1] == "edit: 178/178 steps, sd 0.01"


def test_a_slow_run_says_sooner_that_it_lives(capsys, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    bar = Lines(100, "edit", "step")
    for _ in range(4):
        now[0] += 20
        bar.update()
    assert capsys.readouterr().err.splitlines() == [
        "edit: 2/100 steps, about 32 min 40 s left",
        "edit: 4/100 steps, about 32 min 0 s left",
    ]


def test_a_terminal_gets_a_bar_and_quiet_nothing(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(steps_bar(3, "edit"), tqdm)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    monkeypatch.setattr(logging.getLogger("sdist"), "level", logging.WARNING)
    logging.getLogger("sdist").manager._clear_cache()
    with steps_bar(3, "edit") as bar:
        bar.update(3)
    assert "3/3" not in capsys.readouterr().err


def test_draws_that_are_all_rejected_are_said_early_and_once(tiny, caplog) -> None:
    edit = tiny_edit(tiny, 2)
    method = lusd(threshold=1e6, steps=2)
    names = ["a.png, seed 0", "b.png, seed 0"]
    run_to_end(ScoreDistiller(tiny, edit.narrow(torch.tensor([0, 1])), method, [(0, "a"), (0, "b")], names=names))
    for name in names:
        (line,) = [
            r.getMessage() for r in caplog.records if "passed the filter" in r.getMessage() and r.getMessage().startswith(name)
        ]
        assert f"{name}: 0 of the first 60 draws passed the filter" in line
        assert "scale.threshold" in line
        assert len([r for r in caplog.records if r.getMessage().startswith(f"{name}, step 0: no draw passed in 100")]) == 1


def test_a_usual_share_of_rejects_is_no_news(tiny, caplog) -> None:
    run_to_end(ScoreDistiller(tiny, tiny_edit(tiny, 2), lusd(), [(0, "a"), (0, "b")]))
    assert "passed the filter" not in caplog.text
