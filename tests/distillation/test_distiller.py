"""The optimization: exact surrogate, batches equal to single edits, rejects that leave no trace, per-image optimizers."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import CSVLogger

from sdist.distillation.distiller import ScoreDistiller, attempts_of, scalars
from sdist.distillation.method import Method
from sdist.distillation.schedule import first_until
from sdist.distillation.trainer import optimize
from sdist.draws import DrawKey, RandomSampler
from sdist.errors import UserError
from sdist.filters import StdQuantile, StdThreshold
from sdist.gammas import ReverseSigmoid
from sdist.losses.cds import CDS
from sdist.losses.dds import DDS
from sdist.losses.sbp import SBP
from sdist.losses.sds import SDS
from sdist.models.base import Backbone
from sdist.normalizers import UnitStd
from sdist.optimizer import OptimizerSettings
from sdist.regularizers.attention_mask import AttentionMask
from sdist.regularizers.source_pull import SourcePull

from ..conftest import Gaussian, gaussian_edit, run_to_end, tiny_edit

IDENTITIES = [(seed, f"picture {seed % 3}") for seed in range(8)]


def lusd(threshold: float = 0.014, steps: int = 6, optimizer: OptimizerSettings | None = None) -> Method:
    """LUSD on the tiny pipeline; the threshold lets about half of its draws pass."""
    return Method(
        SBP(),
        {"attention_mask": AttentionMask(cross_level=1, self_level=0), "source_pull": SourcePull()},
        StdThreshold(threshold=threshold),
        UnitStd(),
        ReverseSigmoid(),
        optimizer or OptimizerSettings(lr=0.5),
        steps,
    )


def distill(network, method: Method, rows: list[int], trainer: bool = False, parallel: int | None = None) -> ScoreDistiller:
    """Edits those of eight pictures, in one batch."""
    edit = tiny_edit(network, 8).narrow(torch.tensor(rows))
    distiller = ScoreDistiller(network, edit, method, [IDENTITIES[i] for i in rows], parallel)
    if trainer:
        optimize(distiller, torch.device("cpu"), (), None)
        return distiller
    return run_to_end(distiller)


def test_a_loss_that_needs_the_graph_goes_with_every_part(tiny: Backbone) -> None:
    """CDS differentiates through the network; what the regularizers keep must not hold on to that."""
    done = distill(tiny, replace(lusd(threshold=100.0, steps=3), loss=CDS()), [0, 1], trainer=True)
    assert done.finished
    assert not torch.equal(done.latents, done.edit.source)
    assert not any(value.requires_grad for state in done.states.regularizers.values() for value in state.tensors.values())


def test_under_ones_own_trainer_it_logs_what_the_loggers_of_a_run_get(tiny: Backbone, tmp_path: Path) -> None:
    """Of three images, two at a time: a row for every round, over the steps that an image has made on average."""
    seen: list[int] = []

    class Watching(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: ScoreDistiller, *_: object) -> None:
            seen.append(module.steps_made)
            assert {"step_norm", "grad_std"} <= trainer.callback_metrics.keys() or not module.steps_made

    distiller = ScoreDistiller(tiny, tiny_edit(tiny, 3), lusd(steps=4), IDENTITIES[:3], parallel=2)
    options = {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, "enable_progress_bar": False}
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    Trainer(**options, logger=logger, log_every_n_steps=1, callbacks=[Watching()], enable_model_summary=False).fit(distiller)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == seen
    assert seen == sorted(seen)
    assert seen[-1] == 4
    assert len(rows) == len(distiller.rounds)
    expected = [scalars(last) for last in distiller.rounds]
    for name in ("grad_std", "timestep", "accepted", "attempts"):
        assert [float(row[name]) for row in rows] == pytest.approx([values[name] for values in expected])


OPTIMIZERS = (
    OptimizerSettings("SGD", 0.5),
    OptimizerSettings("SGD", 0.1, options={"momentum": 0.9}),
    OptimizerSettings("Adam", 0.1, options={"eps": 0.1}),
)  # fmt: skip  (a small eps would amplify rounding)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=("plain", "momentum", "Adam"))
def test_eight_together_equal_eight_alone(tiny: Backbone, optimizer: OptimizerSettings) -> None:
    method = lusd(optimizer=optimizer)
    together = distill(tiny, method, list(range(8)))
    attempts = [attempts_of(together, i) for i in range(8)]
    assert len(set(attempts)) > 1  # pictures advanced at their own pace
    assert max(max(a) for a in attempts) > 1
    for i in range(8):
        alone = distill(tiny, method, [i])
        assert attempts_of(alone, 0) == attempts[i]
        torch.testing.assert_close(alone.latents[0], together.latents[i], rtol=0, atol=1e-4)


@pytest.mark.parametrize("max_attempts", [2, 100])
@pytest.mark.parametrize("parallel", [1, 3, 5, 16, 40])
def test_parallel_changes_the_time_and_not_the_result(tiny: Backbone, parallel: int, max_attempts: int) -> None:
    """Fewer than there are pictures: a queue. More: further draws of a picture, tried ahead. The same draws count."""
    method = lusd(threshold=0.02, steps=4)
    method = replace(method, filter=replace(method.filter, max_attempts=max_attempts))
    pictures = list(range(5))
    plain, other = distill(tiny, method, pictures), distill(tiny, method, pictures, parallel=parallel)
    for i in pictures:
        assert attempts_of(plain, i) == attempts_of(other, i)
        torch.testing.assert_close(plain.latents[i], other.latents[i], rtol=0, atol=1e-4)
    assert sum(len(r.images) for r in plain.rounds) == sum(len(r.images) for r in other.rounds)
    if parallel < 5:
        assert len(other.rounds) > len(plain.rounds)
        assert max(len(set(r.images.tolist())) for r in other.rounds) == parallel
    if parallel > 10:
        assert len(other.rounds) < len(plain.rounds)
    counted = torch.bincount(torch.cat([r.images for r in other.rounds]))
    assert (counted <= other.schedule.tried).all()
    assert parallel > 1 or torch.equal(counted, other.schedule.tried)


@pytest.mark.parametrize("parallel", [1, 3, 16])
def test_a_quantile_is_that_of_an_image_alone(tiny: Backbone, parallel: int) -> None:
    """Whatever is beside it, and whatever was tried ahead in vain; a run that is made again has the same bits."""
    method = replace(lusd(), filter=StdQuantile(level=0.6))
    together = distill(tiny, method, list(range(5)), parallel=parallel)
    assert torch.equal(together.latents, distill(tiny, method, list(range(5)), parallel=parallel).latents)
    attempts = [attempts_of(together, i) for i in range(5)]
    assert all(made[0] == 1 for made in attempts)
    assert 1.2 < sum(map(sum, attempts)) / sum(map(len, attempts)) < 1 / (1 - 0.6)
    for i in range(5):
        alone = distill(tiny, method, [i])
        assert attempts_of(alone, 0) == attempts[i]
        torch.testing.assert_close(alone.latents[0], together.latents[i], rtol=0, atol=1e-4)


@pytest.mark.parametrize("fits", [3, 1, 0])
def test_a_batch_that_does_not_fit_is_halved(tiny: Backbone, fits: int, caplog: pytest.LogCaptureFixture) -> None:
    """With memory for `fits` draws, the run goes on with fewer at once, to the same end; with none it says what was missing."""

    class Small:
        guidance, scales, last_timestep = tiny.guidance, staticmethod(tiny.scales), tiny.last_timestep
        denoiser, layout = tiny.denoiser, tiny.layout

        def estimate(self, z_t, t, text, guidance):
            if len(z_t) > 2 * fits:
                torch.empty(2**50)  # a real failure to allocate
            return tiny.estimate(z_t, t, text)

    edit, identities = tiny_edit(tiny, 5), IDENTITIES[:5]
    distiller = ScoreDistiller(Small(), edit, lusd(), identities)
    if fits == 0:
        message = r"one draw for latents of 8 x 8 does not fit in memory: .*4503599627370496 bytes.* GiB free on cpu"
        run_to_end(distiller)
        assert list(distiller.failures) == [0, 1, 2, 3, 4]
        assert all(re.match(message, reason) for reason in distiller.failures.values())
        return
    run_to_end(distiller)
    assert distiller.schedule.parallel == {3: 2, 1: 1}[fits]
    assert "6 draws at once do not fit in memory, going on with 3" in caplog.text
    torch.testing.assert_close(distiller.latents, distill(tiny, lusd(), list(range(5))).latents, rtol=0, atol=1e-4)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12))
def test_draws_count_up_to_the_first_good_one(draws: list[tuple[int, bool]]) -> None:
    draws = sorted(draws, key=lambda draw: draw[0])
    expected, done = [], set()
    for image, good in draws:
        expected.append(image not in done)
        done |= {image} if good else set()
    images, verdict = torch.tensor([d[0] for d in draws], dtype=torch.long), torch.tensor([d[1] for d in draws], dtype=torch.bool)
    assert first_until(images, verdict).tolist() == expected


def test_the_trainer_and_the_plain_loop_agree(tiny: Backbone) -> None:
    assert torch.equal(distill(tiny, lusd(), [0, 1], trainer=True).latents, distill(tiny, lusd(), [0, 1]).latents)


@pytest.mark.parametrize("loss", [SBP(), DDS(), SDS(), CDS()])
def test_the_surrogate_has_exactly_the_direction_as_gradient(tiny: Backbone, loss: SBP) -> None:
    method = Method(loss, steps=3)
    pair = [ScoreDistiller(tiny, tiny_edit(tiny, 2), method, IDENTITIES[:2]) for _ in range(2)]
    pair[0].training_step(None, 0).backward()
    assert torch.equal(pair[0].latents.grad, pair[1].direction())


def test_the_latents_are_the_only_parameter(tiny: Backbone) -> None:
    distiller = ScoreDistiller(tiny, tiny_edit(tiny, 2), lusd(), IDENTITIES[:2])
    assert [name for name, _ in distiller.named_parameters()] == ["latents"]
    assert list(distiller.state_dict()) == ["latents"]


def test_a_rejected_draw_leaves_no_trace(tiny: Backbone) -> None:
    method = lusd(threshold=1e6, optimizer=OptimizerSettings("Adam", lr=0.1))
    distiller = ScoreDistiller(tiny, tiny_edit(tiny, 2), method, IDENTITIES[:2])
    before = distiller.latents.detach().clone()
    optimizer = distiller.configure_optimizers()
    for attempt in range(3):
        assert distiller.schedule.attempt.tolist() == [attempt, attempt]
        distiller.training_step(None, 0).backward()
        optimizer.step()
    assert torch.equal(distiller.latents, before)
    assert distiller.step.tolist() == [0, 0]
    assert distiller.states.regularizers["attention_mask"].tensors == {}
    assert all(not inner.state for inner in optimizer._optimizers)


def test_exhausted_attempts_use_the_last_draw_and_say_so(tiny: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    method = replace(lusd(steps=2), filter=StdThreshold(threshold=1e6, max_attempts=3))
    distiller = distill(tiny, method, [0])
    assert attempts_of(distiller, 0) == (3, 3)
    assert caplog.text.count("no draw passed in 3 attempts") == 1


@pytest.mark.parametrize("redraw", [False, True])
def test_the_timestep_is_kept_or_redrawn_on_a_reject(tiny: Backbone, redraw: bool) -> None:
    method = replace(lusd(steps=1), filter=StdThreshold(threshold=1e6, max_attempts=6, redraw_timestep=redraw))
    distiller = distill(tiny, method, [0])
    timesteps = {int(r.t[0]) for r in distiller.rounds}
    assert len(timesteps) == (6 if redraw else 1)
    noises = [RandomSampler().noise(DrawKey(0, "x", 0, i), (4,)) for i in range(2)]
    assert not torch.equal(*noises)


def test_lusd_without_mask_pull_filter_and_normalization_is_sbp() -> None:
    network, steps = Gaussian(), 3
    plain = Method(SBP(), steps=steps, optimizer=OptimizerSettings(lr=0.1))
    bare = replace(plain, regularizers={"source_pull": SourcePull(0.0)}, filter=StdThreshold(threshold=0.0))
    ends = []
    for method in (plain, bare):
        distiller = ScoreDistiller(network, gaussian_edit(), method, [(0, "")])
        run_to_end(distiller)
        ends.append(distiller.latents.detach())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-10)


def test_sds_converges_to_the_target_mean() -> None:
    method = Method(SDS(1.0), steps=400, optimizer=OptimizerSettings(lr=0.1))
    edit = gaussian_edit(target=2.0, null=2.0)
    distiller = ScoreDistiller(Gaussian(), edit, method, [(0, "")])
    run_to_end(distiller)
    assert abs(distiller.latents.mean() - 2.0) < 0.05


def test_a_gradient_that_is_not_finite_is_named_and_ends_its_picture_only(tiny: Backbone) -> None:
    edit = tiny_edit(tiny, 2)
    edit.source[1, 0, 0, 0] = float("nan")
    distiller = ScoreDistiller(tiny, edit, lusd(), IDENTITIES[:2])
    run_to_end(distiller)
    assert list(distiller.failures) == [1]
    assert distiller.failures[1].startswith("the latents are not finite: step 0, timestep ")
    assert torch.equal(distiller.latents[0], distill(tiny, lusd(), [0, 1]).latents[0])


def test_released_scale_follows_the_resolution() -> None:
    settings = OptimizerSettings(lr=0.1, scale="released")
    assert settings.step_size(torch.zeros(1, 4, 64, 64)) == pytest.approx(0.048828125)
    assert settings.step_size(torch.zeros(1, 4, 32, 64)) == pytest.approx(0.09765625)
    assert OptimizerSettings(lr=0.1).step_size(torch.zeros(1, 4, 64, 64)) == 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "Adamm"}, "did you mean 'Adam'"),
        ({"name": "LBFGS"}, "unknown optimizer 'LBFGS'"),
        ({"options": {"momentun": 0.9}}, "momentun"),
        ({"lr": -1.0}, "learning rate"),
    ],
)
def test_bad_optimizers_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        OptimizerSettings(**fields)
