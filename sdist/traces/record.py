"""A trace of our own run, so that another implementation can be held against it."""

import numpy as np
import torch

from ..editors.loading import LoadedMethod
from ..edits.request import Prepared
from .observe import observe
from .recorded_run import run_of
from .trace import Trace, names_of
from .verify import embedded, scaled


def record(loaded: LoadedMethod, prepared: Prepared) -> Trace:
    """Runs one edit and keeps its draws and quantities. Raises UserError for what the format cannot hold."""
    backbone = loaded.model
    edit, method = loaded.editor.trace_parts(backbone, prepared)
    values = {
        "source_prompt": prepared.request.source,
        "target_prompt": prepared.request.target,
        "token_index": list(prepared.tokens),
        "prediction_type": backbone.prediction_type,
        "vae_scaling_factor": float(backbone.vae.config.scaling_factor),
    }
    run = run_of(method, (edit.source.shape[-2], edit.source.shape[-1]), **values)
    ours = observe(backbone, edit, method, (prepared.request.seed, prepared.key))
    image = torch.from_numpy(np.array(prepared.image))
    text = embedded(backbone, run)
    arrays = {**ours, **scaled(ours, run), **text, "image": image, "z_src": edit.source.cpu()}
    return Trace(run, text | {name: arrays[name] for group in names_of(run.method) for name in group})
