"""What every registered component must do, asked of every registered component by sdist/contract.py."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sdist import contract
from sdist.config.build import load_settings, resolve
from sdist.config.methods import shipped
from sdist.contract import check
from sdist.denoising.base import Solver
from sdist.denoising.solvers.ddim import DDIM
from sdist.diffusion import Latents, PerImage
from sdist.draws import DrawKey
from sdist.errors import UserError
from sdist.filters import Filter
from sdist.gammas import Gamma
from sdist.losses.base import Loss
from sdist.losses.sbp import SBP
from sdist.models.base import Backbone
from sdist.normalizers import Normalizer
from sdist.prediction import Prediction
from sdist.regions.attention import AttentionRegion
from sdist.regions.base import Region
from sdist.registry import FILTERS, GAMMAS, INVERSIONS, LOSSES, NORMALIZERS, REGIONS, REGULARIZERS, SOLVERS, TIMESTEPS, Registry
from sdist.regularizers.attention_mask import AttentionMask
from sdist.regularizers.base import Regularizer
from sdist.regularizers.mask import Mask, MaskRegularizer
from sdist.timesteps import Annealed, Descending, Timesteps, Uniform

REGISTRIES = (LOSSES, REGULARIZERS, FILTERS, NORMALIZERS, GAMMAS, TIMESTEPS, SOLVERS, INVERSIONS, REGIONS)
FILES = (LOSSES, REGULARIZERS, SOLVERS, INVERSIONS, REGIONS)  # of one component each, which bears its name
EVERY = [(registry, name) for registry in REGISTRIES for name in registry.names()]
FIELDS = {"combination": {"edit_target": 1.0, "noise": -1.0}, "attention_mask": {"cross_level": 1, "self_level": 0}}


@pytest.mark.parametrize("kind", ["tiny", "tiny_v"])
@pytest.mark.parametrize(("registry", "name"), EVERY, ids=[f"{r.slot}-{n}" for r, n in EVERY])
def test_every_component_keeps_its_promises(registry: Registry, name: str, kind: str, request: pytest.FixtureRequest) -> None:
    check(registry.get(name)(**FIELDS.get(name, {})), request.getfixturevalue(kind))


@pytest.mark.parametrize(("registry", "name"), EVERY, ids=[f"{r.slot}-{n}" for r, n in EVERY])
def test_a_file_of_this_package_bears_the_name_of_its_component(registry: Registry, name: str) -> None:
    package, _, module = registry.get(name).__module__.rpartition(".")
    assert not package.startswith("sdist.") or registry not in FILES or module == name


@pytest.mark.parametrize("timesteps", [Descending(end=0.5), Uniform(shift=3.0), Annealed(power=2.0)])
def test_timesteps_may_be_fractions(timesteps: Timesteps, tiny: Backbone) -> None:
    check(timesteps, tiny)


def test_a_mask_of_both_branches(tiny: Backbone) -> None:
    check(AttentionMask(cross_level=1, self_level=0, maps="both", refinements=3, keep=0.5, threshold=0.5), tiny)


def test_the_embedded_model_predicts_where_no_other_is_given() -> None:
    check(SBP())
    check(DDIM())


# --- components that break a promise -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad(SBP):
    """A loss that does what `how` says."""

    how: str = ""

    def gradient(self, p: Prediction) -> Any:
        gradient = super().gradient(p)
        if self.how == "spoils":
            next(iter(p.eps.values())).zero_()
        made = {
            "one": lambda: gradient[:1],
            "double": gradient.double,
            "nan": lambda: gradient * torch.nan,
            "zero": lambda: gradient * 0,
            "company": lambda: gradient - gradient.mean(),
            "random": lambda: gradient + torch.rand_like(gradient),
        }
        return made.get(self.how, lambda: gradient)()


@dataclass
class Thawed(Gamma):
    """Its value can be set."""

    value: float = 1.0

    def __call__(self, progress: PerImage) -> PerImage:
        return torch.ones_like(progress)


@dataclass(frozen=True)
class Undocumented(SBP):
    pass


@dataclass(frozen=True)
class Idle(Regularizer):
    """Changes nothing."""

    def __call__(self, gradient: Latents, p: Prediction) -> Latents:
        return gradient.clone()


@dataclass(frozen=True)
class InPlace(Regularizer):
    """Halves what it was given."""

    def __call__(self, gradient: Latents, p: Prediction) -> Latents:
        return gradient.mul_(0.5)


@dataclass(frozen=True)
class LeakingMask(MaskRegularizer):
    """The mask of the first image for all."""

    def mask(self, p: Prediction) -> Mask:
        return p.edit.mask[:1].expand_as(p.edit.mask) * p.edit.mask


@dataclass(frozen=True)
class Common(Normalizer):
    """By the SD of all."""

    def __call__(self, gradient: Latents) -> Latents:
        return gradient / gradient.std()


@dataclass(frozen=True)
class Negative(Gamma):
    """Below 0."""

    def __call__(self, progress: PerImage) -> PerImage:
        return -torch.ones_like(progress)


@dataclass(frozen=True)
class Everything(Filter):
    """Accepts all."""

    def accept(self, gradient: Latents, attempt: Any) -> Any:
        return torch.ones(len(gradient), dtype=torch.bool)

    def threshold_at(self, attempt: Any) -> Any:
        return torch.zeros(len(attempt))


@dataclass(frozen=True)
class Upwards(Timesteps):
    """Says that it goes down."""

    descends = True

    def at(self, key: DrawKey, steps: int, last: int) -> int:
        return key.step


@dataclass(frozen=True)
class Beyond(Timesteps):
    """After the model's last one, or not a number."""

    value: float = 999.5

    def at(self, key: DrawKey, steps: int, last: int) -> float:
        return self.value


