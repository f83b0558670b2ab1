"""Holds a recorded trace against our components: the same draws go in, the same quantities must come out."""

import torch

from ..errors import UserError
from ..files.images import to_pixels
from ..models.base import Backbone
from ..prediction import Edit
from .deviation import Deviation, deviation
from .observe import Arrays, observe
from .recorded_run import RecordedRun
from .trace import TEXT, Trace, image_of, names_of, text_arrays, texts_of

QUANTITIES = {
    "lusd": ("grad_std", "accepted", "mask", "direction", "z"),
    "dds": ("grad", "z"),
    "sds": ("grad", "z"),
    "cds": ("cut_loss", "grad_dds", "grad_cut", "z"),
}


def replay(backbone: Backbone, trace: Trace, forced: bool = False) -> Arrays:
    """Our run with the draws of a trace, in the terms of the trace: its arrays, and `z` after each step."""
    run, recorded, device = trace.run, trace.arrays, backbone.device
    source = recorded["z_src"].to(device)
    text = {name: text.map(lambda part: part.to(device)) for name, text in texts_of(recorded).items()}
    focus = torch.zeros(1, backbone.text.length, device=device)
    if any(not 0 <= i < focus.shape[1] for i in run.token_index):
        raise UserError(f"case.json: token_index {run.token_index} does not fit {focus.shape[1]} tokens")
    focus[0, run.token_index] = 1
    method = run.method_for(*source.shape[-2:])
    ours = observe(backbone, Edit(source, text, focus), method, follow=trace, forced=forced)
    return {**ours, **scaled(ours, run), **_inputs(backbone, trace)}


def scaled(ours: Arrays, run: RecordedRun) -> Arrays:
    """The gradients as traces hold them: times loss_scale / (H W)."""
    height, width = ours["z"].shape[-2:]
    size = run.loss_scale / (height * width)
    named = {"grad": ours["direction"] * size}
    if run.method == "cds":
        named |= {"grad_dds": ours["dds"] * size, "grad_cut": ours["cut"] * run.w_cut}
    return named


def _inputs(backbone: Backbone, trace: Trace) -> Arrays:
    """What our encoders make of the image and of the prompts."""
    pixels = to_pixels([image_of(trace.arrays)])
    return {"z_src": backbone.encode(pixels).cpu(), **embedded(backbone, trace.run)}


def embedded(backbone: Backbone, run: RecordedRun) -> Arrays:
    """What our encoders make of the prompts that the run's method reads."""
    prompts = {"null": "", "source": run.source_prompt, "target": run.target_prompt}
    read = [name for name in prompts if f"emb_{name}" in names_of(run.method)[0]]
    return text_arrays({name: backbone.embed([prompts[name]]) for name in read})


def deviations(ours: Arrays, trace: Trace) -> dict[str, Deviation]:
    """By quantity of the trace's method, and for the encoded image and prompts."""
    recorded = {**trace.arrays, "z": trace.z}
    inputs = [name for name in recorded if name in ours and name.startswith(("z_src", *TEXT))]
    return {name: deviation(ours[name], recorded[name], name) for name in (*QUANTITIES[trace.run.method], *inputs)}
