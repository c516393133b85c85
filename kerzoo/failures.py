"""Why a trial failed, because what to do about it depends on the cause.

| cause         | what is done                                                             |
|---------------|--------------------------------------------------------------------------|
| configuration | nothing: a setting is wrong                                              |
| code          | nothing: the same would happen again                                     |
| device_memory | again without a neighbour on the device, then with smaller micro-batches |
| host_memory   | again without a neighbour on the machine, then with smaller micro-batches|
| disk          | the sweep stops, because all trials write to the same place              |
| lost_worker   | again, `failures.max_lost` times; so is what did not answer in time      |
| preempted     | again, as often as it takes                                              |

Divergence is a result and no failure. This module imports no torch.
"""

from __future__ import annotations

import dataclasses
import errno
import re
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

Cause = Literal[
    "configuration",
    "code",
    "device_memory",
    "host_memory",
    "disk",
    "lost_worker",
    "preempted",
]
MEMORY_CAUSES: frozenset[Cause] = frozenset({"device_memory", "host_memory"})

_DISK_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EIO,
        errno.EACCES,
        errno.EPERM,
    }
)
_ROOM = Path(__file__).resolve().parent
_ROOT = _ROOM.parent
_DEVICE_TEXT = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
)
_HOST_TEXT = re.compile(r"DefaultCPUAllocator: (can't|not enough)|Cannot allocate memory")
_DISK_TEXT = re.compile(r"No space left on device|Disk quota exceeded|File too large")


@dataclasses.dataclass(frozen=True)
class Failure:
    """What trial.json holds of a failure.

    Attributes:
        cause: What decides about another attempt.
        kind: The exception's type.
        message: Its text.
        where: The last line of this package that it passed through, else the line that raised it.
        traceback: All of it.
    """

    cause: Cause
    kind: str
    message: str
    where: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception that was caught."""
        text = "".join(traceback.format_exception(error))
        return cls(classify(error), type(error).__name__, str(error), place_of(error), text)

    def to_dict(self) -> dict[str, str]:
        """The failure as a plain dict."""
        return dataclasses.asdict(self)


def classify(error: BaseException) -> Cause:
    """The cause of an exception.

    A ValueError that was raised in this package is the configuration's, as is a file that is not
    there; one from elsewhere is the code's.
    """
    text = str(error)
    if _is_device_memory(error) or (isinstance(error, RuntimeError) and _DEVICE_TEXT.search(text)):
        return "device_memory"
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return "host_memory"
    if isinstance(error, RuntimeError) and _HOST_TEXT.search(text):
        return "host_memory"
    if getattr(error, "errno", None) in _DISK_ERRORS or _DISK_TEXT.search(text):
        return "disk"
    if isinstance(error, FileNotFoundError):
        return "configuration"
    if isinstance(error, TimeoutError):  # a lock that a process holds which hangs
        return "lost_worker"
    if isinstance(error, ValueError) and _raised_here(error):
        return "configuration"
    return "code"


def place_of(error: BaseException) -> str:
    """File, line and function, as `kerzoo/estimator.py:88 in estimate`; "" without a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _ROOT in Path(frame.filename).parents]
    if not frames:
        return ""
    frame = own[-1] if own else frames[-1]
    path = Path(frame.filename)
    name = path.relative_to(_ROOT) if own else Path(path.name)
    return f"{name.as_posix()}:{frame.lineno} in {frame.name}"


def group_alike(failures: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Trials whose failures have the same cause, type and place; the largest group first.

    Args:
        failures: `failure` of trial.json, by trial.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for trial, failure in failures.items():
        groups.setdefault(likeness(failure), []).append(trial)
    return sorted(groups.values(), key=len, reverse=True)


def likeness(failure: Mapping[str, Any]) -> tuple[str, ...]:
    """What two failures that are alike have in common; the message where no place is known."""
    place = failure.get("where") or failure.get("message")
    return tuple(str(value) for value in (failure.get("cause"), failure.get("kind"), place))


def all_alike(failures: Iterable[Mapping[str, Any]]) -> bool:
    """Whether there are failures, and no two of them differ."""
    return len({likeness(failure) for failure in failures}) == 1


def _is_device_memory(error: BaseException) -> bool:
    """torch.OutOfMemoryError, known by name so that torch need not be imported."""
    return any(
        kind.__name__ == "OutOfMemoryError" and kind.__module__.partition(".")[0] == "torch"
        for kind in type(error).__mro__
    )


def _raised_here(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return not frames or _ROOM in Path(frames[-1].filename).parents
