"""Whether float32 is computed as float32: torch may round it to TF32 or bfloat16, which is coarser by three digits."""

from typing import Any, cast

import torch

BACKENDS = cast(Any, torch.backends)
EXACT = "ieee"


def rounding() -> tuple[Any, ...]:
    """What the process has set, for `set_rounding`."""
    if not _by_operation():
        return torch.get_float32_matmul_precision(), BACKENDS.cudnn.allow_tf32
    return tuple(operation.fp32_precision for operation in _operations())


def set_rounding(state: tuple[Any, ...]) -> None:
    if not _by_operation():
        torch.set_float32_matmul_precision(state[0])
        BACKENDS.cudnn.allow_tf32 = state[1]
        return
    for operation, precision in zip(_operations(), state, strict=True):
        operation.fp32_precision = precision


def exact() -> tuple[Any, ...]:
    """No rounding, for `set_rounding`."""
    return (EXACT,) * len(_operations()) if _by_operation() else ("highest", False)


def _by_operation() -> bool:
    """Whether this torch has a setting per operation (2.9); reading the older ones then raises where the newer were used."""
    return all(hasattr(kind, "fp32_precision") for kind in (BACKENDS.cuda.matmul, getattr(BACKENDS.mkldnn, "matmul", None)))


def _operations() -> tuple[Any, ...]:
    return BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv
