"""Freed memory stays with the process: the next tensors take no page from the system."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, torch
from kerzoo.allocation import keep_freed_memory, return_freed_memory

def faults():
    "Pages that the system hands out for twenty tensors of 8 MiB."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.zeros(1 << 21).add_(1) for _ in range(20)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for change in (keep_freed_memory, return_freed_memory, keep_freed_memory):
    change()
    for _ in range(3):
        faults()
    print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_from_then_on_and_returned_when_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    kept, returned, again = map(int, done.stdout.split())
    assert max(kept, again) < 1000
    assert returned > 10_000
