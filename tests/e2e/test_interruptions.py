"""Sweeps that are killed and interrupted, and end as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from pathlib import Path

import pytest
from decisions import read_events, recompute
from sweep_process import (
    RUNGS,
    SweepProcess,
    assert_no_row_twice,
    num_rows,
    numbers_of,
    read_plan,
    run_sweep,
    settings,
    statuses,
    trials_of,
)

import sweep
from kerzoo.records import ENDED
from sweeps.plan import make_plan

pytestmark = pytest.mark.slow

NUM_TRIALS = 4
NUM_ROWS = NUM_TRIALS * (len(RUNGS) + 1)


def running_mid_trial(folder: Path) -> set[str]:
    """Trials that took steps after their last row."""
    found = set()
    for trial, where in trials_of(folder).items():
        with contextlib.suppress(FileNotFoundError):
            newest = where.trajectory_path.stat().st_mtime
            if where.status == "running" and newest > where.records_path.stat().st_mtime:
                found.add(trial)
    return found


def kill_driver_at(log: Path, command: list[str], folder: Path, rows: int) -> None:
    """Run until there are some rows and a trial is between two of them; SIGKILL to the driver."""
    with SweepProcess(log, command) as driver:
        driver.wait_until(lambda: num_rows(folder) >= rows and bool(running_mid_trial(folder)))
        driver.kill()
    assert_no_row_twice(folder)
    assert set(statuses(folder).values()) - ENDED


def test_a_driver_killed_early_midway_and_late_and_a_killed_worker_change_no_row(
    results: Path, undisturbed: tuple[Path, str]
) -> None:
    folder = results / "killed"
    command = settings(results, "name=killed", "scheduler=fifo")
    for moment, rows in (("early", 1), ("midway", NUM_ROWS // 2), ("late", NUM_ROWS - 2)):
        kill_driver_at(results / f"killed_{moment}.log", command, folder, rows)

    with SweepProcess(results / "killed_worker.log", command) as driver:
        driver.wait_until(lambda: bool(running_mid_trial(folder)) and bool(driver.workers()))
        for worker in driver.workers():
            worker.kill()
        code, output = driver.wait(), driver.output()
    assert code == 0, output
    assert set(statuses(folder).values()) == {"finished"}
    assert_no_row_twice(folder)
    assert numbers_of(folder) == numbers_of(undisturbed[0])
    attempts = [where.read()["attempts"] for where in trials_of(folder).values()]
    assert max(attempts) >= 3
    assert read_plan(folder)["trials"] == read_plan(undisturbed[0])["trials"]


def assert_decisions_are_consistent(folder: Path) -> None:
    """Each decision follows from its own numbers, and those are the rows on disk."""
    plan = read_plan(folder)
    arms = {trial["trial_id"]: trial["arm"] for trial in plan["trials"]}
    scheduler = plan["config"]["scheduler"]
    factor, quota = scheduler["reduction_factor"], scheduler["survivors_per_arm"]
    values = {
        (trial, row["rung"]): row["dev_loss"]
        for trial, where in trials_of(folder).items()
        for row in where.rows()
    }
    last = {}
    for event in read_events(folder):
        rung = event["rung"]
        assert rung in RUNGS[:-1]
        assert event["value"] == values[event["trial_id"], rung]
        assert all(values[trial, rung] == v for trial, v in event["compared"].items())
        said = recompute(event, arms, factor, quota)
        assert event["decision"] == ("continue" if event["exempt"] else said)
        last[event["trial_id"], rung] = event["decision"]
    for trial, status in statuses(folder).items():
        reached = [rung for rung in RUNGS if (trial, rung) in values]
        decided = [last[trial, rung] for rung in reached if rung < RUNGS[-1]]
        assert set(decided[:-1]) <= {"continue"}
        assert (decided[-1] == "stop") == (status == "stopped")
        assert (reached == RUNGS) == (status == "finished")


def assert_time_adds_up(folder: Path) -> None:
    """In each run: steps, evaluations, preparation and tail lie within the slots' time."""
    runs = json.loads((folder / "run.json").read_text())["runs"]
    assert len(runs) >= 2
    for run in runs:
        parts = run["busy_s"] + run["preparation_s"] + run["tail_s"]
        assert parts <= run["slots"] * run["wall_time_s"]
        assert run["efficiency"] is None or 0 <= run["efficiency"] <= 1
    assert runs[-1]["busy_s"] > 0


def test_early_stopping_decides_consistently_through_an_interrupt_and_a_kill(
    results: Path,
    undisturbed: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = results / "halved"
    shutil.copytree(undisturbed[0], folder)
    command = settings(results, "name=halved", "scheduler.survivors_per_arm=0")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    make_plan([*command, "fresh=true"], "so that the second driver is quick")

    with SweepProcess(results / "halved_interrupted.log", [*command, "fresh=true"]) as first:
        first.wait_until(lambda: bool(running_mid_trial(folder)))
        plan = (folder / "plan.json").read_bytes()
        assert sweep.main([*command, "fresh=true"]) == 2
        assert "another sweep is running there" in capsys.readouterr().err
        assert (folder / "plan.json").read_bytes() == plan
        assert first.interrupt() == 130, first.output()
        assert "Archived the old results" in first.output()
        assert "The same command continues." in first.output()
    assert "interrupted" in set(statuses(folder).values())
    assert set(statuses(folder).values()) <= {*ENDED, "interrupted", "planned"}
    archived = [path for path in results.iterdir() if path.name.startswith("halved.archived-")]
    assert len(archived) == 1
    assert numbers_of(archived[0]) == numbers_of(undisturbed[0])

    kill_driver_at(results / "halved_killed.log", command, folder, 1 + num_rows(folder))
    code, output = run_sweep(results / "halved_ended.log", command)
    assert code == 0, output
    assert set(statuses(folder).values()) <= {"finished", "stopped"}
    assert_no_row_twice(folder)
    assert_time_adds_up(folder)
    assert_decisions_are_consistent(folder)
    whole = numbers_of(undisturbed[0])
    for trial, rows in numbers_of(folder).items():
        assert rows == whole[trial][: len(rows)]
