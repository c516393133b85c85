"""A search that learns, with Ray and without: a kill changes no point and no row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sweep_process import ROOT, SweepProcess, numbers_of, read_plan, run_sweep, settings, statuses

from sweeps.plan import ask_generation, make_plan

pytestmark = pytest.mark.slow


def command_of(results: Path, name: str) -> list[str]:
    """Two generations of two points for each of two arms, every trial to its end."""
    rates = "training.learning_rate:{low:1e-3,high:3e-2,log:true}"
    scales = "training.perturbation_scale:[1e-2]"
    return settings(
        results,
        f"name={name}",
        f"space={{arm:[mezo,legendre2],{scales},{rates}}}",
        "search=optuna",
        "search.num_samples=4",
        "search.generation=2",
        "scheduler=fifo",
        "tracking=none",
    )


def run_without_ray(overrides: list[str]) -> Path:
    """Each generation's trials one after another in one process; the results folder."""
    plan = make_plan(overrides, "")
    for is_last in (False, True):
        plan.write()
        plan.create_trials()
        command = [sys.executable, "-m", "kerzoo.training", str(plan.folder / "plan.json")]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        assert (ask_generation(plan, pytest.fail) is None) == is_last
    return plan.folder


def asked_in(folder: Path) -> dict[str, Any]:
    """What a plan says of its search, and of its trials."""
    plan = read_plan(folder)
    kept = {key: plan[key] for key in ("search", "studies", "generations", "cells", "strata")}
    return {**kept, "trials": [trial["trial_id"] for trial in plan["trials"]]}


def test_a_sweep_killed_in_its_second_generation_ends_as_one_that_ran_through(
    results: Path,
) -> None:
    folder, command = results / "killed_in_2", command_of(results, "killed_in_2")
    with SweepProcess(results / "killed_in_2.log", command) as driver:
        driver.wait_until(lambda: len(numbers_of(folder)) == 8)
        driver.wait_until(lambda: sum(map(bool, numbers_of(folder).values())) >= 5)
        driver.kill()
    assert "Generation 2: 4 more trials." in driver.output()
    assert "finished" in statuses(folder).values()
    assert set(statuses(folder).values()) != {"finished"}
    code, output = run_sweep(results / "killed_in_2_ended.log", command)
    assert code == 0, output

    through = run_without_ray(command_of(results, "through"))
    assert asked_in(folder) == asked_in(through)
    assert numbers_of(folder) == numbers_of(through)
    assert set(statuses(folder).values()) == {"finished"}
    report = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "tuning, not sensitivity" in report
