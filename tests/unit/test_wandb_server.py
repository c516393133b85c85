"""W&B over the wire: a server that records, refuses, is not there, or dawdles."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from wandb_server import WandbServer

from kerzoo.records import TrialSpec
from sweeps.plan import Plan, make_plan
from sweeps.sync import send_report
from sweeps.tracking.offline import read_history
from sweeps.tracking.process import WandbProcess

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    plan = make_plan(
        [
            "+sweep=quickstart",
            "model=opt-tiny",
            "arm=mezo",
            "training.learning_rate=1e-2",
            "tracking.mode=online",
            "tracking.entity=team",
            f"results_dir={tmp_path}",
        ],
        "test",
    )
    plan.write()
    plan.create_trials()
    return plan


def append_rows(plan: Plan, spec: TrialSpec, *passes: int) -> None:
    writer = plan.trial_folder(spec.trial_id).begin_attempt()
    for count in passes:
        writer.append_row(
            {"step": count // 2, "rung": count, "forward_passes": count, "dev_loss": 0.7 - count}
        )


def track(plan: Plan, trials: list[str], patience_s: float = 60.0) -> list[str]:
    """One life of the driver's tracking; returns what was said."""
    told: list[str] = []
    tracked = WandbProcess(plan.folder, patience_s)
    tracked.open(told.append)
    for trial in trials:
        tracked.changed(trial)
    tracked.close()
    return told


def push(plan: Plan) -> int:
    """The command, in a process of its own as W&B's settings are one process's."""
    return subprocess.run([sys.executable, "-m", "sweeps.sync", plan.folder], cwd=ROOT).returncode


def files_with(folder: Path, text: str) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


def test_a_resumed_trial_goes_on_with_its_run_without_a_lost_or_doubled_point(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = plan.specs[0]
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        append_rows(plan, spec, 0, 36)
        assert track(plan, [spec.trial_id]) == []
        append_rows(plan, spec, 72)  # recorded, and the driver died before it was sent
        append_rows(plan, spec, 144)
        plan.trial_folder(spec.trial_id).update(status="finished")
        assert track(plan, []) == []
        for _ in range(2):
            assert push(plan) == 0
        history, summary = server.history[spec.trial_id], server.summaries[spec.trial_id]
        assert [row["_step"] for row in history] == [0, 18, 36, 72]
        assert [row["forward_passes"] for row in history] == [0, 36, 72, 144]
        assert summary["status"] == "finished"
        assert summary["objective"] == pytest.approx(0.7 - 144)
        started = server.runs[spec.trial_id]
        assert (started["groupName"], started["jobType"]) == ("quickstart", "screen")
        assert files_with(plan.folder, KEY) == []


def test_the_report_and_its_tables_are_sent_as_an_artifact(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {"report.html": b"<p>", "report.json": b"{}", "tables/trials.csv": b"a"}
    for name, content in contents.items():
        path = plan.folder / "report" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        told: list[str] = []
        send_report(plan.folder, told.append)
        assert told == []
        assert server.runs["report-quickstart"]["jobType"] == "report"
        assert server.committed == ["report-quickstart"]
        assert contents.items() <= server.uploads.items()


@pytest.mark.parametrize("kind", ["refusing", "not there"])
def test_without_a_server_rows_are_kept_offline_and_pushed_later(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    spec = plan.specs[0]
    append_rows(plan, spec, 0, 36)
    plan.trial_folder(spec.trial_id).update(status="finished")
    with WandbServer(status=401) as server:
        url = server.url if kind == "refusing" else "http://127.0.0.1:9"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        told = track(plan, [spec.trial_id], patience_s=120.0)
    assert len(told) == 1, told
    assert "goes on offline" in told[0]
    assert "sweeps.sync" in told[0]
    assert KEY not in told[0]
    (path,) = plan.folder.glob(f"wandb/offline-run-*/run-{spec.trial_id}.wandb")
    assert [row["_step"] for row in read_history(path)] == [0, 18]
    if kind == "refusing":
        assert push(plan) == 1
        return
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert push(plan) == 0
        assert [row["_step"] for row in server.history[spec.trial_id]] == [0, 18]
    assert files_with(plan.folder, KEY) == []


def test_a_slow_server_is_given_up_at_the_end_and_delays_no_trial(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = plan.specs[0]
    append_rows(plan, spec, 0, 36)
    with WandbServer(delay_s=20.0) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        start = time.monotonic()
        told = track(plan, [spec.trial_id] * 100, patience_s=4.0)
        assert time.monotonic() - start < 15
    assert len(told) == 1, told
    assert "did not finish in time" in told[0]
