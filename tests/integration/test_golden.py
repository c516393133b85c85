"""Trials give the numbers that they gave when METHOD_VERSION was raised last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden_trajectories import FOLDER, cases, run_case

from kerzoo import METHOD_VERSION

HOW = (
    "If the change is meant, raise METHOD_VERSION in kerzoo/__init__.py and run "
    "PYTHONPATH=. python tests/golden_trajectories.py"
)
RELATIVE = 1e-5

pytestmark = pytest.mark.usefixtures("own_cache")


def test_every_shipped_arm_has_a_golden_trajectory_of_this_method_version() -> None:
    stored = {path.name.removesuffix(".json"): path for path in FOLDER.glob("*.json")}
    assert set(stored) == set(cases()), HOW
    for path in stored.values():
        assert json.loads(path.read_text())["method_version"] == METHOD_VERSION, HOW


@pytest.mark.parametrize("name", sorted(cases()))
def test_a_short_trial_gives_its_golden_numbers(name: str, tmp_path: Path) -> None:
    golden = json.loads((FOLDER / f"{name}.json").read_text())
    now = run_case(cases()[name], tmp_path)
    for column in ("losses", "dev_losses"):
        assert now[column] == pytest.approx(golden[column], rel=RELATIVE), HOW
