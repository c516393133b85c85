"""How a sweep stands, read from its folder alone."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sweeps import status
from sweeps.events import EventLog
from sweeps.lock import driver_lock, is_driven
from sweeps.plan import Plan, make_plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    base = ["+sweep=quickstart", "model=opt-tiny", "arm=mezo", "training.learning_rate=1e-2"]
    plan = make_plan([*base, f"results_dir={tmp_path}"], "test")
    plan.write()
    plan.create_trials()
    return plan


def start(plan: Plan, pid: int, host: str | None = None) -> EventLog:
    log = EventLog(plan.folder / "events.jsonl")
    log.write("started", host=host or socket.gethostname(), pid=pid, forward_passes=0)
    return log


def shown(plan: Plan, capsys: pytest.CaptureFixture[str]) -> str:
    assert status.main([str(plan.folder)]) == 0
    return capsys.readouterr().out


def test_a_sweep_that_runs_shows_counts_rows_and_failures(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    start(plan, os.getpid())
    running, failed = (plan.trial_folder(spec.trial_id) for spec in plan.specs[:2])
    row = {"step": 18, "rung": 36, "forward_passes": 36, "dev_loss": 0.625}
    running.begin_attempt().append_row(row)
    failed.update(status="failed", failure={"kind": "KeyError", "message": "'label'\nmore"})
    text = shown(plan, capsys)
    assert "quickstart: the driver runs" in text
    assert f"1/{len(plan.specs)} trials ended; 1 failed" in text
    assert "36 of " in text
    assert "0.6250" in text
    assert "1 × KeyError: 'label'" in text
    assert "started" in text


def test_the_driver_is_said_to_run_to_have_left_or_to_have_been_killed(plan: Plan) -> None:
    assert "has not started" in status.take(plan.folder).driver
    gone = subprocess.Popen(["true"])
    gone.wait()
    log = start(plan, gone.pid)
    assert "was killed" in status.take(plan.folder).driver
    log.write("interrupted", trials=4, left=2, failed=0)
    assert status.take(plan.folder).driver == "has left (interrupted)"
    start(plan, 1, host="another")
    assert "was started on another" in status.take(plan.folder).driver


def test_between_two_phases_the_driver_is_said_to_run(plan: Plan) -> None:
    start(plan, os.getpid()).write("ended", trials=4, left=0, failed=0)
    assert not is_driven(plan.folder)
    with driver_lock(plan.folder):
        assert is_driven(plan.folder)
        assert status.take(plan.folder).driver == "runs"
    assert status.take(plan.folder).driver == "has left (ended)"


def test_the_rest_is_extrapolated_from_what_this_start_made(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [status.Trial("a", "mezo", "running", 100, {"forward_passes": 60}, {})]
    begun: dict[str, Any] = {"time": "2020-01-01T00:00:00+00:00", "forward_passes": 60}
    assert status._eta_s(begun, trials) is None
    eta = status._eta_s({**begun, "forward_passes": 40}, trials)
    elapsed = status._eta_s({**begun, "forward_passes": 20}, trials)
    assert eta == pytest.approx(2 * (elapsed or 0), rel=1e-3)


def test_trials_that_lost_rows_are_named_and_count_as_open(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    first = plan.trial_folder(plan.specs[0].trial_id)
    writer = first.begin_attempt()
    for rung in (0, *plan.specs[0].rungs):
        writer.append_row({"step": rung // 2, "rung": rung, "forward_passes": rung})
    writer.set_status("finished")
    text = shown(plan, capsys)
    assert f"1/{len(plan.specs)} trials ended; 1 finished" in text
    assert "lack rows" not in text
    first.records_path.unlink()
    text = shown(plan, capsys)
    assert f"0/{len(plan.specs)} trials ended; 1 interrupted" in text
    assert f"lack rows of their records: {plan.specs[0].trial_id}. " in text
    assert "running the sweep again completes them" in text


def test_following_ends_when_the_driver_has_left(plan: Plan) -> None:
    start(plan, os.getpid()).write("ended", trials=4, left=0, failed=0)
    assert status.main([str(plan.folder), "--follow"]) == 0


def test_a_folder_without_a_plan_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status.main([str(tmp_path)]) == 2
    assert "no plan.json there" in capsys.readouterr().err
