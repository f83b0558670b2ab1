"""What tests of the studio share."""

from pathlib import Path

import torch

from sdist.distillation.callbacks import Snapshot
from sdist.models.stable_diffusion import StableDiffusion
from sdist.studio import handle_edit
from sdist.studio.edits import Run, Work
from sdist.studio.form import EditOrder, runs_of
from sdist.studio.limits import Limits
from sdist.studio.timeline import Timeline
from sdist.studio.visitor import Visitor

from ..browser import wait_until

SETTINGS = "scale.threshold=0.01\nscale.cross_level=1\nscale.self_level=0"
REST = {"keep_background": False, "output_size": "edit", "crop": "none", "vae": "", "lora": [], "embedding": []}  # of a form


NO_MODEL = StableDiffusion.__new__(StableDiffusion)  # these snapshots are not decoded


def snapshot(step: int, steps: int) -> Snapshot:
    return Snapshot(step, steps, 1 + step % 3, 0.02 * step, 0.01, torch.full((1, 4, 2, 2), float(step)), None, NO_MODEL)


def a_timeline(made: int, steps: int) -> Timeline:
    timeline = Timeline()
    for step in range(made + 1):
        timeline.add(snapshot(step, steps))
    return timeline


def wanted(picture: Path, model: Path, **changes) -> EditOrder:
    given = {"source": "a cat", "target": "a cat wearing a hat", "methods": ["lusd"], "steps": 3, "overrides": SETTINGS}
    return EditOrder(image=picture, model=str(model), **{**given, **changes})


def a_run(picture: Path, model: Path, **changes) -> Run:
    return runs_of(wanted(picture, model, **changes), Limits())[0]


def work_of(*runs: Run, **given) -> Work:
    return Work(runs, given.pop("limits", Limits()), **{"begins": lambda run: None, **given})


def ended(run: Run) -> Run:
    work_of(run)()
    assert run.result is not None
    return run


def press(visitor: Visitor, target: str = "a cat wearing a hat", **changes) -> dict:
    """Everything between Edit and what stands on the page when its edits have ended."""
    given = {"methods": ["lusd"], "model": visitor.offer.models[0], "seed": 0, "seeds": 1, "steps": 3, "size": "native"}
    given |= {"overrides": SETTINGS, **REST}
    handle_edit.begin(visitor, None, "a cat", target, *{**given, **changes}.values())
    wait_until(lambda: visitor.work.ended, 60)
    return handle_edit.watch(visitor, "")
