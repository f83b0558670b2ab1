"""Tells two trainings of one architecture apart."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any


def fingerprint(networks: Sequence[Any]) -> str:
    """A digest of some values of every weight."""
    digest = sha256()
    for network in networks:
        for name, value in network.named_parameters():
            digest.update(name.encode() + value.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
