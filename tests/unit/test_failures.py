"""Causes of failures, and which failures are alike."""

from __future__ import annotations

import errno
from pathlib import Path

import filelock
import pytest
import torch

from kerzoo.failures import Failure, all_alike, classify, group_alike
from kerzoo.options import RADIUS_SCOPES, TrialOptions
from sweeps.tables import describe_failures

CAUSES = {
    "device memory": (torch.OutOfMemoryError("CUDA out of memory."), "device_memory"),
    "device memory by text": (RuntimeError("CUDA error: out of memory"), "device_memory"),
    "blas workspace": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "device_memory"),
    "host memory": (MemoryError(), "host_memory"),
    "host memory by number": (OSError(errno.ENOMEM, "Cannot allocate memory"), "host_memory"),
    "host memory of torch": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        "host_memory",
    ),
    "full disk": (OSError(errno.ENOSPC, "No space left on device"), "disk"),
    "file too large": (OSError(errno.EFBIG, "File too large"), "disk"),
    "not writable": (PermissionError(errno.EACCES, "Permission denied"), "disk"),
    "disk by text": (RuntimeError("Error while serializing: No space left on device"), "disk"),
    "missing file": (FileNotFoundError(errno.ENOENT, "No such file"), "configuration"),
    "a lock that a process holds which hangs": (filelock.Timeout("/x/.lock"), "lost_worker"),
    "bug": (KeyError("loss"), "code"),
    "folder in place of a file": (IsADirectoryError(errno.EISDIR, "Is a directory"), "code"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_an_exception_has_the_cause_that_decides_about_another_attempt(name: str) -> None:
    error, cause = CAUSES[name]
    assert classify(error) == cause


def raised(run: object) -> Exception:
    try:
        run()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError


def test_a_value_error_is_the_configurations_only_where_this_package_raised_it() -> None:
    def ours() -> None:
        TrialOptions.from_config({"training": {}})

    error = raised(ours)
    assert isinstance(error, ValueError | KeyError)
    theirs = Failure.of(raised(lambda: int("three")))
    assert theirs.cause == "code"
    assert theirs.where.startswith("tests/unit/test_failures.py:")
    assert "int('three')" in theirs.traceback or "three" in theirs.message
    assert RADIUS_SCOPES


def test_failures_of_one_place_are_one_line_with_a_count_and_a_traceback() -> None:
    def at(where: str, message: str) -> dict[str, str]:
        return {"cause": "code", "kind": "KeyError", "message": message, "where": where}

    failures = {"a": at("x.py:3 in f", "1"), "b": at("y.py:8 in g", "2")}
    failures["c"] = at("x.py:3 in f", "another message")
    assert group_alike(failures) == [["a", "c"], ["b"]]
    assert not all_alike(failures.values())
    assert all_alike([failures["a"], failures["c"]])
    assert not all_alike([])
    lines = describe_failures(failures, Path("results/x"))
    assert lines == [
        "failed (code): 2 trials alike: KeyError: 1 at x.py:3 in f "
        "(traceback in results/x/trials/a/trial.json)",
        "failed (code): b: KeyError: 2 at y.py:8 in g (traceback in results/x/trials/b/trial.json)",
    ]
