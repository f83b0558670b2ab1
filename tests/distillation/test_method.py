"""The algorithm without Lightning: a loop of one's own, the next level of a draw, losses that keep something of an image."""

from dataclasses import dataclass, replace

import pytest
import torch

from sdist.diffusion import Latents
from sdist.distillation.distiller import ScoreDistiller, attempts_of
from sdist.distillation.method import Method
from sdist.draws import DrawKey
from sdist.filters import StdQuantile, StdThreshold
from sdist.gammas import ReverseSigmoid
from sdist.losses.cds import CDS
from sdist.losses.sbp import SBP
from sdist.models.base import Backbone
from sdist.normalizers import UnitStd
from sdist.optimizer import OptimizerSettings
from sdist.prediction import Edit, Prediction
from sdist.regularizers.difference_mask import DifferenceMask
from sdist.regularizers.source_pull import SourcePull
from sdist.timesteps import Annealed, Descending, Uniform

from ..conftest import Gaussian, gaussian_edit, run_to_end, tiny_edit

IDENTITIES = [(0, "a"), (0, "b"), (1, "a")]


def method(threshold: float = 0.014, steps: int = 5) -> Method:
    """Of every slot a part; the threshold lets about half of the draws pass."""
    return Method(
        SBP(),
        {"difference_mask": DifferenceMask(), "source_pull": SourcePull()},
        StdThreshold(threshold=threshold),
        UnitStd(),
        ReverseSigmoid(),
        OptimizerSettings(lr=0.5),
        steps,
    )


def loop(network, edit: Edit, method: Method, identities: list[tuple[int, str]]) -> tuple[Latents, list[list[int]]]:
    """Score distillation as a plain loop over draws: the edited latents, and how many draws each step of each image took."""
    z, states = edit.source.clone(), method.states(len(identities))
    attempts = [[0] for _ in identities]
    while going := [i for i, made in enumerate(attempts) if len(made) <= method.steps]:
        keys = [DrawKey(*identities[i], len(attempts[i]) - 1, attempts[i][-1]) for i in going]
        images = torch.tensor(going)
        draw = method.draw(network, keys, z[images])
        step = method.direction(network, z[images], edit.narrow(images), draw, images, states)
        z[images[step.rows]] -= method.optimizer.step_size(z) * step.direction
        for i in going:
            attempts[i][-1] += 1
        for i in images[step.rows].tolist():
            attempts[i].append(0)
    return z, [made[:-1] for made in attempts]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": CDS()},
        {"timesteps": Annealed()},
        {"filter": None},
        {"filter": StdThreshold(redraw_timestep=True)},
        {"filter": StdQuantile()},
    ],
    ids=["whole", "graph", "annealed", "no filter", "redrawn", "quantile"],
)
def test_a_loop_of_ones_own_agrees_with_the_distiller(tiny: Backbone, changes: dict) -> None:
    own = replace(method(), **changes)
    distiller = run_to_end(ScoreDistiller(tiny, tiny_edit(tiny, 3), own, IDENTITIES))
    z, attempts = loop(tiny, tiny_edit(tiny, 3), own, IDENTITIES)
    assert [tuple(made) for made in attempts] == [attempts_of(distiller, i) for i in range(3)]
    torch.testing.assert_close(z, distiller.latents.detach(), rtol=0, atol=1e-4)


def test_one_image_in_a_loop_of_ones_own_has_the_same_bits(tiny: Backbone) -> None:
    distiller = run_to_end(ScoreDistiller(tiny, tiny_edit(tiny), method(), IDENTITIES[:1]))
    z, _ = loop(tiny, tiny_edit(tiny), method(), IDENTITIES[:1])
    assert torch.equal(z, distiller.latents)


def test_a_draw_knows_the_level_that_comes_next() -> None:
    network, z = Gaussian(), gaussian_edit(2).source
    keys = [DrawKey(0, "a", 3, 1), DrawKey(0, "a", 9, 0)]  # one on its way, one at its last step
    descending = Method(SBP(), steps=10, timesteps=Descending())
    draw = descending.draw(network, keys, z)
    assert draw.t.tolist() == [699, 100]
    alpha, sigma = network.scales(torch.tensor([599]), (4, 4))
    assert (draw.next_alpha.tolist(), draw.next_sigma.tolist()) == ([float(alpha), 1], [float(sigma), 0])
    assert draw.narrow(torch.tensor([0])).next_sigma.tolist() == [float(sigma)]
    uniform = replace(descending, timesteps=Uniform()).draw(network, keys, z)
    assert (uniform.next_alpha.tolist(), uniform.next_sigma.tolist()) == ([1, 1], [0, 0])


# --- losses that keep something of each image --------------------------------------------------------------------------


@dataclass(frozen=True)
class Remembering(SBP):
    """SBP's gradient, and half of the gradient of the last accepted step."""

    def gradient(self, p: Prediction) -> Latents:
        kept = p.state.tensor("gradient", p.latents)[p.images]
        return super().gradient(p) + 0.5 * kept

    def accepted(self, gradient: Latents, p: Prediction) -> None:
        p.state.tensor("gradient", gradient)[p.images] = gradient


def remembering(steps: int = 4) -> Method:
    return replace(method(threshold=0.02, steps=steps), loss=Remembering(), normalizer=None)


def test_what_a_loss_keeps_of_an_image_does_not_depend_on_company(tiny: Backbone) -> None:
    together = run_to_end(ScoreDistiller(tiny, tiny_edit(tiny, 3), remembering(), IDENTITIES, parallel=8, min_parallel=8))
    attempts = [attempts_of(together, i) for i in range(3)]
    assert max(max(made) for made in attempts) > 1  # some draws were rejected, and ahead of others some tried in vain
    for i in range(3):
        one = tiny_edit(tiny, 3).narrow(torch.tensor([i]))
        alone = run_to_end(ScoreDistiller(tiny, one, remembering(), [IDENTITIES[i]]))
        assert attempts_of(alone, 0) == attempts[i]
        torch.testing.assert_close(alone.latents[0], together.latents[i], rtol=0, atol=1e-4)
    plain = run_to_end(ScoreDistiller(tiny, tiny_edit(tiny, 3), replace(remembering(), loss=SBP()), IDENTITIES))
    assert not torch.allclose(plain.latents, together.latents, atol=1e-3)


def test_a_rejected_draw_leaves_no_trace_in_what_a_loss_keeps(tiny: Backbone) -> None:
    rejecting = replace(remembering(), filter=StdThreshold(threshold=1e6))
    distiller = ScoreDistiller(tiny, tiny_edit(tiny, 3), rejecting, IDENTITIES)
    distiller.direction()
    assert not distiller.states.loss.tensors["gradient"].any()
