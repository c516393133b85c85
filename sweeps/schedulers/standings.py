"""Who takes part, who arrived where with which value, and what was decided: plain bookkeeping."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

Group = tuple[str, tuple[int, ...], int]
"""Stratum, rungs and bracket: only trials that share all three are compared."""


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A trial as a scheduler sees it.

    Attributes:
        trial: Its id.
        arm: Its method's label.
        rungs: All its rungs, the last of which ends it.
        decided_rungs: Those at which it may be stopped.
        stratum: Trials of another model, task or tuning have another loss.
        bracket: HyperBand's; 0 elsewhere.
        exempt: A control trial, which is judged as all others but never stopped.
    """

    trial: str
    arm: str
    rungs: tuple[int, ...]
    decided_rungs: tuple[int, ...]
    stratum: str = ""
    bracket: int = 0
    exempt: bool = False

    @property
    def group(self) -> Group:
        """Whom it is compared with."""
        return self.stratum, self.rungs, self.bracket


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A decision about a trial at a rung, with all that led to it; lower values are better.

    Attributes:
        entrant: The trial.
        rung: Where.
        value: What is compared; infinite for a trial that diverged or failed.
        cutoff: The largest value that goes on; infinite where any finite one does.
        arm_cutoff: The largest value that goes on as one of its arm's best.
        compared: The values of the other trials.
    """

    entrant: Entrant
    rung: int
    value: float
    cutoff: float
    arm_cutoff: float
    compared: Mapping[str, float]

    @property
    def survives(self) -> bool:
        """What the rule says, control trial or not. A value that is not finite never survives."""
        return math.isfinite(self.value) and self.value <= max(self.cutoff, self.arm_cutoff)

    @property
    def decision(self) -> str:
        """Either "continue" or "stop"."""
        return "continue" if self.survives or self.entrant.exempt else "stop"

    def as_event(self) -> dict[str, Any]:
        """The fields of the event in events.jsonl; infinite numbers are null."""
        return {
            "trial_id": self.entrant.trial,
            "rung": self.rung,
            "value": finite_or_none(self.value),
            "cutoff": finite_or_none(self.cutoff),
            "arm_cutoff": finite_or_none(self.arm_cutoff),
            "survives": self.survives,
            "exempt": self.entrant.exempt,
            "decision": self.decision,
            "compared": {t: finite_or_none(v) for t, v in self.compared.items()},
        }


class Standings:
    """The state of a race. A value or a verdict, once there, stays.

    A trial that the rule dropped at a rung takes no part in the comparisons above it, even if it
    runs on as a control: control trials thus change nobody else's fate.

    Args:
        entrants: All trials of the plan.
    """

    def __init__(self, entrants: Iterable[Entrant]) -> None:
        self.entrants = {entrant.trial: entrant for entrant in entrants}
        self.members: dict[Group, list[Entrant]] = defaultdict(list)
        for entrant in self.entrants.values():
            self.members[entrant.group].append(entrant)
        self.dropped: dict[str, int] = {}
        self._values: dict[tuple[Group, int], dict[str, float]] = defaultdict(dict)
        self._undecided: dict[tuple[Group, int], set[str]] = defaultdict(set)
        self._decided: set[tuple[str, int]] = set()

    def arrive(self, trial: str, rung: int, value: float) -> bool:
        """Note a trial's value at a rung where it may be stopped; False if that is known."""
        entrant = self.entrants[trial]
        at = entrant.group, rung
        if rung not in entrant.decided_rungs or trial in self._values[at]:
            return False
        self._values[at][trial] = value
        if self.dropped.get(trial, rung) >= rung:
            self._undecided[at].add(trial)
        return True

    def conclude(self, trial: str, rung: int, survives: bool) -> None:
        """Note a verdict."""
        group = self.entrants[trial].group
        self._undecided[group, rung].discard(trial)
        self._decided.add((trial, rung))
        if not survives:
            self.dropped.setdefault(trial, rung)
            for later in self.entrants[trial].decided_rungs:
                if later > rung:
                    self._undecided[group, later].discard(trial)

    def next_rung(self, trial: str) -> int | None:
        """The first rung with a decision that the trial has not reached; None if there is none."""
        entrant = self.entrants[trial]
        reached = (trial in self._values[entrant.group, rung] for rung in entrant.decided_rungs)
        return next(
            (
                rung
                for rung, is_there in zip(entrant.decided_rungs, reached, strict=True)
                if not is_there
            ),
            None,
        )

    def value(self, trial: str, rung: int) -> float:
        """A trial's value at a rung where it arrived."""
        return self._values[self.entrants[trial].group, rung][trial]

    def field(self, group: Group, rung: int) -> dict[str, float]:
        """The values at a rung of all trials that came there without having been dropped."""
        return {
            trial: value
            for trial, value in self._values[group, rung].items()
            if self.dropped.get(trial, rung) >= rung
        }

    def is_complete(self, group: Group, rung: int) -> bool:
        """Whether nobody who was not dropped before is still to come."""
        arrived = self._values[group, rung]
        return all(
            entrant.trial in arrived or self.dropped.get(entrant.trial, rung) < rung
            for entrant in self.members[group]
        )

    def undecided(self, group: Group, rung: int) -> list[str]:
        """Trials that arrived at a rung and were not judged there, by id."""
        return sorted(self._undecided[group, rung])

    def is_judged(self, trial: str, rung: int) -> bool:
        """Whether there is a verdict on a trial at a rung."""
        return (trial, rung) in self._decided

    def is_awaited(self, trial: str) -> bool:
        """Whether a trial arrived at some rung and was not judged there."""
        entrant = self.entrants[trial]
        return any(trial in self._undecided[entrant.group, r] for r in entrant.decided_rungs)

    def is_lost(self, trial: str) -> bool:
        """Whether a trial arrived somewhere with the worst value: it diverged or failed."""
        entrant = self.entrants[trial]
        return any(
            not math.isfinite(self._values[entrant.group, rung].get(trial, 0.0))
            for rung in entrant.decided_rungs
        )


def finite_or_none(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return value if math.isfinite(value) else None
