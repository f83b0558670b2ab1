"""Variables of the environment with which the libraries cannot be imported; elsewhere they would end in a traceback."""

import os

from ..errors import UserError

NUMBERS = (  # that are read as whole numbers when a package is imported
    *("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"),  # Lightning
    *("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"),  # the hub's library
)
TORCH = {"1", "ON", "YES", "TRUE", "AUTO"}  # values of USE_TORCH with which diffusers works


def check_environment() -> None:
    """Raises UserError for a variable that keeps the libraries from being imported."""
    for name in NUMBERS:
        value = os.environ.get(name)
        if value is not None and not value.strip().removeprefix("-").isdecimal():
            raise UserError(f"the environment variable {name} is {value!r}, where the libraries read a whole number; unset it")
    if (value := os.environ.get("USE_TORCH", "AUTO")).upper() not in TORCH:
        raise UserError(f"the environment variable USE_TORCH is {value!r}, which turns PyTorch off in the libraries; unset it")
