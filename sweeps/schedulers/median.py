"""The median stopping rule."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable

from sweeps.halving import HalvingRule
from sweeps.schedulers.base import Scheduler
from sweeps.schedulers.standings import Standings


@dataclasses.dataclass(frozen=True)
class MedianStopping(Scheduler):
    """Stops a trial whose best value so far is above the median of the others' running means.

    The running mean of a trial at a rung is that of its values at all rungs so far. The trials
    that arrived at the same rung are the others, whether or not they have ended.

    Args:
        min_trials: Nobody is stopped beside fewer others, ≥ 1.
        survivors_per_arm: The quota, ≥ 0, as in `StratifiedASHA`.

    Source: Golovin et al. 2017 (Google Vizier), section 3.2.2; strata, quota and controls are
    ours.
    """

    min_trials: int = 3
    survivors_per_arm: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_trials < 1:
            raise ValueError(f"min_trials must be ≥ 1, got {self.min_trials}")
        if self.survivors_per_arm < 0:
            raise ValueError(f"survivors_per_arm must be ≥ 0, got {self.survivors_per_arm}")

    @property
    def rule(self) -> HalvingRule:
        """About half of the trials go on."""
        return HalvingRule(2.0, self.survivors_per_arm)

    @property
    def quota(self) -> int:
        """`survivors_per_arm`."""
        return self.survivors_per_arm

    def cutoff(self, others: Iterable[float]) -> float:
        """The median."""
        values = list(others)
        return statistics.median(values) if len(values) >= self.min_trials else math.inf

    def figure(self, standings: Standings, trial: str, rung: int) -> float:
        """The best value so far; infinite once it diverged."""
        values = _values(standings, trial, rung)
        return min(values) if math.isfinite(values[-1]) else math.inf

    def standard(self, standings: Standings, trial: str, rung: int) -> float:
        """The running mean."""
        return statistics.fmean(_values(standings, trial, rung))


def _values(standings: Standings, trial: str, rung: int) -> list[float]:
    rungs = standings.entrants[trial].decided_rungs
    return [standings.value(trial, r) for r in rungs if r <= rung]
