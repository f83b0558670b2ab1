"""Which of diffusers' backends computes attention in its transformers, where a layer does not say so itself."""

from importlib import import_module
from typing import Any

from .library import attribute

NATIVE = "native"  # torch's own


def backends() -> list[str]:
    """The names of those that diffusers knows, also where DIFFUSERS_ATTN_BACKEND is another, with which it cannot be imported."""
    from diffusers.utils import constants

    try:
        dispatch = _dispatch()
    except ValueError:
        with attribute(constants, "DIFFUSERS_ATTN_BACKEND", NATIVE):
            dispatch = _dispatch()
    return [backend.value for backend in dispatch.AttentionBackendName]


def backend() -> str:
    """The name of the one that is used."""
    return str(_dispatch()._AttentionBackendRegistry._active_backend.value)


def set_backend(name: str) -> None:
    dispatch = _dispatch()
    dispatch._AttentionBackendRegistry.set_active_backend(dispatch.AttentionBackendName(name))


def _dispatch() -> Any:
    return import_module("diffusers.models.attention_dispatch")
