"""The checker of decisions: it accepts what happened and finds what was changed afterwards."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerzoo.records import write_json
from sweeps import check
from sweeps.compose import CONF, compose
from sweeps.events import EventLog
from sweeps.schedulers import Race, Scheduler, entrants_of

RUNGS = [36, 72, 144]
OPTIONS = sorted(path.name.removesuffix(".yaml") for path in (CONF / "scheduler").glob("*.yaml"))
Events = list[dict[str, Any]]


class Sweep:
    """24 trials of two arms, run in random order, as they lie on disk."""

    def __init__(self, folder: Path, option: str) -> None:
        self.folder = folder
        self.scheduler: Scheduler = compose([f"scheduler={option}"]).sweep.scheduler
        generator = random.Random(3)
        trials = [f"t{i:02}" for i in range(24)]
        self.plan = {
            "config": {"scheduler": self.scheduler.describe()},
            "trials": [
                {"trial_id": t, "arm": "ab"[i % 2], "rungs": RUNGS} for i, t in enumerate(trials)
            ],
            "strata": {"one": trials[:12], "two": trials[12:]},
            "control_trials": ["t05"],
            "brackets": {t: int(t[1:]) % 2 for t in trials} if option == "hyperband" else {},
        }
        write_json(folder / "plan.json", self.plan)
        losses = {t: [generator.random() for _ in RUNGS] for t in trials}
        race = self.race()
        reached = dict.fromkeys(trials, 0)
        while going := [t for t in trials if race.standing(t) == "continue" and reached[t] < 3]:
            trial = generator.choice(going)
            rung = RUNGS[reached[trial]]
            row = {"rung": rung, "dev_loss": losses[trial][reached[trial]], "diverged": False}
            reached[trial] += 1
            if trial == "t07" and reached[trial] == 1:
                self.status(trial, "failed")
                reached[trial] = 3
                race.lose(trial)
                continue
            if trial == "t09":
                row |= {"dev_loss": None, "diverged": True}
            self.add_row(trial, row)
            if generator.random() < 0.2:  # the driver is killed before it decides
                race = self.race()
            else:
                race.arrive(trial, row)
        for trial in trials:
            if trial not in ("t07", "t09"):
                stopped = race.standing(trial) == "stop"
                self.status(trial, "stopped" if stopped else "finished")
        self.status("t09", "diverged")

    def race(self) -> Race:
        log = EventLog(self.folder / "events.jsonl")
        race = Race(self.scheduler, entrants_of(self.scheduler, self.plan), log)
        rows = {path.name: self.rows(path.name) for path in (self.folder / "trials").glob("*")}
        race.resume(rows, ["t07"] if self.path("t07").joinpath("trial.json").exists() else [])
        return race

    def path(self, trial: str) -> Path:
        path = self.folder / "trials" / trial
        path.mkdir(parents=True, exist_ok=True)
        return path

    def status(self, trial: str, status: str) -> None:
        write_json(self.path(trial) / "trial.json", {"status": status})

    def rows(self, trial: str) -> list[dict[str, Any]]:
        path = self.path(trial) / "records.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def add_row(self, trial: str, row: dict[str, Any]) -> None:
        with (self.path(trial) / "records.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


@pytest.mark.parametrize("option", OPTIONS)
def test_what_happened_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    Sweep(tmp_path, option)
    assert check.main([str(tmp_path)]) == 0, capsys.readouterr().out
    number, said = capsys.readouterr().out.strip().split(maxsplit=1)
    assert said == "decisions hold"
    assert (int(number) == 0) == (option == "fifo")


def first(events: Events, **wanted: Any) -> dict[str, Any]:
    found = (e for e in events if all(e.get(k) == v for k, v in wanted.items()))
    return next(e for e in found if e["event"] != "decision" or len(e["compared"]) > 2)


def flip(events: Events) -> None:
    first(events, event="decision", decision="stop")["decision"] = "continue"


def forget_a_rival(events: Events) -> None:
    compared = first(events, event="decision", decision="stop")["compared"]
    del compared[next(iter(compared))]


def move_the_cutoff(events: Events) -> None:
    first(events, event="decision", decision="stop")["cutoff"] += 1.0


def loosen_the_rule(events: Events) -> None:
    event = first(events, event="decision", decision="stop")
    event["rule"] = event["rule"] | {"reduction_factor": 1.01}


def decide_twice(events: Events) -> None:
    events.append(events[next(i for i, e in enumerate(events) if e["event"] == "decision")])


def drop_an_arrival(events: Events) -> None:
    events.remove(first(events, event="arrival", recorded=None))


def drop_a_stop(events: Events) -> None:
    events.remove(first(events, event="decision", decision="stop"))


def change_a_value(events: Events) -> None:
    next(e for e in events if e["event"] == "arrival" and e["value"])["value"] += 0.5


@pytest.mark.parametrize("option", ["asha", "halving"])
@pytest.mark.parametrize(
    "tamper",
    [
        flip,
        forget_a_rival,
        move_the_cutoff,
        loosen_the_rule,
        decide_twice,
        drop_an_arrival,
        drop_a_stop,
        change_a_value,
    ],
)
def test_a_changed_event_is_found(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    tamper: Callable[[Events], None],
) -> None:
    Sweep(tmp_path, option)
    path = tmp_path / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    tamper(events)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert check.main([str(tmp_path)]) == 1
    assert "do not hold" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["asha", "halving"])
def test_a_changed_or_added_row_or_status_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    sweep = Sweep(tmp_path, option)
    stopped = next(t for t in sweep.race().standings.dropped if t not in ("t05", "t07", "t09"))
    rows = sweep.rows(stopped)
    path = sweep.path(stopped) / "records.jsonl"
    whole = path.read_text()

    path.write_text("".join(json.dumps(r | {"dev_loss": r["dev_loss"] / 2}) + "\n" for r in rows))
    assert check.main([str(tmp_path)]) == 1
    assert "the records say" in capsys.readouterr().out

    path.write_text(whole)
    sweep.add_row(stopped, {"rung": RUNGS[-1], "dev_loss": 0.1, "diverged": False})
    sweep.status(stopped, "finished")
    assert check.main([str(tmp_path)]) == 1
    assert f"has a row at rung {RUNGS[-1]}" in capsys.readouterr().out

    path.unlink()
    assert check.main([str(tmp_path)]) == 1
    assert "but has no row" in capsys.readouterr().out


def test_a_folder_without_a_plan_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([str(tmp_path)]) == 2
    assert "plan.json: cannot be read" in capsys.readouterr().err
    write_json(tmp_path / "plan.json", {"trials": [], "config": {}})
    assert check.main([str(tmp_path)]) == 2
    assert "has no brackets, control_trials, strata" in capsys.readouterr().err
