"""Freed memory stays with the process: the next tensors take no page from the system."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys, torch
from kerzoo.allocation import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.zeros(10 << 20).add_(1) for _ in range(5)]
    del tensors
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _lines_of(program: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept() -> None:
    """Pages that the system hands out for five tensors of 40 MiB, in the round with the fewest."""
    kept, returned = (min(map(int, _lines_of(FAULTS, how))) for how in ("kept", "returned"))
    assert returned > 50_000
    assert kept < 1000


PEAKS = """
import torch
from kerzoo.allocation import keep_freed_memory
from kerzoo.workspace import peak_memory_gib, reset_peak_memory

for count in (4, 60, 4):
    reset_peak_memory("cpu")
    keep_freed_memory()
    tensors = [torch.zeros(3 << 20).add_(1) for _ in range(count)]
    del tensors
    print(peak_memory_gib("cpu"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_trial_is_not_charged_with_what_one_before_it_left() -> None:
    first, large, again = map(float, _lines_of(PEAKS))
    assert large > first + 0.5
    assert again < first + 0.1
