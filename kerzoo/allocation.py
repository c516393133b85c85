"""How the C library of this process hands out the memory of tensors."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_MIB = 1 << 20


def keep_freed_memory() -> None:
    """Have glibc keep memory that is freed from here on for the next tensor.

    By default it gives large blocks back to the system at once, which hands them out again page
    by page, zeroed: on a CPU a tenth to a sixth of the time of a forward pass. What a step needs
    at its peak stays with the process; blocks of 1 GiB and more (of 32 MiB, before glibc 2.35) are
    given back as before. Does nothing with another C library.
    """
    _set_thresholds(1024 * _MIB, 1024 * _MIB)


def keep_little_memory() -> None:
    """Have glibc do again what it comes to do by itself with blocks of 32 MiB and more.

    Gaps that were kept until then are filled first.
    """
    _set_thresholds(32 * _MIB, 64 * _MIB)


def return_free_memory() -> None:
    """Give what is free back to the system, once."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set_thresholds(mmap: int, trim: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        if not mallopt(_MMAP_THRESHOLD, mmap):
            mallopt(_MMAP_THRESHOLD, 32 * _MIB)
        mallopt(_TRIM_THRESHOLD, trim)
