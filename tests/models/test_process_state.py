"""An edit is the same in whatever state the calling program is, and leaves that state as it was."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sdist
from sdist.editors.loading import model_cache
from sdist.errors import UserError
from sdist.models.attention_backend import backend, set_backend
from sdist.models.float32 import rounding
from sdist.models.process_state import process_state

from ..conftest import save_tiny_pipeline

LOGGERS = ("pytorch_lightning", "lightning_fabric", "diffusers", "transformers", "huggingface_hub", "sdist")


class Default(AbstractContextManager[None]):
    """Sets a default of torch, which has no context of its own."""

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], Any], value: Any) -> None:
        self._write, self._value, self._before = write, value, read()

    def __enter__(self) -> None:
        self._write(self._value)

    def __exit__(self, *_: object) -> None:
        self._write(self._before)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "gradients off for good": lambda: Default(torch.is_grad_enabled, torch.set_grad_enabled, False),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype float64": lambda: Default(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "default dtype bfloat16": lambda: Default(torch.get_default_dtype, torch.set_default_dtype, torch.bfloat16),
    "default device meta": lambda: Default(torch.get_default_device, torch.set_default_device, "meta"),
    "the device of a block": lambda: torch.device("meta"),
    "deterministic algorithms": lambda: Default(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "float32 products in bfloat16": lambda: Default(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "attention by another backend": lambda: Default(backend, set_backend, "_native_math"),
    "anomalies are looked for": lambda: torch.autograd.set_detect_anomaly(True),
}


def state() -> dict[str, Any]:
    """What other code in the process can see."""
    return {
        "dtype": torch.get_default_dtype(), "device": torch.get_default_device(), "grad": torch.is_grad_enabled(),
        "float32": rounding(), "inference": torch.is_inference_mode_enabled(), "autocast": torch.is_autocast_enabled("cpu"),
        "attention": backend(),
        "deterministic": torch.are_deterministic_algorithms_enabled(), "anomaly": torch.is_anomaly_enabled(),
        "torch": torch.get_rng_state().tolist(), "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "levels": {name: logging.getLogger(name).level for name in LOGGERS}, "environment": dict(os.environ),
        "handlers": {name: list(logging.getLogger(name).handlers) for name in ("", *LOGGERS)},
    }  # fmt: skip


def edit(folder: Path, picture: Path, method: str) -> bytes:
    return sdist.edit(
        picture, "a cat", "a dog", model=str(folder), method=method, steps=None, settings=STEPS[method]
    ).image.tobytes()


STEPS = {"lusd": ["steps=1"], "cds": ["steps=1"], "p2p": ["editor.steps=1"], "sdedit": ["editor.num_inference_steps=2"]}


@pytest.mark.parametrize("name", STATES)
def test_no_state_of_the_caller_changes_a_pixel_or_is_changed(tiny_folder: Path, picture: Path, name: str) -> None:
    model_cache._models.clear()
    expected = {method: edit(tiny_folder, picture, method) for method in ("lusd", "cds")}
    model_cache._models.clear()  # so that the model is loaded in that state, too
    with STATES[name]():
        before = state()
        assert {method: edit(tiny_folder, picture, method) for method in expected} == expected
        assert state() == before
    assert {method: edit(tiny_folder, picture, method) for method in expected} == expected


@pytest.mark.parametrize("method", STEPS)
def test_every_editor_leaves_generators_and_loggers_alone(tiny_folder: Path, picture: Path, method: str) -> None:
    edit(tiny_folder, picture, method)  # imports set up what they set up
    model_cache._models.clear()
    before = state()
    edit(tiny_folder, picture, method)
    assert state() == before


def test_the_state_is_as_before_after_an_error_too(tiny_folder: Path, picture: Path) -> None:
    def interrupt(snapshot: object) -> None:
        raise RuntimeError("of the caller")

    edit(tiny_folder, picture, "lusd")
    with torch.inference_mode(), Default(torch.get_default_dtype, torch.set_default_dtype, torch.float64):
        before = state()
        with pytest.raises(RuntimeError, match="of the caller"):
            sdist.edit(picture, "a cat", "a dog", model=str(tiny_folder), steps=1, on_step=interrupt)
        with pytest.raises(UserError):
            sdist.edit(picture, "a cat", "a dog", model="no such model")
        assert state() == before


def test_threads_that_overlap_put_back_what_was_there_before_both() -> None:
    with Default(torch.get_default_dtype, torch.set_default_dtype, torch.float64):
        first, second = process_state(), process_state()
        first.__enter__()
        second.__enter__()
        assert torch.get_default_dtype() == torch.float32
        first.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        second.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64


def test_a_pipeline_may_be_loaded_in_inference_mode(tmp_path: Path, picture: Path) -> None:
    folder = save_tiny_pipeline(tmp_path / "model")
    with torch.inference_mode():
        pipe = sdist.ScoreDistillationPipeline.from_pretrained(folder)
        theirs = type(pipe.unet).from_pretrained(folder, subfolder="unet")
    with Image.open(picture) as image:
        pipe("a dog", image, "a cat", method="cds", num_inference_steps=1)
        pipe.unet = theirs
        with pytest.raises(UserError, match=r"loaded in torch\.inference_mode"):
            pipe("a dog", image, "a cat", method="cds", num_inference_steps=1)


SCRIPT = """
import random, sys
import sdist
folder, picture = sys.argv[1:]
states = []
for attempt in range(2):
    sdist.edit(picture, "a cat", "a dog", model=folder, steps=1)
    states.append(random.getstate())
