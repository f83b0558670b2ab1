"""Edits that end by themselves: where, on what that depends, and what is left of it."""

from pathlib import Path

import pytest
import torch

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.distillation.distiller import ScoreDistiller, attempts_of
from sdist.distillation.method import Method
from sdist.distillation.schedule import Schedule, first_until
from sdist.distillation.stop import StopSettings
from sdist.errors import UserError
from sdist.losses.dds import DDS
from sdist.losses.velocity_delta import VelocityDelta
from sdist.optimizer import OptimizerSettings
from sdist.timesteps import Annealed, Descending

from ..conftest import Gaussian, gaussian_edit, read_json, run_to_end

STOP = StopSettings(share=0.3, window=5)
NAMES = [(0, "a"), (0, "b"), (3, "c")]


def edited(images: list[int], stop: StopSettings, steps: int = 60, parallel: int | None = None) -> ScoreDistiller:
    """The analytic predictor's edits come nearer to the target by a factor of 0.9 or so with each step."""
    edit = gaussian_edit(3).narrow(torch.tensor(images))
    method = Method(DDS(1.0), steps=steps, optimizer=OptimizerSettings(lr=0.1), stop=stop)
    names = [NAMES[image] for image in images]
    return run_to_end(ScoreDistiller(Gaussian(), edit, method, names, parallel))


def test_it_ends_where_the_growth_of_a_window_is_small_beside_the_largest() -> None:
    sizes, stop = [0.0, 1.0, 3.0, 4.0, 4.9, 5.2, 6.9], StopSettings(share=0.5, window=2)  # growth 3, 3, 1.9, 1.2, 2
    assert [stop.ends(sizes[:n]) for n in range(8)] == [False] * 6 + [True, False]
    assert not any(StopSettings(window=2).ends(sizes[:n]) for n in range(8))
    assert not stop.ends([0.0] * 9)


def test_until_its_end_it_is_the_edit_without_one() -> None:
    whole = edited([0, 1, 2], StopSettings())
    assert whole.step.tolist() == [60] * 3
    for image in range(3):
        ended = edited([image], STOP)
        made = int(ended.step[0])
        assert 5 < made < 60
        same = edited([image], StopSettings(), steps=made)
        assert torch.equal(ended.latents, same.latents)
        assert attempts_of(ended, 0) == attempts_of(whole, image)[:made]
        sizes = whole.states.sizes[image]
        assert [STOP.ends(sizes[:n]) for n in range(made + 1)] == [False] * made + [True]


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_an_image_ends_where_it_does_alone(parallel: int) -> None:
    together = edited([0, 1, 2], STOP, parallel=parallel)
    alone = [edited([image], STOP) for image in range(3)]
    assert together.step.tolist() == [int(one.step[0]) for one in alone]
    torch.testing.assert_close(together.latents, torch.cat([one.latents for one in alone]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("parallel", [1, 2])
def test_one_that_ends_early_lets_the_next_begin(parallel: int) -> None:
    schedule, order = Schedule(4, 12, parallel, staggered=True), list[int]()
    for _ in range(100):
        images, _ = schedule.candidates()
        good = torch.ones(len(images), dtype=torch.bool)
        schedule.advance(images, first_until(images, good), good)
        schedule.finish(images.unique()[schedule.step[images.unique()] == 2])
        order += [image for image in schedule.done.nonzero()[:, 0].tolist() if image not in order]
    assert (order, schedule.step.tolist()) == ([0, 1, 2, 3], [2] * 4)


def test_a_run_keeps_it_as_whole_and_its_card_makes_it_again(tiny_folder: Path, picture: Path, tmp_path: Path) -> None:
    command = [
        "edit",
        str(picture),
        "--source",
        "a cat",
        "--target",
        "a cat wearing a hat",
        "--model",
        str(tiny_folder),
        "--quiet",
    ]
    options = ["--method", "dds", "--steps", "12", "--set", "stop.share=0.9", "stop.window=3"]
    assert main([*command, *options, "--output", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*_seed0.json")
    card = read_json(path)
    assert 4 <= len(card["attempts"]) < 12
    assert card["settings"]["steps"] == 12
    assert "stopped_at" not in card
    assert main(["replay", str(path.with_suffix(".png")), "--quiet"]) == 0


def test_what_it_cannot_do_is_one_line() -> None:
    for loss, timesteps in ((DDS(), Annealed()), (VelocityDelta(), Descending())):
        with pytest.raises(UserError, match="these timesteps walk down to a last level, where the edit ends"):
            Method(loss, timesteps=timesteps, stop=STOP)
    for share in (1.0, -0.1):
        with pytest.raises(UserError, match=rf"stop\.share must be within 0\.\.1, not 1, got {share:g}"):
            StopSettings(share=share)
    with pytest.raises(UserError, match=r"--set stop\.window=0: stop\.window must be at least 1, got 0$"):
        load_settings("dds", ["stop.window=0", "stop.share=0.5"])
