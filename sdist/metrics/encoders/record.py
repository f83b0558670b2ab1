"""What an evaluation says about a network that it measured with."""

from typing import Any

from torch import nn

from ...models.fingerprint import fingerprint

Record = dict[str, Any]  # "id", "version" (the hub's commit), "weights" (their fingerprint), and what its input is


def record(source: str, network: nn.Module, **reads: Any) -> Record:
    """By where it was loaded from, and by what its scores depend on."""
    commit = getattr(getattr(network, "config", None), "_commit_hash", None)
    return {"id": source, **({"version": commit} if commit else {}), "weights": fingerprint([network]), **reads}
