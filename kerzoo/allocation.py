"""How the C library of this process hands out the memory of tensors."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_OLD_LIMIT_MIB = 32
"""The largest block that glibc before 2.35 can be asked to keep."""


def keep_freed_memory(limit_mib: int = 1024) -> None:
    """Have glibc keep memory that is freed from here on for the next tensor.

    By default it gives large blocks back to the system at once, which hands them out again page
    by page, zeroed: on a CPU a tenth to a sixth of the time of a forward pass. What a step needs
    at its peak stays with the process. Does nothing with another C library.

    Args:
        limit_mib: Blocks from here on are given back as before, as is all that lies free beyond so
            much; 32 is about what glibc comes to by itself. Gaps that were kept are filled first.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        if not mallopt(_MMAP_THRESHOLD, limit_mib << 20):
            mallopt(_MMAP_THRESHOLD, _OLD_LIMIT_MIB << 20)
        mallopt(_TRIM_THRESHOLD, limit_mib << 20)


def return_free_memory() -> None:
    """Give what is free back to the system, once."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
