"""One undisturbed sweep, with which all others are compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep_process import run_sweep, settings


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all sweeps of the session leave their results."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def undisturbed(results: Path) -> tuple[Path, str]:
    """The folder of a sweep that ran through, every trial to its end, and what it printed."""
    code, output = run_sweep(
        results / "undisturbed.log", settings(results, "name=undisturbed", "scheduler=fifo")
    )
    assert code == 0, output
    return results / "undisturbed", output
