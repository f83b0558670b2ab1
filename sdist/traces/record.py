"""A trace of our own run, so that another implementation can be held against it."""

import numpy as np
import torch

from ..editors.loading import LoadedMethod
from ..editors.score_distillation import ScoreDistillation
from ..edits.request import Prepared
from ..errors import UserError
from .observe import observe
from .recorded_run import run_of
from .trace import Trace, names_of
from .verify import embedded, scaled


def record(loaded: LoadedMethod, prepared: Prepared) -> Trace:
    """Runs one edit and keeps its draws and quantities. Raises UserError for what the format cannot hold."""
    editor, backbone = loaded.editor, loaded.model
    if not isinstance(editor, ScoreDistillation):
        raise UserError("a trace holds a run of score distillation; this method is another editor")
    if prepared.mask is not None or editor.prompts.null:
        raise UserError("a trace can hold neither a mask image nor a null prompt of one's own")
    edit, method = editor.encode(backbone, [prepared]), editor.method(backbone)
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
