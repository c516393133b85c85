"""A trial that was stopped and has lost rows since makes them again, and no decision is new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeps.events import EventLog
from sweeps.schedulers import Race, StratifiedASHA
from sweeps.schedulers.standings import Entrant

RUNGS = (36, 72)


def resume(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> Race:
    rule = StratifiedASHA("asha", reduction_factor=2.0, survivors_per_arm=0)
    entrants = [Entrant(trial, "a", RUNGS, rule.decided_rungs(RUNGS, 0)) for trial in rows]
    race = Race(rule, entrants, EventLog(folder / "events.jsonl"))
    race.resume(rows)
    return race


def rows_of(loss: float) -> list[dict[str, Any]]:
    return [{"rung": rung, "dev_loss": loss, "diverged": False} for rung in (0, 36)]


def test_a_stopped_trial_without_its_rows_goes_on_to_where_it_was_stopped(tmp_path: Path) -> None:
    whole = {"one": rows_of(0.5), "two": rows_of(0.6)}
    assert resume(tmp_path, whole).standing("two") == "stop"
    before = (tmp_path / "events.jsonl").read_bytes()
    race = resume(tmp_path, {**whole, "two": []})
    standings = [race.standing("two")]
    for row in whole["two"]:
        race.arrive("two", row)
        standings.append(race.standing("two"))
    assert standings == ["continue", "continue", "stop"]
    assert (tmp_path / "events.jsonl").read_bytes() == before
