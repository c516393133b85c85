"""One undisturbed sweep, with which all others are compared."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sweep_process import run_sweep, settings


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all sweeps of the session leave their results."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def first_sweep(results: Path) -> tuple[Path, str, float]:
    """A sweep that ran through: its folder, what it printed, and how long its driver lived."""
    start = time.monotonic()
    code, output = run_sweep(
        results / "undisturbed.log", settings(results, "name=undisturbed", "scheduler=fifo")
    )
    assert code == 0, output
    return results / "undisturbed", output, time.monotonic() - start


@pytest.fixture(scope="session")
def undisturbed(first_sweep: tuple[Path, str, float]) -> tuple[Path, str]:
    """The folder of a sweep that ran through, every trial to its end, and what it printed."""
    folder, output, _ = first_sweep
    return folder, output


@pytest.fixture(scope="session")
def life_s(first_sweep: tuple[Path, str, float]) -> float:
    """How long the driver of that sweep lived."""
    return first_sweep[-1]
