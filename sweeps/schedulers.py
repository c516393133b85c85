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
from sweeps.halving import HalvingRule


class RungScheduler(FIFOScheduler):
    """A halving rule for Ray Tune.

    Args:
        metric: Column that decides; lower is better.
        rule: Who goes on at a rung.
        arms: Each trial's arm.
        recorded: Rows of earlier runs, by trial.
        last_rungs: Each trial's whole budget, at which nothing is left to decide.
        events: Where decisions are written, one JSON object a line.
        strata: What each trial is compared within: those of another model, task or tuning have
            another loss. Without it all are compared with all.
    """

    def __init__(
        self,
        metric: str,
        rule: HalvingRule,
        arms: Mapping[str, str],
        recorded: Mapping[str, Iterable[Row]],
        last_rungs: Mapping[str, int],
        events: Path,
        strata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.column = metric
        self.rule = rule
        self.arms = dict(arms)
        self.last_rungs = dict(last_rungs)
        self.events = events
        self.strata = dict(strata or {})
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
        if self.rule.reduction_factor is None or rung == 0 or rung >= self.last_rungs[trial]:
            return str(TrialScheduler.CONTINUE)
        stratum = self.strata.get(trial)
        others = {
            t: v
            for t, v in self.values[rung].items()
            if t != trial and self.strata.get(t) == stratum
        }
        own = [v for t, v in others.items() if self.arms[t] == self.arms[trial]]
        goes_on = self.rule.goes_on(value, others.values(), own)
        self._write(
            {
                "time": timestamp(),
                "event": "decision",
                "trial_id": trial,
                "rung": rung,
                "value": _finite(value),
                "cutoff": _finite(cutoff(others.values(), self.rule.num_kept(len(others)))),
                "arm_cutoff": _finite(cutoff(own, self.rule.survivors_per_arm)),
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
    """The largest value that is among the best `kept` beside these others.

    Infinite where any finite value is, negative infinity where none is.
    """
    ordered = sorted(others)
    if kept == 0:
        return -math.inf
    return ordered[kept - 1] if len(ordered) >= kept else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
