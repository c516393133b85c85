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


def survives(value: float, others: Iterable[float], reduction_factor: float) -> bool:
    """Whether a trial is among the best of those that reached its rung so far.

    With m trials at the rung, itself included, it goes on if fewer than max(1, ⌊m/η⌋) of the
    others are strictly better. Ties go on; a value that is not finite never does.

    Args:
        value: The trial's own metric; lower is better.
        others: The metric of the other trials at this rung.
        reduction_factor: η > 1.

    Source: Li et al. 2020, arXiv 1810.05934 (asynchronous successive halving), in the form that
    stops a trial instead of promoting it.
    """
    others = list(others)
    kept = max(1, math.floor((len(others) + 1) / reduction_factor))
    return math.isfinite(value) and sum(other < value for other in others) < kept


class RungScheduler(FIFOScheduler):
    """Asynchronous successive halving (ASHA) for Ray Tune.

    Args:
        metric: Column that decides; lower is better.
        reduction_factor: η; None stops nothing (FIFO).
        recorded: Rows of earlier runs, by trial.
        last_rungs: Each trial's whole budget, at which nothing is left to decide.
        events: Where decisions are written, one JSON object a line.
    """

    def __init__(
        self,
        metric: str,
        reduction_factor: float | None,
        recorded: Mapping[str, Iterable[Row]],
        last_rungs: Mapping[str, int],
        events: Path,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.column = metric
        self.reduction_factor = reduction_factor
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
        goes_on = survives(value, others.values(), self.reduction_factor)
        self._write(
            {
                "time": timestamp(),
                "event": "decision",
                "trial_id": trial,
                "rung": rung,
                "value": _finite(value),
                "cutoff": _finite(self._cutoff(list(others.values()))),
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

    def _cutoff(self, others: list[float]) -> float:
        """The largest value that would have gone on."""
        assert self.reduction_factor is not None
        kept = max(1, math.floor((len(others) + 1) / self.reduction_factor))
        return sorted(others)[kept - 1] if len(others) >= kept else math.inf

    def _write(self, event: dict[str, Any]) -> None:
        with self.events.open("a") as file:
            file.write(json.dumps(event) + "\n")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
