"""Synchronous halving on real Ray processes: whatever happens changes no survivor."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from decisions import read_events, survivors_of
from sweep_process import (
    RUNGS,
    SweepProcess,
    num_rows,
    numbers_of,
    run_sweep,
    settings,
    statuses,
    trials_of,
)

pytestmark = pytest.mark.chaos


def test_a_driver_killed_while_trials_wait_changes_no_survivor_and_no_row(
    results: Path, undisturbed: tuple[Path, str]
) -> None:
    whole = numbers_of(undisturbed[0])
    reached = survivors_of(whole, RUNGS)
    folder = results / "waiting"
    command = settings(
        results,
        "name=waiting",
        "scheduler=halving",
        "scheduler.reduction_factor=2",
        "scheduler.survivors_per_arm=0",
        "scheduler.control_fraction=0",
        "tracking=none",
    )
    with SweepProcess(results / "waiting_killed.log", command) as driver:
        driver.wait_until(lambda: "paused" in statuses(folder).values() and num_rows(folder) >= 6)
        driver.kill()
    code, output = run_sweep(results / "waiting_ended.log", command)
    assert code == 0, output

    rows = numbers_of(folder)
    assert {trial: rows[trial][-1]["rung"] for trial in rows} == reached
    assert all(rows[trial] == whole[trial][: len(rows[trial])] for trial in rows)
    expected = {t: "finished" if rung == RUNGS[-1] else "stopped" for t, rung in reached.items()}
    assert statuses(folder) == expected
    for where in trials_of(folder).values():
        steps = [row["step"] for row in where.rows()]
        assert steps == sorted(set(steps))
    events = read_events(folder)
    assert Counter(event["rung"] for event in events) == {RUNGS[0]: 4, RUNGS[1]: 2}
    assert all(json.dumps(event["compared"]) != "{}" for event in events)
