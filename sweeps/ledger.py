"""What a sweep spends, how well it uses its slots, and when its budget is at its end.

Kept in results/NAME/run.json, one entry for each run of the command, so that a budget is that of
the sweep and not of one run.

    efficiency = (step time + evaluation time) / (slots · wall time − preparation − tail)

Where nodes come and go, slots · wall time is the integral of the slots that there were.

All of them are of one run: steps that an earlier run made, and their replay, are no step time.
Preparation is what is done once before the first trial, and the time until each slot's process
has loaded model and data for its first; the tail is the time in which a slot finds no trial to
run. Both are shown apart, overlap neither each other nor step and evaluation time, and leave with
those a rest, in which replay is.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerzoo.records import Row, timestamp, write_json
from sweeps.progress import format_duration
from sweeps.schema import BudgetOptions

RUN_FILE = "run.json"
WARN_AT = 0.8
SAVE_EVERY_S = 10.0


@dataclasses.dataclass
class Spent:
    """Amounts, over one run or all of them.

    Attributes:
        wall_time_s: From the start of the preparation to the end of the last trial.
        slot_time_s: Seconds in which a trial held a slot.
        gpu_hours: Hours in which a trial held a GPU, or its share of one.
        forward_passes: Of rows that were recorded.
        money: gpu_hours · budget.price_per_gpu_hour; 0 without a price.
    """

    wall_time_s: float = 0.0
    slot_time_s: float = 0.0
    gpu_hours: float = 0.0
    forward_passes: float = 0.0
    money: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        """The sum of each amount."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Spent(**{name: mine[name] + theirs[name] for name in mine})


