"""Early stopping on rungs of forward passes, rebuilt from the records after any interruption.

Ray's own ASHA loses its state when a sweep is resumed, lets reports that skip a rung pollute the
lower rungs, and raises on a missing metric. This one decides exactly at rungs, starts from the
rows on disk, counts a diverged trial as the worst, and writes down every decision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from kerzoo.records import Row, timestamp


def num_kept(num_others: int, reduction_factor: float) -> int:
    """How many of the trials at a rung go on: max(1, ⌊m/η⌋) of m, the arriving one included.

    Source: Li et al. 2020, arXiv 1810.05934 (asynchronous successive halving), in the form that
    stops a trial instead of promoting it.
    """
    return max(1, math.floor((num_others + 1) / reduction_factor))


def survives(value: float, others: Iterable[float], kept: int) -> bool:
    """Whether a trial is among the best `kept` of those that reached its rung so far.

    Ties go on; a value that is not finite never does.

    Args:
        value: The trial's own metric; lower is better.
        others: The metric of the other trials.
        kept: How many go on.
    """
    return math.isfinite(value) and sum(other < value for other in others) < kept


class RungScheduler(FIFOScheduler):
    """Asynchronous successive halving (ASHA) for Ray Tune.

    Args:
        metric: Column that decides; lower is better.
        reduction_factor: η; None stops nothing (FIFO).
        arms: Each trial's arm.
        survivors_per_arm: How many of an arm's own best at a rung go on whatever the others do,
            so that early stopping never takes an arm, or the baseline, out of the comparison.
        recorded: Rows of earlier runs, by trial.
        last_rungs: Each trial's whole budget, at which nothing is left to decide.
        events: Where decisions are written, one JSON object a line.
    """

    def __init__(
        self,
        metric: str,
        reduction_factor: float | None,
        arms: Mapping[str, str],
        survivors_per_arm: int,
        recorded: Mapping[str, Iterable[Row]],
        last_rungs: Mapping[str, int],
        events: Path,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.column = metric
        self.reduction_factor = reduction_factor
        self.arms = dict(arms)
        self.survivors_per_arm = survivors_per_arm
        self.last_rungs = dict(last_rungs)
        self.events = events
        self.values: dict[int, dict[str, float]] = {}
        for trial, rows in recorded.items():
            for row in rows:
                self._remember(trial, row)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide about a trial that arrived at a rung."""
        if result.get("rung") is None:
            return str(TrialScheduler.CONTINUE)
        return self.decide(str(trial.config["trial_id"]), result)

    def decide(self, trial: str, row: Mapping[str, Any]) -> str:
        """CONTINUE or STOP for a row; the row's value is remembered."""
        value = self._remember(trial, row)
        rung = int(row["rung"])
        if self.reduction_factor is None or rung == 0 or rung >= self.last_rungs[trial]:
            return str(TrialScheduler.CONTINUE)
        others = {t: v for t, v in self.values[rung].items() if t != trial}
        kept = num_kept(len(others), self.reduction_factor)
        own = [v for t, v in others.items() if self.arms[t] == self.arms[trial]]
        quota = survives(value, own, self.survivors_per_arm)
        goes_on = quota or survives(value, others.values(), kept)
        self._write(
            {
                "time": timestamp(),
                "event": "decision",
                "trial_id": trial,
                "rung": rung,
                "value": _finite(value),
                "cutoff": _finite(cutoff(others.values(), kept)),
                "arm_cutoff": _finite(cutoff(own, self.survivors_per_arm)),
                "decision": "continue" if goes_on else "stop",
                "compared": {t: _finite(v) for t, v in others.items()},
            }
        )
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def _remember(self, trial: str, row: Mapping[str, Any]) -> float:
        value = row.get(self.column)
        number = math.inf if row.get("diverged") or value is None else float(value)
        self.values.setdefault(int(row["rung"]), {})[trial] = number
        return number

    def _write(self, event: dict[str, Any]) -> None:
        with self.events.open("a") as file:
            file.write(json.dumps(event) + "\n")


def cutoff(others: Iterable[float], kept: int) -> float:
    """The largest value with which a trial goes on beside these others.

    Infinite where any finite value would; negative infinity where none is kept.
    """
    ordered = sorted(others)
    if kept == 0:
        return -math.inf
    return ordered[kept - 1] if len(ordered) >= kept else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
