"""Who drives a results folder: one driver at a time; the lock of one that died is free."""

from __future__ import annotations

from pathlib import Path

import filelock

PATIENCE_S = 1.0
"""How long a driver waits for somebody who only looks."""


def driver_lock(folder: Path, timeout_s: float = PATIENCE_S) -> filelock.BaseFileLock:
    """The lock of a results folder's driver."""
    return filelock.FileLock(folder / ".driver.lock", timeout=timeout_s)


def is_driven(folder: Path) -> bool:
    """Whether a driver holds the folder, as far as this machine can tell."""
    lock = driver_lock(folder, timeout_s=0)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock:
            return False
    except OSError as error:  # another one: it is not ours to lock
        return isinstance(error, TimeoutError)
