"""The network call: which rows it asks for, in which order, and how guided branches are made of them."""

from contextlib import nullcontext

import pytest
import torch

from sdist.diffusion import Estimate, add_noise, cfg
from sdist.prediction import NULL, SOURCE, SOURCE_NULL, SOURCE_SOURCE, TARGET, Branch, Text, call, predict, rows_of

from .conftest import MEANS, Gaussian, gaussian_edit, make_draw, progress

GUIDED, GUIDED_SOURCE = TARGET.guided(7.5), SOURCE_SOURCE.guided(3.0)


class Listening(Gaussian):
    """Keeps what it is asked; embedded guidance moves the mean, so that its scale can be seen."""

    def __init__(self, guidance: str = "cfg") -> None:
        super().__init__()
        self.guidance, self.asked = guidance, list[tuple[torch.Tensor, ...]]()

    def estimate(self, z_t, t, text, guidance=None) -> Estimate:
        self.asked.append((z_t, t, text.tokens[:, 0, 0], guidance))
        return super().estimate(z_t, t, text if guidance is None else Text(text.tokens * guidance[:, None, None]))


class Rows:
    """A hook that keeps the rows of each branch."""

    def open(self, network, rows):
        return nullcontext(lambda size: (dict(rows), size))


def asked(network: Listening, branches: list[Branch], hooks: tuple = ()):
    """Three images of two noisy latents, ones and twos, through the network."""
    noisy = {"edit": torch.ones(3, 4, 8, 6).double(), "source": torch.full((3, 4, 8, 6), 2.0).double()}
    return call(network, noisy, torch.tensor([10, 500, 900]), gaussian_edit(3).text, branches, hooks)


@pytest.mark.parametrize(
    ("branches", "rows"),
    [
        ((TARGET, SOURCE, TARGET), (TARGET, SOURCE)),
        ((GUIDED,), (TARGET, NULL)),
        ((GUIDED, GUIDED_SOURCE), (TARGET, SOURCE_SOURCE, NULL, SOURCE_NULL)),
        ((GUIDED, SOURCE.guided(2.0)), (TARGET, SOURCE, NULL)),
        ((GUIDED, TARGET, TARGET.guided(2.0)), (TARGET, NULL)),
        ((TARGET.guided(1.0), TARGET.guided(1)), (TARGET,)),
        ((NULL, GUIDED), (NULL, TARGET)),
    ],
)
def test_every_row_is_asked_for_once_and_null_rows_are_shared(branches: tuple[Branch, ...], rows: tuple[Branch, ...]) -> None:
    assert rows_of(branches, "cfg") == rows


def test_a_network_that_embeds_guidance_is_asked_for_one_row_per_branch() -> None:
    assert rows_of((GUIDED, GUIDED_SOURCE, GUIDED), "embedded") == (GUIDED, GUIDED_SOURCE)
    network = Listening("embedded")
    out = asked(network, [GUIDED, SOURCE_SOURCE])
    ((z_t, _, _, guidance),) = network.asked
    assert guidance.tolist() == [7.5] * 3 + [1.0] * 3
    expected = Gaussian().estimate(z_t[:3], torch.tensor([10, 500, 900]), Text(gaussian_edit(3).text["target"].tokens * 7.5))
    torch.testing.assert_close(out.eps[GUIDED], expected.eps)


def test_rows_are_ordered_by_branch_and_then_by_image() -> None:
    network, rows = Listening(), Rows()
    out = asked(network, [GUIDED, SOURCE_SOURCE], (rows,))
    ((z_t, t, mean, guidance),) = network.asked
    assert z_t[:, 0, 0, 0].tolist() == [1.0] * 3 + [2.0] * 3 + [1.0] * 3
    assert mean.tolist() == [MEANS["target"]] * 3 + [MEANS["source"]] * 3 + [MEANS["null"]] * 3
    assert t.tolist() == [10, 500, 900] * 3
    assert guidance is None
    places = {TARGET: slice(0, 3), SOURCE_SOURCE: slice(3, 6), NULL: slice(6, 9)}
    assert out.recorded[rows] == (places, (8, 6))
    assert list(out.eps) == list(places)