sys.exit(states[0] != states[1])
"""


def test_pythons_own_generator_is_left_alone(tiny_folder: Path, picture: Path) -> None:
    """In a process of its own: what checks annotations in these tests draws from it."""
    subprocess.run([sys.executable, "-c", SCRIPT, str(tiny_folder), str(picture)], check=True, timeout=300)


VARIABLES = {
    "nothing": {},
    "a trainer's defaults": {
        "PL_TRAINER_MAX_STEPS": "1", "PL_TRAINER_PRECISION": "16-mixed", "PL_TRAINER_GRADIENT_CLIP_VAL": "0.1",
        "PL_TRAINER_ACCUMULATE_GRAD_BATCHES": "2", "PL_TRAINER_STRATEGY": "ddp", "PL_TRAINER_NUM_NODES": "3",
    },
    "a second process of torchrun": {
        "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1",
        "TORCHELASTIC_RUN_ID": "none",
    },
    "a task of SLURM": {
        "SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NTASKS": "2", "SLURM_NODEID": "0",
        "SLURM_JOB_NAME": "train", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NTASKS_PER_NODE": "2",
    },
    "Fabric's, the hub's and a proxy": {
        "LT_PRECISION": "16-mixed", "LT_STRATEGY": "ddp", "PL_GLOBAL_SEED": "3", "PL_SEED_WORKERS": "1",
        "HF_ENABLE_PARALLEL_LOADING": "1",
        "HF_TOKEN": "hf_nothing", "HF_ENDPOINT": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "RAY_ADDRESS": "127.0.0.1:9",
    },
}  # fmt: skip


def test_no_variable_of_another_program_changes_a_pixel(tiny_folder: Path, picture: Path, tmp_path: Path) -> None:
    """One process per line of the table: what is read when a package is imported counts too."""
    running, made = {}, {}
    for name, variables in VARIABLES.items():
        call = [
            sys.executable, "-m", "sdist", "edit", str(picture), "--source", "a cat", "--target", "a dog", "--steps", "3",
            "--model", str(tiny_folder), "--quiet", "--log", "csv", "--output", str(tmp_path / name),
        ]  # fmt: skip
        running[name] = subprocess.Popen(call, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True)
    for name, process in running.items():
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, (name, errors)
        (path,) = (tmp_path / name).glob("picture_*_seed0.png")
        with Image.open(path) as image:
            made[name] = (image.tobytes(), len(list((tmp_path / name / "logs").rglob("metrics.csv"))))
    assert made == dict.fromkeys(made, made["nothing"])
