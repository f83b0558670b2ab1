"""What the allocator of the C library is told."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from sdist.models.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def work():
    return [torch.ones(2**20) for _ in range(8)]  # of 4 MiB each
work(), work(), work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    return int(subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_pages_that_were_freed_are_used_again() -> None:
    assert faults("kept") < 1000 < faults("default")
