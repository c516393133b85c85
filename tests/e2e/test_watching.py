"""What a whole sweep leaves for whoever watches it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sweep_process import trials_of

from sweeps import status
from sweeps.events import read_events

pytestmark = pytest.mark.slow


def test_a_sweep_leaves_events_and_a_log_for_each_trial(undisturbed: tuple[Path, str]) -> None:
    folder, _ = undisturbed
    trials = set(trials_of(folder))
    events = read_events(folder / "events.jsonl")
    assert events[0]["event"] == "started"
    assert events[-1]["event"] == "ended"
    named = Counter((entry["event"], entry["trial_id"]) for entry in events if "trial_id" in entry)
    assert {trial for event, trial in named if event == "status"} == trials
    assert all(named["status", trial] == 1 for trial in trials)
    for trial in trials:
        assert "--- begun" in (folder / "trials" / trial / "log.txt").read_text()
    assert status.take(folder).driver == "has left (ended)"
