"""When images of a queue begin, and in which order they are done."""

import random

import pytest
import torch

from sdist.distillation.schedule import Schedule, first_until


def run(schedule: Schedule, accept: float = 1.0) -> tuple[list[int], list[int]]:
    """The images in the order in which they were done, and how many were in each round; a share of all draws passes."""
    done, flights = list[int](), list[int]()
    while len(schedule.active):
        images, attempt = schedule.candidates()
        if not len(images):
            continue
        rows = zip(images.tolist(), schedule.step[images].tolist(), attempt.tolist(), strict=True)
        good = torch.tensor([random.Random(repr(row)).random() < accept for row in rows])
        schedule.advance(images, first_until(images, good), good)
        flights.append(len(images.unique()))
        done += [i for i in images.unique().tolist() if schedule.step[i] == schedule.steps and i not in done]
    return done, flights


@pytest.mark.parametrize("accept", [1.0, 0.4])
def test_the_first_image_is_done_as_early_as_one_alone(accept: float) -> None:
    _, alone = run(Schedule(1, 12, 4, min_parallel=2), accept)
    done, flights = run(Schedule(8, 12, 4, min_parallel=2, staggered=True), accept)
    assert flights[: len(alone)] == [1] * len(alone)
    assert done[0] == 0
    assert sorted(done) == [*range(8)]
    assert max(flights) == 4


def test_the_others_come_one_by_one() -> None:
    schedule, ends = Schedule(6, 12, 4, min_parallel=2, staggered=True), dict[int, int]()
    for number in range(200):
        images, _ = schedule.candidates()
        good = torch.ones(len(images), dtype=torch.bool)
        schedule.advance(images, first_until(images, good), good)
        ends |= {i: number for i in range(6) if schedule.step[i] == 12 and i not in ends}
    assert [ends[i] - ends[0] for i in range(1, 6)] == [12, 15, 18, 21, 24]


def test_without_staggering_all_begin_together() -> None:
    _, flights = run(Schedule(8, 12, 4))
    assert flights == [4] * 24


@pytest.mark.parametrize("staggered", [False, True])
def test_an_image_that_is_refused_is_never_tried(staggered: bool) -> None:
    asked = list[int]()

    def admit(image: int) -> bool:
        asked.append(image)
        return image % 3 != 0

    schedule = Schedule(7, 4, 2, admit=admit, staggered=staggered)
    done, _ = run(schedule, 0.5)
    assert (sorted(done), asked) == ([1, 2, 4, 5], [*range(7)])
    assert schedule.step[::3].tolist() == schedule.tried[::3].tolist() == [0, 0, 0]
    assert schedule.left.nonzero()[:, 0].tolist() == [0, 3, 6]


def test_nobody_is_asked_about_an_image_before_its_turn() -> None:
    schedule = Schedule(5, 3, 2, admit=lambda image: True)
    schedule.candidates()
    assert schedule.begun.tolist() == [True, True, False, False, False]


def test_a_first_image_that_fails_holds_nobody_up() -> None:
    schedule = Schedule(3, 5, 3, min_parallel=2, staggered=True)
    schedule.candidates()
    schedule.failed[0] = True
    assert run(schedule)[0] == [1, 2]
