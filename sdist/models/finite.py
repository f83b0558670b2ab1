"""Names the network that gave NaN or infinity, so that neither becomes a black image."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

from torch import Tensor

from ..errors import NotFiniteError

ADVICE = "check its weights, or use --precision fp32"


def check_finite(name: str, *values: Tensor) -> None:
    """Raises NotFiniteError for values that are not, which the network of that name gave."""
    if not all(one.isfinite().all() for one in values):
        raise NotFiniteError(f"{name} gave values that are not finite; {ADVICE}")


@contextmanager
def checking_encoders(encoders: Mapping[str, Any]) -> Iterator[None]:
    """Raises NotFiniteError as soon as one of these text encoders, by name, gives something that is not finite."""
    hooks = [e.register_forward_hook(partial(_check_output, f"the {name}")) for name, e in encoders.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def checking_autoencoder(vae: Any, denoiser: str) -> Iterator[None]:
    """The same for an autoencoder that others call, and for latents to decode, which come from the denoiser."""

    def encode(rows: Tensor, *args: Any, **options: Any) -> Any:
        out = wrapped["encode"](rows, *args, **options)
        check_finite("the encoder of the vae", out[0].mode())
        return out

    def decode(latents: Tensor, *args: Any, **options: Any) -> Any:
        check_finite(f"the denoiser ({denoiser})", latents)
        out = wrapped["decode"](latents, *args, **options)
        check_finite("the decoder of the vae", out[0])
        return out

    wrapped: dict[str, Callable[..., Any]] = {"encode": vae.encode, "decode": vae.decode}
    before = {name: value for name, value in vars(vae).items() if name in wrapped}
    vars(vae).update(encode=wraps(vae.encode)(encode), decode=wraps(vae.decode)(decode))
    try:
        yield
    finally:
        for name in wrapped:
            del vars(vae)[name]
        vars(vae).update(before)


def _check_output(name: str, encoder: Any, inputs: Any, output: Any) -> None:
    """A forward hook of an encoder of transformers, whose outputs may be tuples of tensors."""
    for value in output.values():
        check_finite(name, *(value if isinstance(value, tuple) else (value,)))
