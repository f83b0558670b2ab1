"""Variables of the environment with which the libraries cannot be imported; elsewhere they would end in a traceback."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError

NUMBERS = (  # that are read as whole numbers when a package is imported
    *("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"),  # Lightning
    *("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"),  # the hub's library
)
TORCH = {"1", "ON", "YES", "TRUE", "AUTO"}  # values of USE_TORCH with which diffusers works
ATTENTION = "DIFFUSERS_ATTN_BACKEND"
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how threads of OpenMP wait for each other
BUSY = 0.5  # processes that compute or wait for a processor, on average of the last minute, beside which threads sleep
DEPTH = 5  # calls between the line that reads a variable and the one that fails: json's parser has three
SHORT = 4  # letters of a name that is no variable of a library: PATH, HOME


def check_environment() -> None:
    """Raises UserError for a variable that keeps the libraries from being imported."""
    for name in NUMBERS:
        value = os.environ.get(name)
        if value is not None and not value.strip().removeprefix("-").isdecimal():
            raise UserError(f"the environment variable {name} is {value!r}, where the libraries read a whole number; unset it")
    if (value := os.environ.get("USE_TORCH", "AUTO")).upper() not in TORCH:
        raise UserError(f"the environment variable USE_TORCH is {value!r}, which turns PyTorch off in the libraries; unset it")
    if (value := os.environ.get(ATTENTION)) is not None:
        from .models.attention_backend import backends  # imports diffusers

        if value not in (names := backends()):
            known = ", ".join(name for name in names if not name.startswith("_"))
            raise UserError(f"the environment variable {ATTENTION} is {value!r}, diffusers has {known}; unset it")


def sleep_beside_others() -> None:
    """On a machine that is at work already, threads that wait for each other sleep; unless the user has said how they wait.

    By default they spin, which is fastest alone. Beside others each that spins keeps a processor from the one that it waits for
    (docs/performance.md). OpenMP reads the variable when torch is loaded, so this comes before.
    """
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY and not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"


@contextmanager
def naming_variables() -> Iterator[None]:
    """Raises UserError for a ValueError that names a variable which is set, in its message or in the lines that raised it.

    So it is with libraries that read numbers or words from the environment while they are imported, some of them hundreds.
    """
    try:
        yield
    except ValueError as error:
        name = None if isinstance(error, UserError) else _named(error)
        if name is None:
            raise
        reason = " ".join(str(error).split())[:200]
        variable = f"the environment variable {name} is {os.environ[name]!r}"
        raise UserError(f"{variable}, which a library cannot read ({type(error).__name__}: {reason}); unset it") from error


def _named(error: Exception) -> str | None:
    lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)[-DEPTH:]]
    words = set(re.findall(r"\w+", " ".join([str(error), *lines])))
    return next((name for name in os.environ if name in words and len(name) > SHORT), None)
