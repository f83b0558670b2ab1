"""What the nodes ask ComfyUI for, and do without where it is not there (as in tests)."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from sdist.distillation.callbacks import Snapshot

PREVIEW = 512  # pixels of a preview's long side


def comfy(module: str) -> Any:
    """A module of ComfyUI; None outside of it."""
    try:
        return import_module(module)
    except ModuleNotFoundError:
        return None


def file_of(kind: str, name: str) -> str:
    """The path of a file in ComfyUI's folder of that kind (checkpoints, loras, vae, embeddings); else the name as it is.

    FILE:NOTE, as a LoRA's weight, keeps its note.
    """
    folders, (place, colon, note) = comfy("folder_paths"), name.rpartition(":")
    for file, rest in ((name, ""), (place, colon + note)):
        found = folders.get_full_path(kind, file) if folders is not None and file else None
        if found:
            return f"{found}{rest}"
    return name


def checkpoints() -> list[str]:
    """ComfyUI's checkpoints that can be read."""
    folders = comfy("folder_paths")
    listed = [] if folders is None else folders.get_filename_list("checkpoints")
    return [name for name in listed if name.endswith(".safetensors")]


def watcher(images: int) -> Callable[[Snapshot], None]:
    """Shows each step on the node: its bar and the picture; raises ComfyUI's own exception when the user cancels."""
    utils, management = comfy("comfy.utils"), comfy("comfy.model_management")
    bar, before = None, 0

    def show(snapshot: Snapshot) -> None:
        nonlocal bar, before
        if management is not None:
            management.throw_exception_if_processing_interrupted()
        if utils is None:
            return
        bar = bar or utils.ProgressBar(images * snapshot.steps)
        done = before + snapshot.step
        bar.update_absolute(done, images * snapshot.steps, ("JPEG", snapshot.image, PREVIEW))
        before += snapshot.steps if snapshot.step == snapshot.steps else 0

    return show
