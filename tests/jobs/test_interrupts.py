"""Ctrl-C and SIGTERM: what there is of an image is kept, and replays; a second one does not wait; a library handles none."""

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sdist
from sdist.cli import main
from sdist.distillation.callbacks import ProgressBar
from sdist.distillation.distiller import ScoreDistiller
from sdist.editors.loading import ModelCache
from sdist.files.images import CARD_KEY
from sdist.jobs.session import Session

from ..test_cli import NAME, edit, listed, pixels_of, run_arguments, write_index  # noqa: F401


@pytest.fixture(autouse=True)
def unignored() -> Iterator[None]:
    """Whoever started the tests in the background may have told SIGINT or SIGHUP to be ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def arrive(number: int) -> None:
    """What Python does when a signal comes, now and in this thread; test_jobs and test_cli send real ones to other processes."""
    handler = signal.getsignal(number)
    assert callable(handler)
    handler(number, None)


def send(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: int) -> None:
    """The signals come when all images together have made so many steps."""
    left, before = [*numbers], ProgressBar.on_round

    def on_round(self: ProgressBar, distiller: ScoreDistiller) -> None:
        before(self, distiller)
        while left and int(distiller.step.sum()) >= step:
            arrive(left.pop(0))

    monkeypatch.setattr(ProgressBar, "on_round", on_round)


def told(capsys: pytest.CaptureFixture) -> str:
    """The line about the interrupt, which is no error."""
    text = capsys.readouterr().err
    assert "error" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("sdist: ")]
    return line.removeprefix("sdist: ")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_last_step_is_kept_with_a_card_that_replays(
    picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys, number: int, code: int
) -> None:
    out, handlers = tmp_path / "out", [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        send(patch, 3, number)
        assert edit(picture, tiny_folder, out, "--steps", "6") == code
    partial = out / f"{NAME}_seed0_step3.png"
    assert told(capsys) == f"stopped at step 3 of 6; saved as {partial}"
    assert files(out) == {f"{NAME}_seed0_step3{end}" for end in (".png", "_panel.png", ".json")}
    card = json.loads(Image.open(partial).info[CARD_KEY])
    assert (card["stopped_at"], len(card["attempts"]), card["settings"]["steps"]) == (3, 3, 6)
    assert main(["replay", str(partial)]) == 0
    assert capsys.readouterr().out == "identical\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert edit(picture, tiny_folder, out, "--steps", "6") == 0
    assert files(out) == {f"{NAME}_seed0{end}" for end in (".png", "_panel.png", ".json")}


def test_a_stopped_image_takes_no_others_name_and_goes_with_its_own_request_alone(
    picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch
) -> None:  # fmt: skip
    out, x = tmp_path / "out", tmp_path / "out" / "x.png"
    out.mkdir()
    (out / "x_step3.png").write_text("another's")
    with monkeypatch.context() as patch:
        send(patch, 3, signal.SIGINT)
        assert edit(picture, tiny_folder, x, "--steps", "6") == 130
    stopped = {f"x_2_step3{end}" for end in (".png", "_panel.png", ".json")}
    assert files(out) == {"x_step3.png", *stopped}
    (out / "x_step3.png").unlink()
    for path in out.iterdir():
        path.rename(out / path.name.replace("_2", ""))
    whole, stopped = {f"x{end}" for end in (".png", "_panel.png", ".json")}, {name.replace("_2", "") for name in stopped}
    assert edit(picture, tiny_folder, x, "--steps", "6", "--seed", "1") == 0
    assert files(out) == whole | stopped
    assert edit(picture, tiny_folder, x, "--steps", "6", "--overwrite") == 0
    assert files(out) == whole


def test_what_another_process_left_of_a_stopped_image_goes_when_the_image_is_made_or_there(
    listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch  # noqa: F811
) -> None:  # fmt: skip
    out, before = tmp_path / "out", Session.edit
    arguments = run_arguments(listed, tiny_folder, out, "--steps", "6")
    with monkeypatch.context() as patch:
        send(patch, 3, signal.SIGINT)
        assert main(arguments) == 130
    stopped = {path.name: path.read_bytes() for path in out.iterdir() if "_step" in path.name}
    for name in stopped:
        (out / name).unlink()

    def restore(*given: Any) -> None:
        """What the other one writes after this one has looked."""
        for name, data in stopped.items():
            (out / name).write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "edit", lambda *given: restore() or before(*given))
        assert main(arguments) == 0
    assert stopped
    assert not [name for name in files(out) if "_step" in name]
    restore()
    assert main(arguments) == 0
    assert not [name for name in files(out) if "_step" in name]


def test_what_is_left_of_a_stopped_image_goes_where_an_edit_is_there(
    picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch
) -> None:  # fmt: skip
    for folder, step in (("out", 9), ("other", 3)):
        with monkeypatch.context() as patch:
            send(patch, step, signal.SIGINT)
            edit(picture, tiny_folder, tmp_path / folder, "--steps", "6")
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / "out" / path.name)
    assert len(files(tmp_path / "out")) == 6
    assert edit(picture, tiny_folder, tmp_path / "out", "--steps", "6") == 0
    assert len(files(tmp_path / "out")) == 3


def test_a_stopped_image_of_other_settings_stays_and_is_named(
    picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, caplog
) -> None:  # fmt: skip
    caplog.set_level("INFO", "sdist")
    with monkeypatch.context() as patch:
        send(patch, 3, signal.SIGINT)
        assert edit(picture, tiny_folder, tmp_path / "out", "--steps", "6") == 130
    stopped = files(tmp_path / "out")
    assert edit(picture, tiny_folder, tmp_path / "out", "--steps", "5") == 0
    assert stopped < files(tmp_path / "out")
    assert f"{NAME}_seed0_step3.png stays: it was stopped at step 3, with another value of steps" in caplog.text


def test_a_second_signal_does_not_wait(picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    send(monkeypatch, 2, signal.SIGINT, signal.SIGINT)
    assert edit(picture, tiny_folder, tmp_path / "out", "--steps", "6") == 130
    assert told(capsys) == "interrupted; what was not finished was not saved"
    assert files(tmp_path / "out") == set()


def test_a_signal_before_the_first_step_is_kept_to(picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    send(monkeypatch, 0, signal.SIGTERM)
    assert edit(picture, tiny_folder, tmp_path / "out", "--set", "scale.threshold=10", "--steps", "6") == 143
    assert told(capsys) == "stopped before a step of the images being made was finished: nothing of them was saved"
    assert files(tmp_path / "out") == set()


def test_a_signal_while_nothing_is_edited_ends_at_once(
    tiny_folder: Path, picture: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    def loading(*_: object) -> None:
        arrive(signal.SIGTERM)

    monkeypatch.setattr("sdist.editors.loading.load_backbone", loading)
    monkeypatch.setattr("sdist.jobs.session.model_cache", ModelCache(kept=1))
    assert edit(picture, tiny_folder, tmp_path / "out") == 143
    assert told(capsys) == "interrupted; what was not finished was not saved"


def test_an_interrupted_run_keeps_what_there_is_and_goes_on(
    listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys  # noqa: F811
) -> None:  # fmt: skip
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out", "--parallel", "3", "--steps", "6")
    with monkeypatch.context() as patch:
        send(patch, 10, signal.SIGINT)
        assert main(arguments) == 130
    out, err = capsys.readouterr()
    line = err.splitlines()[-1].removeprefix("sdist: ")
    assert line.startswith(("stopped at step", "stopped; "))
    assert out.startswith("1 of 4 made, 0 already there, 0 failed\n3 not made yet (the same command goes on); ")
    names = set(pixels_of(tmp_path / "out"))
    assert "0_seed0.png" in names  # the first one was alone until it was done
    partial = [name for name in names if "_step" in name and "_panel" not in name]
    assert partial
    assert all(name in line for name in partial)
    assert main(arguments) == 0
    assert "3 of 4 made, 1 already there, 0 failed" in capsys.readouterr().out
    assert main(run_arguments(listed, tiny_folder, tmp_path / "whole", "--parallel", "3", "--steps", "6")) == 0
    whole, resumed = pixels_of(tmp_path / "whole"), pixels_of(tmp_path / "out")
    assert whole.keys() == resumed.keys()
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("is_second", [False, True])
def test_programs_get_the_totals_of_an_interrupted_run_too(
    listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys, is_second: bool  # noqa: F811
) -> None:  # fmt: skip
    write_index(listed, [["0.png", "a cat", "a dog"], ["none.png", "a cat", "a dog"], ["1.png", "a cat", "a dog"]])
    send(monkeypatch, 1, *[signal.SIGINT] * (1 + is_second))
    assert main(run_arguments(listed, tiny_folder, tmp_path / "out", "--json", "--limit", "1")) == 130
    totals = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [totals[key] for key in ("status", "total", "made", "left", "refused")] == ["total", 3, 0, 2, 1]
    assert "none.png" in (tmp_path / "out" / "problems.txt").read_text()


def test_a_signal_after_the_last_step_changes_nothing(picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch) -> None:
    send(monkeypatch, 2, signal.SIGINT)
    assert edit(picture, tiny_folder, tmp_path / "out") == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_as_a_library_no_signal_is_handled(
    picture: Path, tiny_folder: Path, monkeypatch, error: type[BaseException]
) -> None:  # fmt: skip
    def on_step(snapshot: sdist.Snapshot) -> None:
        if snapshot.step == 1:
            raise error

    settings: Sequence[str] = ("scale.threshold=0.01", "scale.cross_level=1", "scale.self_level=0")
    given = {"model": str(tiny_folder), "steps": 3, "settings": settings}
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", lambda number, handler: pytest.fail(f"handles {number}"))
        sdist.edit(picture, "a cat", "a cat wearing a hat", **given)
    with pytest.raises(error):
        sdist.edit(picture, "a cat", "a cat wearing a hat", on_step=on_step, **given)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
