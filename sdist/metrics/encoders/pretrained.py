"""Loads what transformers publishes: frozen, in float32, from safetensors alone."""

from typing import Any

import torch
from safetensors import SafetensorError

from ...errors import UserError
from ...models.catalogue import hub_problem, is_cached, is_folder
from ...models.devices import choose_device


def load_network(kind: str, source: str, device: str, **options: Any) -> Any:
    """A frozen network with all its weights, by the name of its class in transformers and its hub id or folder.

    Raises UserError if it cannot be loaded or lacks weights.
    """
    model, report = load_pretrained(kind, source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options)
    if report["missing_keys"]:
        raise UserError(f"evaluation model {source} is no {kind}: it lacks {sorted(report['missing_keys'])[0]}")
    return model.to(choose_device(device)).eval().requires_grad_(False)


def load_pretrained(kind: str, source: str, **options: Any) -> Any:
    """What `from_pretrained` of that class gives. Raises UserError if it is not on this disk or cannot be loaded."""
    import transformers  # takes seconds, and what a metric is called is asked without it

    problem = None if is_folder(source) or is_cached(source, "config.json") else hub_problem(source)
    if problem:
        raise UserError(f"evaluation model {source}: {problem}. Give a folder or another id")
    try:
        return getattr(transformers, kind).from_pretrained(source, **options)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"evaluation model {source} cannot be loaded as {kind} with safetensors: {reason}") from None
