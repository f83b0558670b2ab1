"""Networks of other classes: a subclass is used and named on the card, anything else is one line with what to give."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDPMPipeline, FluxPipeline, StableDiffusion3Pipeline, StableDiffusionPipeline, UNet2DModel
from PIL import Image
from torch import nn

from sdist import ScoreDistillationPipeline, UserError

from ..conftest import save_tiny_pipeline
from ..models.test_flux import save_tiny_flux
from ..models.test_stable_diffusion_3 import save_tiny_sd3

pytestmark = pytest.mark.usefixtures("unchecked")  # networks here are not of the annotated classes

PIPELINES: dict[str, tuple[Any, Callable[[Path], Path], dict[str, Any]]] = {
    "sd": (StableDiffusionPipeline, save_tiny_pipeline, {"safety_checker": None}),
    "sd3": (StableDiffusion3Pipeline, save_tiny_sd3, {}),
    "flux": (FluxPipeline, save_tiny_flux, {}),
}
PARTS = [
    ("sd", "unet"), ("sd", "vae"), ("sd", "text_encoder"), ("sd3", "transformer"), ("sd3", "text_encoder_3"),
    ("flux", "transformer"), ("flux", "text_encoder_2"),
]  # fmt: skip
PROMPTS = {"prompt": "a dog", "source_prompt": "a cat", "method": "dds", "num_inference_steps": 1, "seed": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(tmp_path_factory.mktemp(name)) for name, (_, save, _) in PIPELINES.items()}


def load(folders: dict[str, Path], name: str) -> Any:
    kind, _, options = PIPELINES[name]
    return kind.from_pretrained(folders[name], **options)


def edit(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe(image=Image.new("RGB", (32, 32), "red"), **PROMPTS)


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class Passing(Wrapper):
    """Which has all that the inner one has."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class Engine:
    """As those of other runtimes are: no module of torch."""

    config, dtype = {"sample_size": 8}, torch.float32


def traced(network: nn.Module) -> nn.Module:
    return torch.jit.trace_module(Own(network), {"forward": torch.zeros(1)}, check_trace=False)


class Own(Wrapper):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


WRAPPERS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "a wrapper": (Wrapper, f"Wrapper of {__name__}"),
    "one that passes all on": (Passing, "Passing"),
    "a chain": (lambda network: nn.Sequential(nn.Identity(), Wrapper(network)), "Sequential of torch.nn.modules.container"),
}
OTHERS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "traced": (traced, "TopLevelTracedModule of torch.jit._trace"),
    "scripted": (lambda network: torch.jit.script(nn.Linear(1, 1)), "RecursiveScriptModule of torch.jit._script"),
    "an engine": (lambda network: Engine(), "Engine"),
    "a function": (lambda network: network.forward, "method"),
    "a layer": (lambda network: nn.Linear(1, 1), "Linear of torch.nn.modules.linear"),
}


def refusals(folders: dict[str, Path], family: str, part: str, change: Callable[[Any], Any], kind: str) -> list[str]:
    """What is said of the changed part in a pipeline of diffusers, in one of ours, and given as an option: lines that name it."""
    pipe, ours = load(folders, family), ScoreDistillationPipeline.from_pretrained(folders[family])
    changed = change(getattr(pipe, part))
    setattr(pipe, part, changed)
    setattr(ours, part, changed)
    calls = (
        lambda: ScoreDistillationPipeline.from_pipe(pipe),
        lambda: edit(ours),
        lambda: ScoreDistillationPipeline.from_pretrained(folders[family], **{part: changed}),
    )
    said = []
    for call in calls:
        with pytest.raises(UserError) as raised:
            call()
        line = str(raised.value)
        assert f"is a {kind}, which is not known here" in line.replace("the denoiser of this model is ", "is a ")
        assert "\n" not in line
        said.append(line)
    return said


@pytest.mark.parametrize(("family", "part"), PARTS)
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_is_named_and_the_advice_works(folders: dict[str, Path], name: str, family: str, part: str) -> None:
    change, kind = WRAPPERS[name]
    for line in refusals(folders, family, part, change, kind):
        advice = re.search(r"; give the one in it, (.*)$", line)
        assert advice is not None
    pipe = load(folders, family)
    wrapped = change(getattr(pipe, part))
    setattr(pipe, part, eval(advice[1], {part: wrapped}))
    assert ScoreDistillationPipeline.from_pipe(pipe).components[part] is getattr(pipe, part)


@pytest.mark.parametrize(("family", "part"), PARTS)
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_network_of_the_libraries_is_named(folders: dict[str, Path], name: str, family: str, part: str) -> None:
    change, kind = OTHERS[name]
    for line in refusals(folders, family, part, change, kind):
        assert re.search(rf"; give \w+\.from_pretrained\(MODEL, subfolder='{part}'\)$", line)


@pytest.mark.parametrize(("family", "part"), PARTS)
def test_a_subclass_gives_the_plain_picture_and_a_card_that_names_it(folders: dict[str, Path], family: str, part: str) -> None:
    plain = edit(ScoreDistillationPipeline.from_pretrained(folders[family]))
    pipe = load(folders, family)
    kind = type(getattr(pipe, part))
    own = type("Own", (kind,), {"__module__": "mine", "further": lambda self: 0})
    getattr(pipe, part).__class__ = own
    given = ScoreDistillationPipeline.from_pretrained(folders[family], **{part: getattr(pipe, part)})
    for made in (edit(ScoreDistillationPipeline.from_pipe(pipe)), edit(given)):
        assert np.array_equal(np.asarray(made.images[0]), np.asarray(plain.images[0]))
        assert made.cards[0]["model"]["changed"] == [f"{part}: class Own of mine"]


def test_data_parallelism_is_taken_off_a_component_that_is_given(folders: dict[str, Path]) -> None:
    unet = load(folders, "sd").unet
    assert ScoreDistillationPipeline.from_pretrained(folders["sd"], unet=nn.DataParallel(unet)).unet is unet


def test_other_pipelines_and_what_is_none(folders: dict[str, Path]) -> None:
    tiny = load(folders, "sd")
    tiny.vae = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    with pytest.raises(UserError, match=r"vae is a AutoencoderTiny, .*; give AutoencoderKL.from_pretrained"):
        ScoreDistillationPipeline.from_pipe(tiny)
    assert ScoreDistillationPipeline.from_pipe(tiny, vae=load(folders, "sd").vae).vae is not tiny.vae
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(sample_size=8, block_out_channels=(32, 32), **blocks)
    with pytest.raises(UserError, match="the denoiser of this model is UNet2DModel, which is not known here"):
        ScoreDistillationPipeline.from_pipe(DDPMPipeline(unet, tiny.scheduler))
    tiny.unet = None
    with pytest.raises(UserError, match="this model has no transformer and no unet: another denoiser is not known here"):
        ScoreDistillationPipeline.from_pipe(tiny)
    for given, said in (("tinyworld", "'tinyworld'"), (None, "None"), (tiny.vae, "diffusers.AutoencoderTiny")):
        with pytest.raises(UserError, match=f"from_pipe: pipeline must be a DiffusionPipeline, got {said}"):
            ScoreDistillationPipeline.from_pipe(given)
