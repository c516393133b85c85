"""Settings and fixtures of all tests; the environment is set before anything reads it."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.update(
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",  # small tensors lose much by threads on a busy machine
    RAY_USAGE_STATS_ENABLED="0",
    TOKENIZERS_PARALLELISM="false",
    WANDB_MODE="offline",
)

# The same examples at every run, and no limit of time: machines that run tests may be busy.
hypothesis.settings.register_profile("kerzoo", deadline=None, derandomize=True)
hypothesis.settings.load_profile("kerzoo")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder that holds sweep.py, the Makefile and the packages."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A folder of larger test data; KERZOO_TEST_DATA names it, tests that need it skip without."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("KERZOO_TEST_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; KERZOO_TEST_DATA names another folder")
    return folder
