"""How the C library of this process hands out the memory of tensors."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def keep_freed_memory() -> None:
    """Have glibc keep memory that is freed from here on for the next tensor.

    By default it gives large blocks back to the system at once, which hands them out again page
    by page, zeroed: on a CPU a tenth to a sixth of the time of a forward pass. What a step needs
    at its peak stays with the process; blocks of 1 GiB and more are given back as before. Does
    nothing with another C library.
    """
    _set_thresholds(1 << 30, 1 << 30)


def return_freed_memory() -> None:
    """Have glibc do again what it comes to do by itself with blocks of 32 MiB and more."""
    _set_thresholds(32 << 20, 64 << 20)


def _set_thresholds(mmap: int, trim: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, mmap)
        mallopt(_TRIM_THRESHOLD, trim)
