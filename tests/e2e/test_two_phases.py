"""A screen and its confirmation by one command, which is killed in the second half."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep_process import (
    SweepProcess,
    numbers_of,
    read_plan,
    run_sweep,
    settings,
    statuses,
    trials_of,
)

from sweeps.events import read_events

pytestmark = pytest.mark.slow


def phases_of(folder: Path) -> dict[str, str]:
    """Each trial's phase."""
    return {trial: where.read()["phase"] for trial, where in trials_of(folder).items()}


def has_confirming_rows(folder: Path) -> bool:
    """Whether the confirmation has begun to leave rows."""
    begun = trials_of(folder).values()
    return any(where.rows() and where.read()["phase"] == "confirm" for where in begun)


def test_a_screen_is_confirmed_by_the_same_command_whenever_it_is_killed(results: Path) -> None:
    folder = results / "both"
    command = settings(
        results,
        "name=both",
        "phase=both",
        "confirm.seeds=2",
        "scheduler=asha",
        "scheduler.control_fraction=0",
        "tracking=none",
    )
    with SweepProcess(results / "both_killed.log", command) as driver:
        driver.wait_until(lambda: has_confirming_rows(folder))
        driver.kill()
    chosen = read_plan(folder)["confirm"]["chosen"]
    code, output = run_sweep(results / "both_ended.log", command)
    assert code == 0, output

    plan = read_plan(folder)
    assert plan["confirm"]["chosen"] == chosen
    assert len(read_events(folder / "events.jsonl", "choice")) == len(chosen) == 2
    phases = phases_of(folder)
    assert sorted(phases.values()) == ["confirm"] * 4 + ["screen"] * 4
    assert set(phases) == {trial["trial_id"] for trial in plan["trials"]}
    rows = numbers_of(folder)
    for trial, status in statuses(folder).items():
        steps = [row["step"] for row in rows[trial]]
        assert steps == sorted(set(steps))
        last = rows[trial][-1]
        if phases[trial] == "confirm":
            assert status == "finished"
            assert last["test_accuracy"] is not None
            assert last["seed"] in (1000, 1001)
            assert last["rung"] == 240
        else:
            assert status in ("finished", "stopped")
            assert "test_accuracy" not in last
    for choice in chosen:
        (screened,) = choice["trial_ids"]
        assert rows[screened][-1]["dev_loss"] == choice["dev_loss"]
    assert "Report: " in output
    assert (folder / "report" / "report.html").exists()
