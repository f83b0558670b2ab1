"""How this process gets its memory from the system."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt, see malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep up to 1 GiB that is free for the tensors to come; another C library is left as it is.

    By default every forward on a CPU gives its activations back and has them zeroed by the system again, page by page.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(TRIM_THRESHOLD, 2**30)
        mallopt(MMAP_THRESHOLD, 2**26)  # only what is larger has pages of its own
