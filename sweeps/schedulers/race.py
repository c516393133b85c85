"""A scheduler at work: arrivals in, verdicts out, everything written down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from kerzoo.records import Row
from sweeps.events import EventLog, read_events
from sweeps.schedulers.base import Scheduler
from sweeps.schedulers.standings import Entrant, Standings, Verdict, finite_or_none


class Race:
    """The trials of a sweep under a scheduler.

    Each arrival and each verdict is an event; the state is what the events say, and rows that no
    event tells of are taken up when a race is resumed. A verdict is never made twice.

    Args:
        scheduler: The rule.
        entrants: All trials of the plan.
        log: Where events go; None keeps none.
    """

    def __init__(
        self, scheduler: Scheduler, entrants: Iterable[Entrant], log: EventLog | None = None
    ) -> None:
        self.scheduler = scheduler
        self.standings = Standings(entrants)
        self._reached: dict[str, int] = {}
        self._log = log

    def resume(self, rows: Mapping[str, Iterable[Row]], failed: Iterable[str] = ()) -> None:
        """Take up what happened before: events, then rows without one, then failures.

        Verdicts that a driver did not live to make are made now.

        Args:
            rows: Of all trials.
            failed: Trials that failed for good.
        """
        if self._log is not None:
            for event in read_events(self._log.path, "arrival", "decision"):
                replay(self.standings, event)
        for trial in self.standings.entrants:
            known = list(rows.get(trial, ()))
            last = max((int(row["rung"]) for row in known), default=None)
            self._reached[trial] = 0 if last is None else last
            for row in known:
                self._note(trial, int(row["rung"]), self._value(row), last)
        for trial in failed:
            self._note_loss(trial)
        for members in self.standings.members.values():
            for rung in members[0].decided_rungs:
                self._decide(members[0].trial, rung)

    def arrive(self, trial: str, row: Mapping[str, Any]) -> list[Verdict]:
        """A trial was evaluated; returns the verdicts, its own or others', that this allows."""
        self._reached[trial] = rung = int(row["rung"])
        self._note(trial, rung, self._value(row))
        return self._decide_all(trial)

    def lose(self, trial: str) -> list[Verdict]:
        """A trial failed for good: it counts as arrived at its next rung with the worst value."""
        self._note_loss(trial)
        return self._decide_all(trial)

    def standing(self, trial: str) -> Literal["continue", "pause", "stop"]:
        """What a trial is to do now. A control goes on until it ends by itself.

        One whose rows were lost after it was stopped goes on to where that was.
        """
        entrant = self.standings.entrants[trial]
        if self.standings.is_lost(trial):
            return "stop"
        if entrant.exempt:
            return "continue"
        if trial in self.standings.dropped:
            is_there = self._reached.get(trial, 0) >= self.standings.dropped[trial]
            return "stop" if is_there else "continue"
        return "pause" if self.standings.is_awaited(trial) else "continue"

    def _value(self, row: Mapping[str, Any]) -> float:
        value = value_of(row, self.scheduler.metric)
        return math.inf if value is None else value

    def _note(self, trial: str, rung: int, value: float, recorded: int | None = None) -> None:
        decided = self.standings.entrants[trial].decided_rungs
        if not math.isfinite(value) and rung not in decided:  # it will come to no later rung
            self._note_loss(trial)
        elif self.standings.arrive(trial, rung, value):
            self._write_arrival(trial, rung, value, recorded)

    def _note_loss(self, trial: str) -> None:
        rung = self.standings.next_rung(trial)
        if rung is not None and not self.standings.is_lost(trial):
            self.standings.arrive(trial, rung, math.inf)
            self._write_arrival(trial, rung, math.inf, None)

    def _write_arrival(self, trial: str, rung: int, value: float, recorded: int | None) -> None:
        """`recorded` is the trial's last rung on disk where a start took the arrival up."""
        self._write(
            "arrival",
            {"trial_id": trial, "rung": rung, "value": finite_or_none(value), "recorded": recorded},
        )

    def _decide_all(self, trial: str) -> list[Verdict]:
        """The verdicts at all rungs of a trial's group, the lower ones first."""
        return [
            verdict
            for rung in self.standings.entrants[trial].decided_rungs
            for verdict in self._decide(trial, rung)
        ]

    def _decide(self, trial: str, rung: int) -> list[Verdict]:
        group = self.standings.entrants[trial].group
        verdicts = self.scheduler.decide(self.standings, group, rung)
        for verdict in verdicts:
            self.standings.conclude(verdict.entrant.trial, rung, verdict.survives)
            self._write("decision", {**verdict.as_event(), "rule": self.scheduler.describe()})
        return verdicts

    def _write(self, event: str, fields: Mapping[str, Any]) -> None:
        if self._log is not None:
            self._log.write(event, **fields)


def value_of(row: Mapping[str, Any], metric: str) -> float | None:
    """What a row is judged by; None where the trial diverged."""
    value = row.get(metric)
    if row.get("diverged") or value is None:
        return None
    return finite_or_none(float(value))


def replay(standings: Standings, event: Mapping[str, Any]) -> None:
    """Bring standings to what an event says; trials that left the plan are passed over."""
    trial, rung = event["trial_id"], int(event["rung"])
    if trial not in standings.entrants:
        return
    if event["event"] == "arrival":
        standings.arrive(trial, rung, math.inf if event["value"] is None else event["value"])
    else:
        standings.conclude(trial, rung, bool(event["survives"]))
