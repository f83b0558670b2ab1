"""What our encoders make of a trace's image and prompts."""

import torch
from torch import Tensor

from ..files.images import to_pixels
from ..models.base import Backbone
from ..models.text import TextWithT5
from .kinds import Case
from .trace import image_of, text_arrays


def inputs(model: Backbone, case: Case, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """z_src and the embedded prompts, under the names of those that were recorded."""
    if "t5_tokens" in case.settings and isinstance(model.text, TextWithT5):
        model.text.t5_tokens = int(case.settings["t5_tokens"])
    settings = {"target_prompt": case.settings.get("prompt"), **case.settings}
    prompts = {name: settings.get(f"{name}_prompt") for name in ("source", "target")} | {"null": ""}
    named = {name: prompt for name, prompt in prompts.items() if prompt is not None and f"emb_{name}" in recorded}
    arrays = text_arrays({name: model.embed([prompt]) for name, prompt in named.items()})
    if case.settings.get("encoding") != "sampled posterior":
        arrays["z_src"] = model.encode(to_pixels([image_of(recorded)]))
    return {name: value for name, value in arrays.items() if torch.is_tensor(recorded.get(name))}
