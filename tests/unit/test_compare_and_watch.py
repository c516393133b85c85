"""Two sweeps side by side, and the report of one that still runs."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from records_factory import LEARNING_RATE, SEED, SimulatedSweep, default_gain
from scipy import stats

from analysis.__main__ import main
from analysis.compare import compare_sweeps
from analysis.sources import ResultsError
from analysis.watch import State, describe_change, is_running, take_state, watch


def compare(root: Path, **changes: Any) -> dict[str, Any]:
    """A sweep and another that differs in something; their tables by name."""
    first = SimulatedSweep(name="one", seeds=(0, 1, 2)).write(root)
    second = SimulatedSweep(**{"name": "two", "seeds": (0, 1, 2), **changes}).write(root)
    return {name: table for name, (_, table) in compare_sweeps(first, second).tables.items()}


def test_paired_differences_are_those_of_a_plain_recomputation(tmp_path: Path) -> None:
    shift = (0.01, 0.02, 0.04)
    tables = compare(tmp_path, gain=lambda v: default_gain(v) + shift[int(v[SEED])])
    frame = tables["pairs"].frame
    row = frame[(frame["arm"] == "mezo") & (frame["outcome"] == "dev loss")].iloc[0]
    reference = stats.ttest_1samp([-d for d in shift], 0)
    low, high = reference.confidence_interval(0.95)
    assert (row["low"], row["high"], row["p"]) == pytest.approx((low, high, reference.pvalue))
    assert (row["pairs"], row["seeds"]) == (12, 3)


def test_what_differs_in_the_design_is_listed_and_nothing_else(tmp_path: Path) -> None:
    tables = compare(tmp_path, learning_rates=(0.01, 0.03))
    (row,) = tables["design"].frame.to_dict("records")
    assert row == {"key": f"swept.{LEARNING_RATE}", "a": "0.003, 0.01", "b": "0.01, 0.03"}
    assert set(tables["coverage"].frame["pairs"]) == {6}


def test_sweeps_of_two_models_are_paired_across_them(tmp_path: Path) -> None:
    tables = compare(tmp_path, model="opt-tiny")
    assert set(tables["coverage"].frame["pairs"]) == {12}
    assert "choices.model" in set(tables["design"].frame["key"])


def test_sweeps_without_a_trial_in_common_are_set_side_by_side(tmp_path: Path) -> None:
    tables = compare(tmp_path, seeds=(7, 8))
    assert tables["pairs"].frame.empty
    assert "No trial" in tables["pairs"].note
    chosen = tables["chosen"].frame
    assert list(chosen["sweep"]) == ["A", "B", "A", "B"]


def test_a_difference_of_one_seed_has_no_interval(tmp_path: Path) -> None:
    frame = compare(tmp_path, seeds=(1,))["pairs"].frame
    assert set(frame["seeds"]) == {1}
    assert frame["p"].isna().all()


def test_the_command_prints_and_writes_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (str(SimulatedSweep(name=name).write(tmp_path)) for name in ("one", "two"))
    assert main(["compare", one, two]) == 0
    out = capsys.readouterr().out
    assert "# one (A) and two (B)" in out
    written = Path(out.splitlines()[-1])
    assert written == tmp_path / "one" / "report" / "compared-with-two" / "comparison.md"
    assert {path.suffix for path in written.parent.iterdir()} == {".csv", ".md", ".tex"}


def log(folder: Path, event: str, **values: Any) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": event, **values}) + "\n")


def test_a_driver_runs_from_its_start_until_it_leaves_or_is_killed(tmp_path: Path) -> None:
    assert is_running(tmp_path) is None
    log(tmp_path, "started", host=socket.gethostname(), pid=os.getpid())
    log(tmp_path, "status", trial_id="x")
    assert is_running(tmp_path) is True
    log(tmp_path, "interrupted")
    assert is_running(tmp_path) is False
    log(tmp_path, "resumed", host=socket.gethostname(), pid=2**22 + 1)
    assert is_running(tmp_path) is False
    log(tmp_path, "resumed", host="elsewhere", pid=1)
    assert is_running(tmp_path) is True


def test_what_changed_is_told_with_the_losses_that_fell(tmp_path: Path) -> None:
    state = take_state(SimulatedSweep().write(tmp_path))
    earlier = State(state.statuses.copy(), state.rows - 3, {"mezo": 0.7})
    earlier.statuses.subtract(finished=1)
    earlier.statuses["running"] = 1
    assert describe_change(earlier, state) == (
        "8 finished (+1), 0 running (-1); 3 new rows; mezo: dev loss 0.5800, was 0.7000; "
        "kerzoo_paper: dev loss 0.5400"
    )


@pytest.mark.slow
def test_watching_rebuilds_when_there_is_something_new_and_ends_with_the_sweep(
    tmp_path: Path,
) -> None:
    sweep = SimulatedSweep(arms=("mezo",), epsilons=(0.01,), fate=lambda v: "planned")
    folder = sweep.write(tmp_path)
    (folder / "events.jsonl").unlink()
    log(folder, "started", host=socket.gethostname(), pid=os.getpid())
    told: list[str] = []
    watcher = threading.Thread(target=watch, args=(folder, 0.05, told.append), daemon=True)
    watcher.start()
    wait_for(lambda: len(told) == 1)
    done = SimulatedSweep(arms=("mezo",), epsilons=(0.01,)).write(tmp_path / "done")
    for trial in sorted((done / "trials").iterdir()):
        for name in ("trial.json", "records.jsonl"):
            (trial / name).replace(folder / "trials" / trial.name / name)
    log(folder, "ended")
    watcher.join(60)
    assert not watcher.is_alive()
    assert told[0].startswith("waiting: no records yet")
    assert "2 finished" in told[-2]
    assert told[-1] == "the sweep does not run: 2 finished"
    assert (folder / "report" / "report.html").is_file()


def wait_for(condition: Any, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_watching_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no such results folder"):
        watch(tmp_path / "gone", 0.1, print)
    assert main(["watch", str(tmp_path / "gone")]) == 2
