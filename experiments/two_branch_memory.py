"""Peak memory of one step of ViMAEdit at Stable Diffusion 1.5's layout, 64 x 64 latents, with random weights.

    python experiments/two_branch_memory.py --narrow 1    # the real width: half a minute and 9 GB of a CPU

Prints what the step needs beyond the loaded networks, and the largest tensor that it makes beside one head's map of 4096 tokens.
"""

import argparse
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from architectures import save_pipeline
from torch.utils._python_dispatch import TorchDispatchMode

from sdist.benchmark.measure import resident
from sdist.config.build import load_settings
from sdist.denoising.base import WalkBack, levels
from sdist.denoising.inversions.virtual import VirtualInversion
from sdist.denoising.sample import sample
from sdist.editors.loading import LoadedMethod, load_method
from sdist.editors.two_branch import TwoBranch
from sdist.edits.request import Request

MIB, SIDE = 2**20, 64


class Largest(TorchDispatchMode):
    """In its block, the elements of the largest tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        tensors = [x for x in (made if isinstance(made, tuple | list) else [made]) if isinstance(x, torch.Tensor)]
        self.elements = max([self.elements, *(x.untyped_storage().nbytes() // x.element_size() for x in tensors)])
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narrow", type=int, default=8, help="1 (the real width), 2, 4 or 8 (default)")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        step(load_method(load_settings("vimaedit", ["size=keep"], model=str(save_pipeline(Path(folder), "sd15", args.narrow)))))


@torch.no_grad()
def step(loaded: LoadedMethod) -> None:
    """The first of 50, with all that a step can have but image guidance."""
    model, editor = loaded.model, cast(TwoBranch, loaded.editor)
    batch = [loaded.prepare(Request(Path("assets/demo.png"), "a field of snow", "a red balloon in the snow"))]
    z = torch.randn(1, 4, SIDE, SIDE)  # in the place of encoded pixels, whose cost is the autoencoder's
    setup = editor.begin(model, batch)
    at = levels(model, editor.solver.timesteps(editor.steps, model.last_timestep), z)[:2]
    inverted = VirtualInversion().start(WalkBack(model, z, setup.text, at, editor.solver, lambda k: torch.randn_like(z)))
    setup = setup._replace(source=z, levels=at, inverted=inverted, noises=replace(setup.noises, like=z))
    course = editor.course(model, batch, setup)
    forget_peak()
    before = resident()
    with Largest() as largest:
        for _ in sample(model, setup.start, setup.text, at, editor.solver, course.plan, inverted):
            pass
    print(f"{(resident() - before) / MIB:.0f} MiB beyond the {before / MIB:.0f} before")
    print(f"largest tensor: {largest.elements / SIDE**4:.2f} of one head's map of {SIDE**2} x {SIDE**2}")


def forget_peak() -> None:
    """Of the resident memory, where the system can: loading takes more than a step may."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