def test_a_hook_that_only_steers_has_recorded_nothing() -> None:
    class Steering:
        def open(self, network, rows):
            return nullcontext()

    out = asked(Listening(), [TARGET], (Steering(),))
    assert not out.recorded
    assert len(out.narrow(torch.tensor([2])).eps[TARGET]) == 1


def test_guidance_of_one_is_none() -> None:
    assert rows_of([TARGET.guided(3), SOURCE_SOURCE.guided(1), SOURCE_SOURCE], "embedded") == (TARGET.guided(3), SOURCE_SOURCE)


def test_a_recorder_finds_an_embedded_branch_under_its_name_without_guidance() -> None:
    rows = Rows()
    found, _ = asked(Listening("embedded"), [GUIDED], (rows,)).recorded[rows]
    assert found[TARGET] == found[GUIDED] == slice(0, 3)


@pytest.mark.parametrize("part", ["eps", "clean", "velocity"])
def test_a_guided_branch_is_made_of_its_conditional_and_null_rows(part: str) -> None:
    out = asked(Listening(), [GUIDED])
    values = getattr(out, part)
    torch.testing.assert_close(values[GUIDED], cfg(values[NULL], values[TARGET], 7.5))
    assert torch.equal(values[TARGET.guided(1.0)], values[TARGET])


def test_a_prediction_that_was_not_asked_for_is_a_key_error() -> None:
    out = asked(Listening(), [TARGET])
    for branch in (SOURCE, GUIDED):
        with pytest.raises(KeyError):
            out.eps[branch]


def test_noisy_latents_and_prompts_may_have_any_name() -> None:
    z = torch.ones(2, 4, 8, 8).double()
    branch = Branch("reference", "instruction")
    text = {"instruction": Text(torch.full((2, 1, 1), 0.5).double())}
    out = call(Gaussian(), {"reference": z}, torch.tensor([3.5, 900.25]), text, [branch])
    a, g = (x[:, None, None, None] for x in Gaussian().scales(torch.tensor([3.5, 900.25]), (1, 1)))
    torch.testing.assert_close(a * out.clean[branch] + g * out.eps[branch], z)


def test_prediction_noises_both_latents_by_the_same_draw() -> None:
    network, edit = Listening(), gaussian_edit(2)
    draw = make_draw(network, 2, [300, 700])
    p = predict(network, edit.source + 1, edit, draw, [TARGET, SOURCE_SOURCE], (), progress(2))
    ((z_t, *_),) = network.asked
    clean = torch.cat([edit.source + 1, edit.source])
    torch.testing.assert_close(z_t, add_noise(clean, *(torch.cat([x, x]) for x in (draw.noise, draw.alpha, draw.sigma))))
    torch.testing.assert_close(p.velocity[TARGET], p.eps[TARGET] - p.clean[TARGET])


def test_narrowing_twice_leaves_the_right_images() -> None:
    out = asked(Listening(), [GUIDED])
    narrow = out.narrow(torch.tensor([2, 0])).narrow(torch.tensor([1]))
    for part in ("eps", "clean"):
        assert torch.equal(getattr(narrow, part)[GUIDED], getattr(out, part)[GUIDED][:1])


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_parts_of_a_text_keep_together(parts: int) -> None:
    tokens, pooled, mask = torch.randn(2, 3, 4), torch.randn(2, 5), torch.rand(2, 3) > 0.5
    text = Text(*(tokens, pooled, mask)[:parts])
    twice = Text.cat([text, text.repeat(2)[torch.tensor([3, 0])]])
    for name, part in zip(("tokens", "pooled", "mask"), (tokens, pooled, mask), strict=True):
        expected = torch.cat([part, part[[1, 0]]])
        found = getattr(twice, name)
        assert found is None if parts < 1 + ("tokens", "pooled", "mask").index(name) else torch.equal(found, expected)
