"""What a sweep tells and logs of trials that were taken up, and of those that never were."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from kerzoo.records import Row, TrialFolder, TrialSpec
from sweeps.callbacks import SweepCallback
from sweeps.events import EventLog, read_events
from sweeps.halving import HalvingRule
from sweeps.observers import Observers
from sweeps.progress import Display

TRIALS = ("one", "two", "three")
TAKEN_UP: dict[str, Any] = {"rung": None}
LEFT: dict[str, Any] = {"rung": None, "interrupted": True}


class Sweep:
    """The callback of three trials, as Tune would call it."""

    def __init__(self, root: Path) -> None:
        specs = [TrialSpec(t, "mezo", "screen", [], {}, {}, [36], "command") for t in TRIALS]
        self.folders = {spec.trial_id: TrialFolder(root / spec.trial_id) for spec in specs}
        for spec in specs:
            self.folders[spec.trial_id].create(spec)
        self.console = Console(file=io.StringIO(), width=200)
        labels, states = dict(zip(TRIALS, TRIALS, strict=True)), dict.fromkeys(TRIALS, "planned")
        rows: dict[str, list[Row]] = {trial: [] for trial in TRIALS}
        display = Display(self.console, specs, labels, states, rows, HalvingRule(None))
        self.log = root / "events.jsonl"
        self.gave_up: list[str] = []
        observers = Observers(EventLog(self.log), [], print)
        self.callback = SweepCallback(self.folders, display, observers, self.gave_up.append)

    def report(self, name: str, *results: dict[str, Any]) -> None:
        """A trial starts and reports so."""
        trial = SimpleNamespace(config={"trial_id": name}, last_result=None)
        self.callback.on_trial_start(0, [], trial)
        for result in results:
            self.callback.on_trial_result(0, [], trial, result)
            trial.last_result = result
        if results[-1].get("interrupted"):
            self.callback.on_trial_complete(0, [], trial)

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(event["event"], event["trial_id"]) for event in read_events(self.log)]

    @property
    def lines(self) -> list[str]:
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue().splitlines()


def test_of_a_stop_only_those_trials_tell_that_had_begun(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.folders["one"].begin_attempt()
    sweep.report("one", TAKEN_UP, LEFT)
    sweep.report("two", LEFT)
    sweep.report("three", LEFT)
    assert sweep.events == [("running", "one"), ("status", "one")]
    (line,) = sweep.lines
    assert "one: interrupted" in line
    assert sweep.folders["one"].status == "interrupted"
    assert sweep.folders["two"].status == "planned"


def test_a_trial_that_failed_before_its_next_attempt_is_told_of(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.report("one", TAKEN_UP)
    sweep.folders["one"].update(status="failed", failure={"cause": "lost_worker"})
    sweep.report("one", LEFT)
    assert sweep.events == [("running", "one"), ("failure", "one"), ("status", "one")]
    assert sweep.gave_up == ["one"]
    assert "one: failed" in sweep.lines[0]
