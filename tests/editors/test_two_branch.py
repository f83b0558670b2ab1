"""ViMAEdit through the loaded method and the command line, on a tiny network of Stable Diffusion's layout."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors import two_branch
from sdist.editors.focus import focus_rows
from sdist.editors.loading import LoadedMethod, load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.files.images import to_pixels
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import NULL, SOURCE_NULL, SOURCE_SOURCE, TARGET, Branch

from ..conftest import walk_together

QUICK = ("editor.steps=5", "size=keep")


def method(model: Backbone, *overrides: str, preset: str = "vimaedit") -> LoadedMethod:
    return LoadedMethod(load_settings(preset, [*QUICK, *overrides]), model)


def walked(model: Backbone, requests: Sequence[Request], *overrides: str, preset: str = "vimaedit") -> torch.Tensor:
    """The edited latents of those requests, all at once."""
    return walk_together(method(model, *overrides, preset=preset), requests)


@pytest.fixture
def request_of(picture: Path):
    return lambda target, source="a cat", **more: Request(picture, source, target, **more)


@pytest.mark.parametrize("preset", ["vimaedit", "vimaedit_released", "vimaedit_dpmpp"])
def test_outside_of_the_mask_the_image_is_the_source(tiny: Backbone, request_of, picture: Path, preset: str) -> None:
    request = request_of("a dog")
    source = tiny.encode(to_pixels([Image.open(picture)]))
    moved = (walked(tiny, [request], preset=preset) - source).abs().amax(1)
    assert 0 < float((moved < 1e-5).float().mean()) < 1


@pytest.mark.parametrize("override", [
    "editor.inversion=direct", "editor.inversion=edit_friendly", "editor.solver=dpmpp_2m", "editor.variance=none", "seed=3",
    "editor.variance=everywhere", "editor.grounding.threshold=0.2", "editor.grounding.critical_threshold=0.3",
    "editor.grounding.add_up=true", "editor.grounding.start=1", "editor.cross_replace=0", "editor.self_replace=0",
])  # fmt: skip
def test_every_setting_counts(tiny: Backbone, request_of, override: str) -> None:
    seed = 3 if override == "seed=3" else 0
    request = request_of("a dog", seed=seed)
    assert not torch.equal(walked(tiny, [request], override), walked(tiny, [replace(request, seed=0)]))


@pytest.mark.parametrize("variance", ["critical", "everywhere"])
def test_company_changes_nothing(tiny: Backbone, request_of, variance: str) -> None:
    """Each image has its own alignment, words, masks and noise: nouns replaced, added, taken away, none at all."""
    edits = (("a dog", "a cat"), ("a cat wearing a hat", "a cat"), ("a cat", "a cat and a dog"), ("red and red", "red"))
    requests = [request_of(*edit) for edit in edits]
    chosen = f"editor.variance={variance}"
    together = walked(tiny, requests, chosen)
    for row, request in enumerate(requests):
        torch.testing.assert_close(walked(tiny, [request], chosen), together[row : row + 1], rtol=0, atol=1e-4)


def test_without_words_it_is_prompt_to_prompt(tiny: Backbone, request_of, caplog: pytest.LogCaptureFixture) -> None:
    two_branch._report_no_words.cache_clear()
    request = request_of("red and red", "red")
    ours = walked(tiny, [request])
    assert (
        "no noun in what differs between 'red' and 'red and red': the mask is off; name words of either with --words"
        in caplog.text
    )
    theirs = walked(tiny, [request], "editor.inversion=virtual", "editor.mapping=refine", preset="p2p")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_users_mask_bounds_the_edit_with_words_and_alone(tiny: Backbone, request_of, picture: Path, tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    source = tiny.encode(to_pixels([Image.open(picture)]))
    for request in (request_of("a dog"), request_of("red and red", "red")):
        moved = walked(tiny, [replace(request, mask=tmp_path / "mask.png")], "editor.grounding.threshold=0") - source
        assert moved[..., 4:].abs().max() < 1e-5
        assert moved[..., :4].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("named", "source", "target"),
    [
        ((), [2], [2]),
        (("dog",), [], [2]),
        (("cat",), [2], []),
        (("a",), [1], [1]),
        (("cat", "dog"), [2], [2]),
        (("Dog",), [], [2]),
    ],
)
def test_words_are_found_in_both_prompts(tiny: Backbone, request_of, named: tuple, source: list[int], target: list[int]) -> None:
    loaded = method(tiny)
    rows = focus_rows(tiny, [loaded.prepare(request_of("a dog", words=named))])
    assert [row[0].nonzero()[:, 0].tolist() for row in rows] == [source, target]


def test_a_word_of_neither_prompt_is_an_error_that_names_theirs(tiny: Backbone, request_of) -> None:
    with pytest.raises(UserError, match="word 'hat' is in neither prompt; they have a, cat, dog"):
        method(tiny).check(request_of("a dog", words=("hat",)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("editor.grounding.iterations=-1", "grounding.iterations is at least 0, got -1"),
        ("editor.grounding.keep=1.5", r"grounding.keep is within 0..1, got 1.5"),
        ("editor.grounding.threshold=1", "grounding.threshold is below 1, got 1.0: no map is above that"),
        ("editor.grounding.thresold=0.4", "unknown key 'thresold'"),
        ("editor.solver.eta=1.5", r"eta is within 0..1, from no noise to DDPM's, got 1.5"),
        ("editor.solver.eta=-1", "eta is within 0..1"),
        ("editor.image_replace=2", r"image_replace is a part of the steps, 0..1, got 2"),
        ("editor.image_scale=-1", "image_scale is at least 0, got -1"),
        ("editor.steps=0", "steps is a number from 1 to 500, got 0"),
        ("editor.variance=some", "variance"),
    ],
)
def test_bad_settings_are_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_settings("vimaedit", [override])
    assert "\n" not in str(error.value)


def test_a_model_without_an_adapter_edits_and_says_so(tiny: Backbone, request_of, caplog: pytest.LogCaptureFixture) -> None:
    two_branch._report_off.cache_clear()
    with caplog.at_level(logging.WARNING):
        walked(tiny, [request_of("a dog")])
    assert caplog.text.count("image guidance is off: no IP-Adapter is known for") == 1
    with pytest.raises(UserError, match="unknown IP-Adapter 'nowhere'"):
        method(tiny, "editor.adapter=nowhere")
    assert method(tiny, "editor.adapter=nowhere", "editor.image_scale=0").editor.guide(tiny) is None


def test_too_long_prompts_are_one_line(tiny: Backbone, request_of) -> None:
    with pytest.raises(UserError, match="prompt has 33 tokens, this model reads 24"):
        method(tiny).check(request_of("a cat wearing " + "a red hat and " * 7))


def test_a_flow_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="looks at both in one layer; methods that change none, such as flowedit"):
        load_method(load_settings("vimaedit", model="tinyworld-flow"))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_are_enough(tiny: Backbone, request_of, steps: int) -> None:
    for preset in ("vimaedit", "vimaedit_released", "vimaedit_dpmpp"):
        assert walked(tiny, [request_of("a dog")], f"editor.steps={steps}", preset=preset).isfinite().all()


def test_the_command_makes_an_image_that_its_card_replays(
    tiny_folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = ("edit", picture, "--source", "a cat", "--target", "a dog", "--method", "vimaedit", "--model", tiny_folder)
    assert main([*map(str, edit), "--output", str(tmp_path), "--quiet", "--set", *QUICK]) == 0
    assert main(["replay", str(tmp_path / "picture_vimaedit_a-dog_seed0.png"), "--quiet"]) == 0
    assert "identical" in capsys.readouterr().out


# --- image guidance ----------------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def golden() -> Backbone:
    return load_backbone(str(GOLDEN / "pipeline"), "cpu")


@pytest.mark.parametrize(("preset", "reads_zero"), [("vimaedit", NULL), ("vimaedit_released", SOURCE_SOURCE)])
def test_each_branch_reads_the_image_that_it_should(golden: Backbone, request_of, preset: str, reads_zero: Branch) -> None:
    loaded = method(golden, f"editor.adapter={GOLDEN / 'ip_adapter'}", preset=preset)
    prepared = loaded.prepare(request_of("a dog"))
    guide = loaded.editor.guide(golden)
    image, target = guide.embeddings([prepared.image], ["a cat"], ["a dog"], loaded.editor.estimation)
    reads_image = SOURCE_SOURCE if reads_zero == NULL else NULL
    wanted = guide.adapter.hook(
        [layer.name for layer in golden.layout.layers("cross")],
        {reads_zero: torch.zeros_like(image), SOURCE_NULL: torch.zeros_like(image), reads_image: image, TARGET: target}, 0.4,
    )  # fmt: skip
    ours = loaded.editor.images(golden, [prepared])
    for name, branches in wanted.keys.items():
        assert all(torch.equal(ours.keys[name][branch], value) for branch, value in branches.items())
    assert ours.scale == 0.4


def test_image_guidance_moves_the_edit_and_the_card_names_it(golden: Backbone, request_of) -> None:
    request, adapter = request_of("red and red", "red"), f"editor.adapter={GOLDEN / 'ip_adapter'}"
    guided = method(golden, adapter)
    assert guided.editor.weights(golden)["image_guidance"].startswith("ip-adapter_sd15.safetensors ")
    assert method(golden, "editor.image_scale=0").editor.weights(golden) == {"image_guidance": "none"}
    edited = [walked(golden, [request], *more, "editor.steps=2") for more in ((adapter,), ("editor.adapter=null",))]
    assert not torch.equal(*edited)


@pytest.mark.parametrize("preset", ["vimaedit", "p2p"])
def test_steps_can_be_watched_with_their_masks(tiny: Backbone, request_of, picture: Path, preset: str) -> None:
    """From the encoded source to the edit; where a mask follows words, it is seen as it changes."""
    loaded = method(tiny, preset=preset)
    with torch.no_grad():
        steps = list(loaded.editor.walk_steps(tiny, [loaded.prepare(request_of("a dog"))]))
    torch.testing.assert_close(steps[0].latents, tiny.encode(to_pixels([Image.open(picture)])))
    assert len(steps) == 6
    assert torch.equal(steps[-1].latents, walked(tiny, [request_of("a dog")], preset=preset))
    shapes = {None if step.masks[0] is None else tuple(step.masks[0].shape) for step in steps[1:]}
    assert shapes == ({None} if preset == "p2p" else {(1, 8, 8)})
    assert set(steps[1].branches) == {"source", "edit"}
    for step in steps[1:-1]:
        (mask,), branches = step.masks, step.branches
        blend = branches["edit"] if mask is None else mask * branches["edit"] + (1 - mask) * branches["source"]
        torch.testing.assert_close(step.latents, blend)


def test_the_finest_self_attention_is_left_alone() -> None:
    """Of Stable Diffusion that at the latents' size; tinyworld's is at half of it."""
    for preset in ("vimaedit", "p2p"):
        found = {model: load_settings(preset, model=model).editor.self_level for model in ("sd15", "tinyworld")}
        assert found == {"sd15": 1, "tinyworld": 2}
