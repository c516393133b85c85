"""The contract of early stopping: a pure rule from values at rungs to verdicts."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from kerzoo.build import TARGET
from sweeps.halving import HalvingRule
from sweeps.schedulers.standings import Group, Standings, Verdict

METRICS = ("dev_loss",)


@dataclasses.dataclass(frozen=True)
class Scheduler(abc.ABC):
    """Judges each trial at each of its rungs but the last, against the others of its group.

    A group shares task, model, tuning and rungs. Lower is better; a trial that diverged or failed
    arrives with an infinite value and never goes on. A trial goes on if its value is at most the
    cut-off of the rule, or that of its own arm's best. A verdict is made once, from values that
    are all recorded; nothing depends on clocks or on Ray.

    Args:
        name: Label; the name of its file in conf/scheduler.
        metric: Column of the rows that decides.
        control_fraction: Probability in [0, 1) with which a trial is drawn as a control, which is
            judged as all others and never stopped: what early stopping misses is measured on it.
    """

    waits: ClassVar[bool] = False
    """Whether a rung is decided only when all of its group have arrived there."""

    name: str
    metric: str = "dev_loss"
    control_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}; got {self.metric!r}")
        if not 0 <= self.control_fraction < 1:
            raise ValueError(f"control_fraction must be in [0, 1), got {self.control_fraction}")

    def decided_rungs(self, rungs: Sequence[int], bracket: int) -> tuple[int, ...]:
        """The rungs of a trial at which it may be stopped."""
        return tuple(rungs[:-1])

    def bracket_weights(self, num_rungs: int) -> list[float]:
        """Relative sizes of the brackets of trials with so many rungs; one bracket by default."""
        return [1.0]

    def decide(self, standings: Standings, group: Group, rung: int) -> list[Verdict]:
        """The verdicts that can be made now on trials that arrived at a rung, by trial id."""
        undecided = standings.undecided(group, rung)
        if not undecided or (self.waits and not standings.is_complete(group, rung)):
            return []
        return [self.judge(standings, trial, rung) for trial in undecided]

    def judge(self, standings: Standings, trial: str, rung: int) -> Verdict:
        """Compare a trial with the others that came to a rung."""
        entrant = standings.entrants[trial]
        compared = {
            other: self.standard(standings, other, rung)
            for other in standings.field(entrant.group, rung)
            if other != trial
        }
        own = [v for t, v in compared.items() if standings.entrants[t].arm == entrant.arm]
        return Verdict(
            entrant,
            rung,
            self.figure(standings, trial, rung),
            self.cutoff(compared.values()),
            nth_best(own, self.quota),
            compared,
        )

    def describe(self) -> dict[str, Any]:
        """What builds an equal scheduler, as in conf/scheduler."""
        return {TARGET: f"sweeps.schedulers.{type(self).__name__}", **dataclasses.asdict(self)}

    @abc.abstractmethod
    def cutoff(self, others: Iterable[float]) -> float:
        """The largest value that goes on beside these others."""

    @property
    @abc.abstractmethod
    def rule(self) -> HalvingRule:
        """What the expected cost is estimated by."""

    @property
    def quota(self) -> int:
        """How many of an arm's own best go on in any case."""
        return 0

    def figure(self, standings: Standings, trial: str, rung: int) -> float:
        """What of a trial is judged at a rung."""
        return standings.value(trial, rung)

    def standard(self, standings: Standings, trial: str, rung: int) -> float:
        """What of a trial others are judged by at a rung."""
        return standings.value(trial, rung)


def nth_best(others: Iterable[float], kept: int) -> float:
    """The largest value that is among the best `kept` beside these others, ties included.

    Infinite where any finite value is, negative infinity where none is.
    """
    ordered = sorted(others)
    if kept == 0:
        return -math.inf
    return ordered[kept - 1] if len(ordered) >= kept else math.inf