class Ledger:
    """Follows the trials of one run.

    Args:
        path: run.json.
        budget: Limits over all runs.
        gpus_per_trial: GPUs that each trial holds.
        rows: Each trial's rows so far.
        num_pending: Trials to run.
        prepared_s: Seconds that were spent before, on what all trials need.
    """

    def __init__(
        self,
        path: Path,
        budget: BudgetOptions,
        gpus_per_trial: float,
        rows: Mapping[str, Sequence[Row]],
        num_pending: int,
        prepared_s: float = 0.0,
    ) -> None:
        self.path = path
        self.budget = budget
        self.gpus_per_trial = gpus_per_trial
        self.num_slots = 1
        self.before, self.runs = _read(path)
        self.started = timestamp()
        self._last: dict[str, Row] = {t: own[-1] if own else {} for t, own in rows.items()}
        self._first_seen = dict(self._last)
        self._running: set[str] = set()
        self._waiting = num_pending
        self._num_starts = 0
        self.prepared_s = prepared_s
        self._now = self._saved = time.monotonic()
        self._start = self._now - prepared_s
        self.slot_time_s = self.startup_s = self.tail_s = self._capacity_s = self.busy_s = 0.0
        self.preparations: dict[Any, float] = {}
        self._warned = False

    @property
    def num_running(self) -> int:
        """Trials that hold a slot."""
        return len(self._running)

    def resize(self, num_slots: int) -> None:
        """A cluster has room for another number of trials now."""
        if num_slots != self.num_slots:
            self.advance()
            self.num_slots = num_slots

    def begin(self, trial: str) -> None:
        """A trial took a slot."""
        self.advance()
        self._running.add(trial)
        self._num_starts += 1
        self._waiting = max(0, self._waiting - 1)

    def arrive(self, trial: str, row: Mapping[str, Any]) -> None:
        """A report arrived, with a row unless its `rung` is None.

        `busy_s` are seconds of steps and evaluations since the last report; the first report of
        a process that made any has `preparation_s` and `pid`, too.
        """
        self.advance()
        if row.get("rung") is not None:
            self._last[trial] = dict(row)
        self.busy_s += float(row.get("busy_s") or 0.0)
        if row.get("preparation_s") is not None:
            self.preparations.setdefault(row.get("pid"), float(row["preparation_s"]))

    def end(self, trial: str, again: bool = False) -> None:
        """A trial left its slot, to come again or not."""
        self.advance()
        self._waiting += int(again and trial in self._running)
        self._running.discard(trial)

    def advance(self) -> None:
        """Count the time since the last event."""
        now = time.monotonic()
        elapsed, self._now = now - self._now, now
        busy = min(self.num_running, self.num_slots)
        self.slot_time_s += elapsed * self.num_running
        self._capacity_s += elapsed * self.num_slots
        idle = elapsed * (self.num_slots - busy)
        if self._waiting == 0:
            self.tail_s += idle
        elif self._num_starts < self.num_slots:
            self.startup_s += idle

    @property
    def capacity_s(self) -> float:
        """slots · wall time."""
        return self._capacity_s + self.num_slots * self.prepared_s

    @property
    def spent(self) -> Spent:
        """By this run."""
        hours = self.slot_time_s * self.gpus_per_trial / 3600
        price = self.budget.price_per_gpu_hour or 0.0
        passes = self._passes()
        return Spent(self._now - self._start, self.slot_time_s, hours, passes, hours * price)

    @property
    def total(self) -> Spent:
        """By all runs."""
        return self.before + self.spent

    def summary(self) -> dict[str, Any]:
        """This run's entry of run.json; `efficiency` is None where no slot time is left."""
        preparation = self.num_slots * self.prepared_s
        preparation += self.startup_s + sum(self.preparations.values())
        usable = self.capacity_s - preparation - self.tail_s
        return {
            "started": self.started,
            "ended": timestamp(),
            "slots": self.num_slots,
            **dataclasses.asdict(self.spent),
            "busy_s": self.busy_s,
            "preparation_s": preparation,
            "tail_s": self.tail_s,
            "efficiency": self.busy_s / usable if usable > 0 else None,
        }

    def describe(self) -> str:
        """The same for people."""
        own = self.summary()
        rate = "–" if own["efficiency"] is None else f"{own['efficiency']:.3f}"
        rest = self.capacity_s - own["busy_s"] - own["preparation_s"] - own["tail_s"]
        return (
            f"Sweep efficiency {rate}: {own['slots']} slots for "
            f"{format_duration(own['wall_time_s'])}; steps and evaluations "
            f"{format_duration(own['busy_s'])}, one-time preparation "
            f"{format_duration(own['preparation_s'])}, tail without a trial "
            f"{format_duration(own['tail_s'])}, the rest {format_duration(max(0.0, rest))}."
        )

    def save(self, at_once: bool = True) -> None:
        """Write run.json, not more often than every ten seconds unless asked to."""
        if not at_once and self._now - self._saved < SAVE_EVERY_S:
            return
        self._saved = self._now
        runs = [*self.runs, self.summary()]
        write_json(self.path, {"total": dataclasses.asdict(self.total), "runs": runs})

    def warning(self) -> str | None:
        """Once, that most of a budget is spent."""
        name, share = _fullest(self.budget, self.total)
        if self._warned or share < WARN_AT:
            return None
        self._warned = True
        return f"{share:.0%} of budget.{name} is spent"

    def exhausted(self) -> str | None:
        """What is spent, and how to go on; None as long as every budget lasts."""
        return _tell_exhausted(self.budget, self.total, len(self.runs) + 1)

    def _passes(self) -> float:
        """Forward passes that rows grew by in this run, over all trials."""
        column = "forward_passes"
        return sum(
            float(row.get(column) or 0.0) - float(self._first_seen[trial].get(column) or 0.0)
            for trial, row in self._last.items()
        )


def exhausted_before(path: Path, budget: BudgetOptions) -> str | None:
    """What the runs in a run.json spent, and how to go on; None as long as every budget lasts."""
    total, runs = _read(path)
    return _tell_exhausted(budget, total, len(runs))


def _tell_exhausted(budget: BudgetOptions, total: Spent, num_runs: int) -> str | None:
    name, share = _fullest(budget, total)
    if share < 1:
        return None
    limit = getattr(budget, name)
    enough = limit * 2.0 ** (1 + math.floor(math.log2(share)))
    counted = "1 run" if num_runs == 1 else f"{num_runs} runs"
    return (
        f"budget.{name}: {getattr(total, name):.4g} of {limit:.4g} is spent, over {counted}; "
        f"the same command with budget.{name}={enough:g} goes on"
    )


def _fullest(budget: BudgetOptions, total: Spent) -> tuple[str, float]:
    """The budget of which the largest share is spent, and the share."""
    shares = {name: getattr(total, name) / limit for name, limit in budget.limits.items()}
    return max(shares.items(), key=lambda item: item[1], default=("", 0.0))


def _read(path: Path) -> tuple[Spent, list[dict[str, Any]]]:
    if not path.exists():
        return Spent(), []
    runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"]
    names = [field.name for field in dataclasses.fields(Spent)]
    return sum((Spent(**{n: run[n] for n in names}) for run in runs), Spent()), runs
