"""The studio without a browser: edits that are made in a thread, one at a time."""

import threading
from pathlib import Path

import numpy as np
import pytest

from sdist.errors import UserError
from sdist.studio.bench import Bench
from sdist.studio.limits import Limits

from ..browser import wait_until
from .samples import a_run, ended, work_of


def test_an_edit_is_watched_to_its_end(picture: Path, tiny_folder: Path) -> None:
    run, begun = a_run(picture, tiny_folder), []
    work_of(run, begins=begun.append)()
    assert begun == [run]
    assert run.timeline.made == 3
    assert run.picture(3) is run.result.image
    assert run.card["job"]["image"] == picture.name
    assert run.before((32, 32)).size == (32, 32)
    assert run.thumbnail.size == run.result.image.size


def test_what_a_thinned_run_shows_is_decoded_from_its_last_step(picture: Path, tiny_folder: Path) -> None:
    run = ended(a_run(picture, tiny_folder))
    whole = run.result.image
    run.thin()
    assert run.picture(3) is not run.result.image
    assert np.array_equal(np.asarray(run.picture(3)), np.asarray(whole))


@pytest.mark.parametrize("how", ["stop", "unwanted"])
def test_an_edit_ends_early(picture: Path, tiny_folder: Path, how: str) -> None:
    away = threading.Event()
    run, left_out = a_run(picture, tiny_folder, steps=900), a_run(picture, tiny_folder)
    work = work_of(run, left_out, unwanted=away.is_set)
    work._begins = lambda run: (work.stop if how == "stop" else away).set()
    work()
    assert 0 < len(run.result.attempts) < 900
    assert run.timeline.frames[-1].step == len(run.result.attempts)
    assert (work.ended, work.problem, left_out.result) == (True, "", None)


def test_an_edit_that_fails_leaves_the_others(picture: Path, tiny_folder: Path) -> None:
    bad, good = a_run(picture, tiny_folder, target="cat " * 40), a_run(picture, tiny_folder, seed=1)
    work = work_of(bad, good)
    work()
    assert good.result is not None
    assert work.problem.startswith("lusd, seed 0: ")
    assert "this model reads 24" in work.problem
    small = work_of(a_run(picture, tiny_folder), a_run(picture, tiny_folder, seed=1), limits=Limits(side=16))
    small()
    assert small.problem == "size 32 x 32: this studio edits up to 16 pixels per side (--max-side)"


def test_one_edit_at_a_time_in_the_order_of_asking() -> None:
    bench, order, gates = Bench(2), [], [threading.Event() for _ in range(3)]

    def task(number: int):
        def do() -> None:
            order.append(number)
            gates[number].wait(10)

        return do

    tasks = [task(number) for number in range(3)]
    for each in tasks:
        bench.ask(each)
    with pytest.raises(UserError, match="2 edits are waiting already"):
        bench.ask(task(3))
    wait_until(lambda: order == [0])
    assert [bench.ahead(each) for each in tasks] == [0, 1, 2]
    assert [bench.leave(each) for each in tasks[:2]] == [False, True]
    for gate in gates:
        gate.set()
    wait_until(lambda: order == [0, 2])
    wait_until(lambda: not bench._line)
    bench.ask(tasks[1])  # the thread begins anew
    wait_until(lambda: order == [0, 2, 1])


@pytest.mark.parametrize("method", ["vimaedit", "p2p"])
def test_two_branches_are_watched_with_their_mask(picture: Path, tiny_folder: Path, method: str) -> None:
    run = a_run(picture, tiny_folder, methods=[method], steps=0, overrides="editor.steps=3")
    work = work_of(run)
    work()
    assert (work.problem, run.timeline.made, run.timeline.steps) == ("", 3, 3)
    assert all((frame.mask is not None) == (method == "vimaedit") for frame in run.timeline.frames[1:])
    whole = run.result.image
    run.thin()
    assert np.array_equal(np.asarray(run.picture(3)), np.asarray(whole))
