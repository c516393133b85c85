"""Whether early stopping kept its word: every decision recomputed from plan, events and records.

    python -m sweeps.check results/NAME

Exit codes: 0 all decisions hold, 1 some do not (listed), 2 the folder cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kerzoo.build import build
from kerzoo.records import ENDED, Row, TrialFolder
from sweeps.events import read_events
from sweeps.schedulers import Scheduler, Standings, entrants_of
from sweeps.schedulers.race import replay, value_of

Event = Mapping[str, Any]


class Check:
    """Replays the events of a results folder against its records.

    Args:
        folder: results/NAME.

    Raises:
        ValueError: If plan.json is missing, torn, or from before decisions could be checked.
    """

    def __init__(self, folder: Path) -> None:
        plan = _read_plan(folder)
        self.scheduler = _build(plan["config"]["scheduler"])
        self.standings = Standings(entrants_of(self.scheduler, plan))
        self.events = read_events(folder / "events.jsonl", "arrival", "decision")
        self.trials = {t: TrialFolder(folder / "trials" / t) for t in self.standings.entrants}
        self.rows: dict[str, dict[int, Row]] = {
            trial: {int(row["rung"]): row for row in where.rows()}
            for trial, where in self.trials.items()
        }
        self.num_decisions = 0
        self.num_outside = 0
        self.rules: set[str] = set()
        self._known: dict[str, int] = {}
        self._stopped_at: dict[str, int] = {}

    def problems(self) -> Iterator[str]:
        """What does not hold, one line each; nothing for a sound sweep."""
        for event in self.events:
            if event["trial_id"] not in self.standings.entrants:
                self.num_outside += 1
                continue
            found = self._arrival(event) if event["event"] == "arrival" else self._decision(event)
            yield from (f"{event['trial_id']} at rung {event['rung']}: {text}" for text in found)
            replay(self.standings, event)
        for trial in self.standings.entrants:
            yield from (f"{trial}: {text}" for text in self._end(trial))

    def _arrival(self, event: Event) -> Iterator[str]:
        trial, rung = event["trial_id"], event["rung"]
        row = self.rows[trial].get(rung)
        if row is not None:
            said = value_of(row, self.scheduler.metric)
            if said != event["value"]:
                yield f"arrived with {event['value']}, the records say {said}"
        elif event["value"] is not None:
            yield "arrived there according to events.jsonl, but has no row"
        elif not self._is_lost(trial):
            yield "counts as lost, but neither diverged nor failed"
        if event["recorded"] is not None:
            self._known[trial] = max(event["recorded"], self._known.get(trial, 0))

    def _is_lost(self, trial: str) -> bool:
        diverged = any(row["diverged"] for row in self.rows[trial].values())
        return diverged or self.trials[trial].status == "failed"

    def _decision(self, event: Event) -> Iterator[str]:
        trial, rung = event["trial_id"], event["rung"]
        self.num_decisions += 1
        self.rules.add(json.dumps(event["rule"], sort_keys=True))
        if self.standings.is_judged(trial, rung):
            yield "decided twice"
            return
        rule = _build(event["rule"])
        group = self.standings.entrants[trial].group
        if trial not in self.standings.undecided(group, rung):
            yield "decided before it arrived, or after it was dropped"
            return
        if rule.waits and not self.standings.is_complete(group, rung):
            yield "decided before all had arrived"
        expected = rule.judge(self.standings, trial, rung).as_event()
        for name, value in expected.items():
            if event.get(name) != value:
                yield f"{name} is {_short(event.get(name))}, recomputed {_short(value)}"
        if event["decision"] == "stop":
            self._stopped_at[trial] = rung

    def _end(self, trial: str) -> Iterator[str]:
        """What a trial's end lacks, once all events were seen."""
        entrant, status = self.standings.entrants[trial], self.trials[trial].status
        for rung in entrant.decided_rungs:
            arrived = trial in self.standings.field(entrant.group, rung)
            if rung in self.rows[trial] and not arrived and trial not in self.standings.dropped:
                yield f"has a row at rung {rung} that no event tells of"
            elif status in ENDED and self._was_forgotten(trial, rung):
                yield f"was never judged at rung {rung}"
        stopped = self._stopped_at.get(trial)
        if status == "stopped" and stopped is None:
            yield "has the status stopped, but no decision stopped it"
        reached = max(self.rows[trial], default=0)
        if stopped is not None and reached > max(stopped, self._known.get(trial, 0)):
            yield f"was stopped at rung {stopped}, but has a row at rung {reached}"

    def _was_forgotten(self, trial: str, rung: int) -> bool:
        """Whether a verdict is due, and the driver was not killed before it could be made."""
        group = self.standings.entrants[trial].group
        if trial not in self.standings.undecided(group, rung):
            return False
        due = not self.scheduler.waits or self.standings.is_complete(group, rung)
        return due and self.events[-1]["trial_id"] != trial


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / "plan.json"
    try:
        plan: dict[str, Any] = json.loads(path.read_text())
        missing = {"strata", "control_trials", "brackets", "config", "trials"} - plan.keys()
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if missing:
        raise ValueError(f"{path}: has no {', '.join(sorted(missing))}; plan the sweep again")
    return plan


def _build(node: Mapping[str, Any]) -> Scheduler:
    scheduler = build(dict(node), "scheduler", "sweeps.schedulers")
    if not isinstance(scheduler, Scheduler):
        raise ValueError(f"scheduler._target_: must be a scheduler, got {node.get('_target_')!r}")
    return scheduler


def _short(value: Any) -> str:
    return f"{len(value)} trials {value}"[:120] if isinstance(value, dict) else repr(value)


def main(arguments: list[str] | None = None) -> int:
    """Check a results folder and print what does not hold."""
    parser = argparse.ArgumentParser(prog="python -m sweeps.check", description=__doc__)
    parser.add_argument("folder", type=Path, help="results/NAME")
    folder = parser.parse_args(arguments).folder
    try:
        check = Check(folder)
        problems = list(check.problems())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(problem)
    if check.num_outside:
        print(f"{check.num_outside} events are of trials that left the plan; not checked")
    if len(check.rules) > 1:
        print(f"decided under {len(check.rules)} different settings, each checked by its own")
    if problems:
        print(f"{len(problems)} of {check.num_decisions} decisions and their records do not hold")
    else:
        print(f"{check.num_decisions} decisions hold")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
