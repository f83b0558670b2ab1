"""Prompt-to-Prompt through the loaded method and the command line, on a tiny network of Stable Diffusion's layout."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.denoising.base import WalkBack, levels, timesteps
from sdist.denoising.inversions.ddim import DDIMInversion
from sdist.denoising.sample import Plan, sample
from sdist.denoising.solvers.ddim import DDIM
from sdist.editors.base import Observers
from sdist.editors.denoising import WalkOutput
from sdist.editors.loading import LoadedMethod
from sdist.editors.prompt_to_prompt import PromptToPrompt
from sdist.edits.request import Prepared, Request, Result
from sdist.errors import ImagesError, UserError
from sdist.files.images import to_pixels
from sdist.hooks.injection import TokenMap
from sdist.models.base import Backbone
from sdist.prediction import SOURCE_SOURCE, TARGET

from ..conftest import walk_together

QUICK = ("editor.steps=4", "size=keep")
PLAIN = ("editor.cross_replace=0", "editor.self_replace=0")


def method(model: Backbone, *overrides: str) -> LoadedMethod:
    return LoadedMethod(load_settings("p2p", [*QUICK, *overrides]), model)


def walked(model: Backbone, requests: Sequence[Request], *overrides: str) -> torch.Tensor:
    """The edited latents of those requests, all at once."""
    return walk_together(method(model, *overrides), requests)


@pytest.fixture
def request_of(picture: Path):
    return lambda target, source="a cat": Request(picture, source, target)


def test_without_injection_it_is_inversion_and_plain_sampling(tiny: Backbone, request_of, picture: Path) -> None:
    ours = walked(tiny, [request_of("a cat wearing a hat")], *PLAIN)
    with torch.no_grad():
        source = tiny.encode(to_pixels([Image.open(picture)]))
        at = levels(tiny, timesteps(4), source)
        text = {
            name: tiny.embed([prompt]) for name, prompt in (("source", "a cat"), ("target", "a cat wearing a hat"), ("null", ""))
        }
        z = DDIMInversion().start(WalkBack(tiny, source, text, at, DDIM(), lambda k: source)).noisy
        *_, plain = sample(tiny, {"edit": z}, text, at, DDIM(), lambda k: Plan([TARGET.guided(7.5)]))
    assert torch.equal(ours, plain.noisy["edit"])
    assert not torch.equal(walked(tiny, [request_of("a cat wearing a hat")]), ours)


def test_a_prompt_that_means_the_same_is_injected_into_itself(tiny: Backbone, request_of) -> None:
    """Without guidance both branches are one, so that injection changes nothing, and the image comes back."""
    request, unguided = request_of("A CAT"), "editor.target_guidance=1"
    wanted = walked(tiny, [request], *PLAIN, unguided)
    ours = walked(tiny, [request], "editor.cross_replace=1", "editor.self_replace=1", "editor.self_level=0", unguided)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", ["editor.cross_replace=0", "editor.self_replace=0", "editor.self_level=1"])
def test_each_share_and_the_level_count(tiny: Backbone, request_of, share: str) -> None:
    request = request_of("a cat wearing a hat")
    assert not torch.equal(walked(tiny, [request], share), walked(tiny, [request]))


def test_company_changes_nothing(tiny: Backbone, request_of) -> None:
    """Replaced words beside added ones: each image has its own alignment."""
    requests = [request_of("a dog"), request_of("a cat wearing a hat"), request_of("snow", "a red house in snow")]
    together = walked(tiny, requests)
    for row, request in enumerate(requests):
        torch.testing.assert_close(walked(tiny, [request]), together[row : row + 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
@pytest.mark.parametrize("inversion", ["ddim", "virtual", "direct", "edit_friendly"])
def test_every_inversion_and_solver(tiny: Backbone, request_of, inversion: str, solver: str) -> None:
    """Company changes nothing, the seed only where noise is drawn, and words added change the image."""
    chosen = (f"editor.inversion={inversion}", f"editor.solver={solver}")
    requests = [request_of("a dog"), request_of("a cat wearing a hat"), replace(request_of("a dog"), seed=1)]
    together = walked(tiny, requests, *chosen)
    torch.testing.assert_close(walked(tiny, requests[1:2], *chosen), together[1:2], rtol=0, atol=1e-3)
    assert torch.allclose(together[0], together[2], atol=1e-5) == (inversion in ("ddim", "direct"))
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_any_size(tiny: Backbone, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (36, 52, 3), np.uint8)).save(tmp_path / "wide.png")
    request = Request(tmp_path / "wide.png", "a cat", "a dog")
    p2p = method(tiny)
    (result,) = p2p.edit([p2p.prepare(request)])
    assert result.image.size == (52, 36)
    assert walked(tiny, [request]).shape == (1, 4, 9, 13)


def test_words_are_weighted_where_a_factor_is_set(tiny: Backbone, request_of) -> None:
    request = request_of("a cat wearing a hat")
    with pytest.raises(UserError, match="reads no words"):
        method(tiny).prepare(replace(request, words=("cat",)))
    weighted = method(tiny, "editor.reweight=2")
    assert (weighted.prepare(request).words, weighted.prepare(request).tokens) == (("hat",), (5,))
    assert weighted.prepare(replace(request, words=("cat",))).tokens == (2,)
    carry, keep = method(tiny, "editor.reweight=3").editor.align(tiny, request, (2, 5))
    assert (carry.sum(0)[:7].tolist(), keep[:7].tolist()) == ([1, 1, 3, 0, 0, 0, 1], [0, 0, 0, 1, 1, 3, 0])
    plain, strong = walked(tiny, [request]), walked(tiny, [request], "editor.reweight=2")
    assert not torch.equal(plain, strong)


def test_the_source_branch_ends_with_the_injection() -> None:
    p2p = load_settings("p2p", ["editor.steps=10", "editor.self_level=1"]).editor
    plan = p2p.plan(TokenMap(torch.eye(3)[None], torch.zeros(1, 3)))
    hooks = [hook for k in range(6) for hook in plan(k).hooks]
    assert [plan(k).branches for k in range(10)] == [[SOURCE_SOURCE.guided(1.0), TARGET.guided(7.5)]] * 6 + [
        [TARGET.guided(7.5)]
    ] * 4
    to_the_end = p2p.plan(TokenMap(torch.eye(3)[None], torch.zeros(1, 3)), to_the_end=True)
    assert to_the_end(9).branches == plan(0).branches
    assert [hook.self_level for hook in hooks] == [1] * 6
    assert len(hooks) == 6


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("editor.steps=501", "steps is a number from 1 to 500, got 501"),
        ("editor.cross_replace=1.5", "cross_replace is a part of the steps, 0..1, got 1.5"),
        ("editor.solver=null", "solver cannot be null; without it, it is ddim"),
        ("editor.solver=eulr", "unknown solver 'eulr'"),
        ("compile=true", "compile: no setting of the editor prompt_to_prompt"),
    ],
)
def test_bad_settings_are_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_settings("p2p", [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("level", [-1, 3])
def test_a_level_without_self_attention_is_an_error_that_names_those_that_have_it(tiny: Backbone, level: int) -> None:
    with pytest.raises(UserError, match=rf"self_level {level}: the self-attention of this model is at levels \[0, 1, 2\]"):
        method(tiny, f"editor.self_level={level}")


def test_prompts_that_cannot_be_aligned_are_known_before_anything_is_computed(tiny: Backbone, request_of) -> None:
    with pytest.raises(UserError, match="set mapping to refine"):
        method(tiny, "editor.mapping=replace").check(request_of("a red cat"))
    for mapping in ("auto", "refine"):
        method(tiny, f"editor.mapping={mapping}").check(request_of("a red cat"))


# --- many images -------------------------------------------------------------------------------------------------------


def small(model: Backbone, request: Request, n: int) -> tuple[LoadedMethod, list[Prepared]]:
    p2p = method(model, "editor.steps=1")
    return p2p, [p2p.prepare(replace(request, seed=i)) for i in range(n)]


def test_images_that_do_not_fit_together_are_edited_in_smaller_groups(
    tiny: Backbone, request_of, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sizes, walk = list[int](), PromptToPrompt.walk_steps

    def scarce(self, model, batch):
        sizes.append(len(batch))
        if len(batch) > limit:
            raise RuntimeError("CUDA out of memory")
        return walk(self, model, batch)

    monkeypatch.setattr(PromptToPrompt, "walk_steps", scarce)
    p2p, batch = small(tiny, request_of("a dog"), 5)
    limit, delivered = 2, list[Result]()
    results = p2p.edit(batch, Observers(deliver=delivered.append, parallel=5))
    assert sizes == [5, 2, 2, 1]
    assert delivered == results
    assert [result.prepared.request.seed for result in results] == [0, 1, 2, 3, 4]
    assert "a group of 5 images does not fit in memory: CUDA out of memory" in caplog.text
    assert "going on with 2" in caplog.text
    limit = 0
    with pytest.raises(ImagesError, match=r"picture\.png: one image of this size does not fit in memory: CUDA out of memory"):
        p2p.edit(batch[:1], Observers())


def test_other_errors_are_not_mistaken_for_memory(tiny: Backbone, request_of, monkeypatch: pytest.MonkeyPatch) -> None:
    p2p, batch = small(tiny, request_of("a dog"), 2)
    monkeypatch.setattr(PromptToPrompt, "walk_steps", failing)
    with pytest.raises(UserError, match="editor PromptToPrompt: RuntimeError: inside"):
        p2p.edit(batch, Observers())


def failing(*_: object) -> torch.Tensor:
    raise RuntimeError("inside")


def test_an_image_that_fails_leaves_the_others(tiny: Backbone, request_of, monkeypatch: pytest.MonkeyPatch) -> None:
    p2p, batch = small(tiny, request_of("a dog"), 3)
    latents = torch.zeros(3, 4, 8, 8)
    latents[1, 0, 0, 0] = torch.nan
    monkeypatch.setattr(PromptToPrompt, "walk_steps", lambda *_: [WalkOutput(latents, [None] * 3)])
    delivered: list[Result] = []
    with pytest.raises(ImagesError, match=r"picture\.png: the denoiser \(unet\) gave values that are not") as error:
        p2p.edit(batch, Observers(deliver=delivered.append, parallel=3))
    assert list(error.value.reasons) == [1]
    assert [result.prepared.request.seed for result in delivered] == [0, 2]


def test_the_command_makes_an_image_that_its_card_replays(
    tiny_folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = ("edit", picture, "--source", "a cat", "--target", "a dog", "--method", "p2p", "--model", tiny_folder)
    assert main([*map(str, edit), "--output", str(tmp_path), "--quiet", "--set", *QUICK]) == 0
    assert main(["replay", str(tmp_path / "picture_p2p_a-dog_seed0.png"), "--quiet"]) == 0
    assert "identical" in capsys.readouterr().out
