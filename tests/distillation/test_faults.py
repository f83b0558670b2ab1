"""Mistakes in a component of one's own are one line that names it, never a traceback, and never stretched by broadcasting."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import sdist
from sdist.distillation.distiller import ScoreDistiller
from sdist.distillation.method import Method
from sdist.errors import UserError
from sdist.losses.base import Loss
from sdist.losses.sbp import SBP
from sdist.losses.sds import SDS
from sdist.models.base import Backbone
from sdist.models.stable_diffusion import StableDiffusion
from sdist.models.text import PromptEncoder
from sdist.prediction import NULL, TARGET, Branch, Prediction
from sdist.regularizers.mask import AveragedMask, MaskRegularizer

from ..conftest import tiny_edit

pytestmark = pytest.mark.usefixtures("unchecked")  # annotations are not checked where a user runs


@dataclass(frozen=True)
class Mistaken(Loss):
    mistake: str = ""

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (TARGET,)

    def gradient(self, p: Prediction) -> Any:
        eps = p.eps[TARGET]
        return {
            "undeclared": lambda: p.eps[NULL],
            "no channels": lambda: eps.mean(1),
            "a number": eps.mean,
            "a division": lambda: eps * (1 / 0),
            "autograd": lambda: torch.autograd.grad(eps.sum(), p.latents)[0],
        }[self.mistake]()


@dataclass(frozen=True, kw_only=True)
class FlatMask(AveragedMask):
    def newest(self, p: Prediction) -> Any:
        return p.latents.mean(1)


@dataclass(frozen=True)
class ThinMask(MaskRegularizer):
    @property
    def branches(self) -> tuple[Branch, ...]:
        return ()

    def mask(self, p: Prediction) -> Any:
        return p.latents.mean(1)


LOSSES = {
    "undeclared": r"loss Mistaken: it reads the prediction of \(edit, null\), which is not among its branches \(.*\.py:\d+\)",
    "no channels": r"loss Mistaken: its gradient has the shape \(1, 8, 8\), expected \(1, 4, 8, 8\)",
    "a number": r"loss Mistaken: its gradient has the shape \(\), expected \(1, 4, 8, 8\)",
    "a division": r"loss Mistaken: ZeroDivisionError: division by zero \(test_faults\.py:\d+\)",
    "autograd": r"loss Mistaken: RuntimeError: .*does not require grad",
}


def direction(network: Backbone, method: Method) -> ScoreDistiller:
    distiller = ScoreDistiller(network, tiny_edit(network), method, [(0, "a")])
    distiller.direction()
    return distiller


@pytest.mark.parametrize("mistake", LOSSES)
def test_a_mistake_of_a_loss_is_named(tiny: Backbone, mistake: str) -> None:
    with pytest.raises(UserError, match=LOSSES[mistake]) as raised:
        direction(tiny, Method(Mistaken(mistake)))
    assert "\n" not in str(raised.value)


def test_a_mask_that_would_be_stretched_is_refused(tiny: Backbone) -> None:
    for mask, shape in ((ThinMask(), r"\(1, 8, 8\)"), (FlatMask(), r"\(1, 8, 8\)")):
        with pytest.raises(UserError, match=rf"mask {type(mask).__name__}: its shape is {shape}, expected \(1, 1, 8, 8\)"):
            direction(tiny, Method(SBP(), {"mask": mask}))


def test_a_mask_beyond_0_and_1_is_refused(tiny: Backbone) -> None:
    for low, high in ((-0.3, 1.0), (0.0, 2.5), (0.0, float("nan"))):

        @dataclass(frozen=True)
        class Wide(MaskRegularizer):
            low: float
            high: float

            @property
            def branches(self) -> tuple[Branch, ...]:
                return ()

            def mask(self, p: Prediction) -> torch.Tensor:
                mask = torch.zeros_like(p.latents[:, :1])
                mask[..., 0, 0], mask[..., 0, 1] = self.low, self.high
                return mask

        with pytest.raises(UserError, match=r"mask Wide: its values are .*, must be within 0..1; see unit_range"):
            direction(tiny, Method(SBP(), {"mask": Wide(low, high)}))


def test_a_mistake_of_a_model_is_named(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StableDiffusion, "denoise", lambda self, z_t, t, text, guidance: 1 / 0)
    with pytest.raises(UserError, match=r"model StableDiffusion: ZeroDivisionError: division by zero \(test_faults.py:\d+\)"):
        direction(tiny, Method(SBP()))


def test_memory_and_numbers_are_not_taken_for_mistakes(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: SBP, p: Prediction) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SBP, "gradient", full)
    assert "does not fit in memory: CUDA out of memory" in direction(tiny, Method(SBP())).failures[0]


def test_a_component_is_named_in_settings_not_made(picture: Path, tiny_folder: Path) -> None:
    for value in (SDS(guidance_scale=3.0), SDS):
        with pytest.raises(UserError, match="settings: loss is a SDS; give its name, or a mapping"):
            sdist.edit(picture, "a cat", "a dog", model=str(tiny_folder), method="dds", settings={"loss": value})


def test_steps_that_cannot_be_watched_are_said(picture: Path, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="on_step: the steps of sdedit cannot be watched"):
        sdist.edit(picture, "a cat", "a dog", model=str(tiny_folder), method="sdedit", on_step=print)


def test_a_family_says_what_it_is_made_of_and_predicts(tiny: Backbone) -> None:
    with pytest.raises(TypeError, match="the family Nothing has no components and no denoiser_name"):
        type("Nothing", (Backbone,), {})

    class Unknown(StableDiffusion):
        def check(self) -> None:
            self.prediction_type = "eps"

        def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
            return tiny.text

    parts = {"unet": tiny.denoiser, "vae": tiny.vae, "scheduler": tiny.scheduler}
    with pytest.raises(UserError, match="Unknown: prediction_type is 'eps', must be one of epsilon, v_prediction, flow"):
        Unknown(parts, "cpu", {})
