"""A trace on disk: case.json and trace.safetensors, read with checks, written whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from ..edits.outputs import writable_folder
from ..errors import UserError
from ..files.storage import write_atomic
from ..prediction import Text
from .files import ARRAYS, SETTINGS, read_arrays
from .recorded_run import RecordedRun, read_run, run_json

COMMON = ("image", "z_src", "emb_source", "emb_target", "z_final")
PER_ATTEMPT = {"lusd": ("timestep", "noise", "grad_std", "threshold", "accepted")}  # one row per attempt
PER_STEP = {  # one row per accepted step
    "lusd": ("z_before", "mask", "direction"),
    "dds": ("timestep", "noise", "z_before", "grad"),
    "sds": ("timestep", "noise", "z_before", "grad"),
    "cds": ("timestep", "noise", "z_before", "grad_dds", "grad_cut", "cut_loss", "patch_ids"),
}
NULL = {"lusd": ()}  # methods that do without the null prompt
TEXT = {"emb_": "tokens", "pooled_": "pooled", "text_mask_": "mask"}  # parts of prompts; models that have only tokens: the first


def names_of(method: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The arrays of a method's trace: those of the whole run, those with one row per attempt, those with one row per step."""
    return (*COMMON, *NULL.get(method, ("emb_null",))), PER_ATTEMPT.get(method, ()), PER_STEP[method]


def text_arrays(texts: Mapping[str, Text]) -> dict[str, Tensor]:
    """The arrays of embedded prompts, on the CPU."""
    named = {prefix + name: getattr(text, part) for name, text in texts.items() for prefix, part in TEXT.items()}
    return {name: value.cpu() for name, value in named.items() if value is not None}


def texts_of(arrays: Mapping[str, Tensor]) -> dict[str, Text]:
    """The embedded prompts of a trace by name."""
    names = [name.removeprefix("emb_") for name in arrays if name.startswith("emb_")]
    optional = [prefix for prefix in TEXT if prefix != "emb_"]
    return {name: Text(arrays[f"emb_{name}"], *(arrays.get(prefix + name) for prefix in optional)) for name in names}


def image_of(arrays: Mapping[str, Tensor]) -> Image.Image:
    """The recorded image, (h, w, 3) of bytes."""
    return Image.fromarray(arrays["image"].cpu().numpy())


@dataclass(frozen=True)
class Trace:
    """A recorded run of one image; `arrays` as tests/golden/README.md names them."""

    run: RecordedRun
    arrays: dict[str, Tensor]

    @property
    def steps(self) -> int:
        """How many accepted steps were recorded."""
        return len(self.arrays["z_before"])

    @property
    def z(self) -> Tensor:
        """The latents after each step, (steps, c, h, w)."""
        return torch.cat([self.arrays["z_before"][1:], self.arrays["z_final"]])


def read_trace(folder: Path) -> Trace:
    """Raises UserError if something is missing, unreadable or of the wrong length."""
    run, path = read_run(folder), folder / ARRAYS
    common, per_attempt, per_step = names_of(run.method)
    arrays = read_arrays(folder, *common, *per_attempt, *per_step)
    for group in (per_attempt, per_step):
        lengths = {name: len(arrays[name]) for name in group}
        if len(set(lengths.values())) > 1:
            raise UserError(f"{path}: arrays of one length each were expected, got {lengths}")
    if per_attempt and int(arrays["accepted"].sum()) != len(arrays["z_before"]):
        raise UserError(f"{path}: {int(arrays['accepted'].sum())} accepted attempts, but {len(arrays['z_before'])} steps")
    if not len(arrays["z_before"]) or len(arrays["z_before"]) > run.steps:
        raise UserError(f"{path}: {len(arrays['z_before'])} steps, of which case.json knows {run.steps}")
    return Trace(run, arrays)


def new_trace_folder(folder: Path) -> Path:
    """A writable folder for a trace. Raises UserError if one is there already, which would be lost."""
    if (folder / SETTINGS).exists() or (folder / ARRAYS).exists():
        raise UserError(f"{folder} holds a trace already; name another folder")
    return writable_folder(folder)


def write_trace(folder: Path, trace: Trace) -> None:
    write_atomic(folder / ARRAYS, save({name: value.contiguous() for name, value in trace.arrays.items()}))
    write_atomic(folder / SETTINGS, run_json(trace.run).encode())