@dataclass(frozen=True)
class SharedRegion(AttentionRegion):
    """The region of the first image for all; or of none, or another at every call."""

    how: str = "first"

    def regions(self, *seen: Any) -> list[Region]:
        found = super().regions(*seen)
        if self.how == "random":
            return [replace(region, mask=torch.rand(region.mask.shape) > 0.5) for region in found]
        return (
            found[:1]
            if self.how == "few"
            else [found[0] if len(found) > 1 else replace(found[0], mask=~found[0].mask)] * len(found)
        )


BROKEN = {
    "one": (lambda: Bad(how="one"), "its gradient has the shape of the latents"),
    "double": (lambda: Bad(how="double"), "its gradient is torch.float32, not torch.float64"),
    "nan": (lambda: Bad(how="nan"), "its gradient is finite"),
    "zero": (lambda: Bad(how="zero"), "not zero everywhere"),
    "spoils": (lambda: Bad(how="spoils"), "leaves predictions as they were"),
    "company": (lambda: Bad(how="company"), "its gradient for one image alone is the same"),
    "random": (lambda: Bad(how="random"), "its gradient asked again is the same"),
    "thawed": (Thawed, "it is frozen"),
    "undocumented": (Undocumented, "it has a docstring"),
    "idle": (Idle, "it changes the gradient of every image"),
    "in place": (InPlace, "leaves the gradient that it was given"),
    "leaking": (LeakingMask, "its gradient for one image alone is the same"),
    "common": (Common, "its gradient for one image alone is the same"),
    "negative": (Negative, "its values are above 0"),
    "everything": (Everything, "it accepts some of four gradients"),
    "upwards": (Upwards, "its timesteps go down"),
    "few regions": (lambda: SharedRegion(how="few"), "it has one region per image, not 1 for two"),
    "a region of company": (SharedRegion, "it finds the region of one image alone in company"),
    "a random region": (lambda: SharedRegion(how="random"), "it finds the same region when asked again"),
    "beyond": (Beyond, r"its timesteps are numbers within 0\.\.999"),
    "no number": (lambda: Beyond(float("nan")), r"its timesteps are numbers within 0\.\.999"),
    "a truth value": (lambda: Beyond(True), r"its timesteps are numbers within 0\.\.999"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named(name: str, tiny: Backbone) -> None:
    make, text = BROKEN[name]
    with pytest.raises(AssertionError, match=f"broken promise: .*{text}"):
        check(make(), tiny)


@pytest.mark.parametrize("given", [3, SBP, object()])
def test_what_is_no_component_is_said(given: Any) -> None:
    with pytest.raises(UserError, match=r"is none of Loss, Regularizer, .*: give a component that was made, such as MyLoss"):
        check(given)


def test_every_slot_of_a_method_has_its_questions() -> None:
    kinds = {kind.__name__.lower().removesuffix("source") for kind in contract.QUESTIONS}
    assert kinds == {registry.slot for registry in REGISTRIES}
    assert {Loss, Solver} < contract.QUESTIONS.keys()


# --- methods -----------------------------------------------------------------------------------------------------------


PRESETS = sorted(shipped("method"))
WANTED = {
    "sds", "dds", "dds_object", "cds", "cds_object", "sbp", "lusd", "lusd_released", "dds_lusd", "lusd_no_spatial",
    "lusd_no_normalization", "lusd_no_annealing", "lusd_no_filtering", "lusd_difference",
}  # fmt: skip


def test_all_presets_are_there() -> None:
    assert set(PRESETS) >= WANTED


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip_and_say_how_to_run_them(name: str) -> None:
    settings = load_settings(name)
    assert resolve(json.loads(json.dumps(settings.plain())), "again") == settings
    header = shipped("method")[name].read_text().splitlines()[:2]
    assert all(line.startswith("#") for line in header)
    assert f"--method {name}" in header[1]


def flat(data: object, path: str = "") -> dict[str, object]:
    if not isinstance(data, dict):
        return {path: data}
    return {key: value for name, own in data.items() for key, value in flat(own, f"{path}.{name}" if path else name).items()}


def test_paper_and_release_differ_in_the_documented_settings_alone() -> None:
    paper, release = (flat(load_settings(name).plain()) for name in ("lusd", "lusd_released"))
    differ = {key for key in paper.keys() | release.keys() if paper.get(key) != release.get(key)}
    assert differ == {
        "timesteps.t_max",
        "filter.redraw_timestep",
        "regularizers.attention_mask.timing",
        "regularizers.attention_mask.beta",
        "prompts.difference",
        "prompts.pieces",
    }
    text = (Path(__file__).parent.parent / "docs" / "methods.md").read_text()
    table = text[text.index("| setting | `lusd` (paper)") :]
    assert set(re.findall(r"^\| `([\w.]+)` \|", table[: table.index("\n\n")], re.MULTILINE)) == differ
