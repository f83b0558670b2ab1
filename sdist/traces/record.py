"""A trace of our own run, so that another implementation can be held against it."""

import numpy as np
import torch

from ..editors.loading import LoadedMethod
from ..editors.score_distillation import ScoreDistillation
from ..edits.request import Prepared
from ..errors import UserError
from .case import case_of
from .run import observe
from .trace import Trace, names_of
from .verify import embedded, scaled


def record(loaded: LoadedMethod, prepared: Prepared) -> Trace:
    """Runs one edit and keeps its draws and quantities. UserError for what the format does not tell."""
    editor, backbone = loaded.editor, loaded.model
    if not isinstance(editor, ScoreDistillation):
        raise UserError("a trace holds a run of score distillation; this method is another editor")
    if prepared.mask is not None or editor.prompts.null:
        raise UserError("a trace can hold neither a mask image nor a null prompt of one's own")
    edit, method = editor.encode(backbone, [prepared]), editor.method(backbone)
    told = {
        "source_prompt": prepared.request.source,
        "target_prompt": prepared.request.target,
        "token_index": list(prepared.tokens),
        "prediction_type": backbone.prediction_type,
        "vae_scaling_factor": float(backbone.vae.config.scaling_factor),
    }
    case = case_of(method, (edit.source.shape[-2], edit.source.shape[-1]), **told)
    ours = observe(backbone, edit, method, (prepared.request.seed, prepared.key))
    image = torch.from_numpy(np.array(prepared.image))
    text = embedded(backbone, case)
    arrays = {**ours, **scaled(ours, case), **text, "image": image, "z_src": edit.source.cpu()}
    return Trace(case, text | {name: arrays[name] for group in names_of(case.method) for name in group})
