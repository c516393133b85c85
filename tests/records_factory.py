"""Results folders with known numbers: a simulated sweep, written as the real one writes it.

The dev loss of a trial at p forward passes is START − gain · p / budget, with a gain that the
caller fixes for each cell; a successive-halving rule stops what is not among the best of its arm.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

START = 0.7
RUNGS = (36, 72, 144)
EPSILON, LEARNING_RATE, SEED = (
    "training.perturbation_scale",
    "training.learning_rate",
    "training.seed",
)
Values = dict[str, Any]


def default_gain(values: Mapping[str, Any]) -> float:
    """Larger for kerzoo_paper than for mezo, and at the larger learning rate."""
    base = {"mezo": 0.10, "kerzoo_paper": 0.14}.get(str(values["arm"]), 0.06)
    return base + 2 * float(values[LEARNING_RATE]) - 0.001 * int(values.get(SEED, 0))


@dataclasses.dataclass
class SimulatedSweep:
    """A sweep whose records can be computed by hand.

    Attributes:
        arms, epsilons, learning_rates, seeds: The levels of the grid.
        extra: More factors and their levels.
        aliases: Arm → the arm whose trials it shares.
        gain: The fall of the dev loss over the whole budget, given a cell's values.
        fate: The status that a cell's trial ends in; None leaves it to the scheduler.
        halving: Keep 1/halving of each arm's trials at each rung; 1 stops none.
        control: Whether a cell's trial is a control, which is judged and never stopped.
        metric: "dev_accuracy" or "dev_f1".
        is_binary: Whether rows have dev_auc.
        phase: "screen" or "confirm".
        rungs: Forward passes at which a trial is evaluated, beside step 0.
    """

    name: str = "simulated"
    arms: Sequence[str] = ("mezo", "kerzoo_paper")
    epsilons: Sequence[float] = (0.003, 0.01)
    learning_rates: Sequence[float] = (0.003, 0.01)
    seeds: Sequence[int] = (0,)
    extra: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gain: Callable[[Mapping[str, Any]], float] = default_gain
    fate: Callable[[Mapping[str, Any]], str | None] = lambda values: None
    halving: int = 1
    control: Callable[[Mapping[str, Any]], bool] = lambda values: False
    metric: str = "dev_accuracy"
    is_binary: bool = True
    model: str = "smollm2-135m"
    task: str = "movie_reviews"
    phase: str = "screen"
    rungs: Sequence[int] = RUNGS

    def cells(self) -> list[Values]:
        """The grid, as plan.json lists it."""
        levels: dict[str, Sequence[Any]] = {
            "arm": [*self.arms, *self.aliases],
            EPSILON: self.epsilons,
            LEARNING_RATE: self.learning_rates,
            **self.extra,
        }
        if len(self.seeds) > 1:
            levels[SEED] = self.seeds
        cells = []
        for combination in itertools.product(*levels.values()):
            values = dict(zip(levels, combination, strict=True))
            arm = values["arm"]
            trial_id = self.trial_id({**values, "arm": self.aliases.get(arm, arm)})
            cells.append({"values": values, "trial_id": trial_id, "arm": arm})
        return cells

    @staticmethod
    def trial_id(values: Mapping[str, Any]) -> str:
        """A readable id, unlike the real hash."""
        return "-".join(str(value) for value in values.values())

    def write(self, root: Path) -> Path:
        """Write results/NAME below `root`; returns it."""
        folder = root / self.name
        cells = self.cells()
        trials = {c["trial_id"]: c for c in cells if c["arm"] not in self.aliases}
        dropped_at = self._halve(trials)
        controls = [t for t, cell in trials.items() if self.control(cell["values"])]
        last_rungs = dict.fromkeys(trials, self.rungs[-1]) | {
            trial: rung for trial, rung in dropped_at.items() if trial not in controls
        }
        folder.mkdir(parents=True)
        plan = self._plan(cells, [self._spec(c) for c in trials.values()])
        plan["control_trials"] = controls
        (folder / "plan.json").write_text(json.dumps(plan))
        verdicts = [
            {
                "event": "decision",
                "trial_id": trial,
                "rung": rung,
                "survives": dropped_at.get(trial) != rung,
                "exempt": trial in controls,
            }
            for rung in (self.rungs[:-1] if self.halving > 1 else ())
            for trial in trials
            if dropped_at.get(trial, rung) >= rung
        ]
        lines = "".join(json.dumps(verdict) + "\n" for verdict in verdicts)
        (folder / "events.jsonl").write_text(lines)
        for trial_id, cell in trials.items():
            write_trial(folder, *self._run(cell, last_rungs[trial_id]))
        return folder

    def _halve(self, trials: Mapping[str, Values]) -> dict[str, int]:
        """The rung at which the rule drops a trial, by halving within the arm."""
        last: dict[str, int] = {}
        for arm in self.arms:
            alive = [t for t, cell in trials.items() if cell["arm"] == arm]
            for rung in self.rungs[:-1]:
                alive.sort(key=lambda t: -self.gain(trials[t]["values"]))
                kept = max(1, len(alive) // self.halving)
                last.update(dict.fromkeys(alive[kept:], rung))
                alive = alive[:kept]
        return last

    def _spec(self, cell: Values) -> Values:
        values = cell["values"]
        training = {
            "learning_rate": values[LEARNING_RATE],
            "perturbation_scale": values[EPSILON],
            "forward_passes": self.rungs[-1],
            "seed": values.get(SEED, self.seeds[0]),
        }
        return {
            "trial_id": cell["trial_id"],
            "phase": self.phase,
            "arm": cell["arm"],
            "overrides": [f"{key}={value}" for key, value in values.items()],
            "choices": {"model": self.model, "task": self.task, "tuning": "lora_last6"},
            "config": {
                "arm": {"name": cell["arm"], "description": f"{cell['arm']} in words"},
                "model": {"name": self.model},
                "task": {"name": self.task},
                "training": training,
            },
            "rungs": list(self.rungs),
            "command": f"python -m sweeps.trial arm={cell['arm']}",
        }

    def _plan(self, cells: list[Values], specs: list[Values]) -> Values:
        return {
            "schema_version": 1,
            "name": self.name,
            "description": "A simulated sweep.",
            "created": "2026-01-01T00:00:00+00:00",
            "command": f"python sweep.py +sweep={self.name}",
            "overrides": [f"+sweep={self.name}"],
            "choices": {"model": self.model, "task": self.task, "tuning": "lora_last6"},
            "config": {},
            "plan_seed": 0,
            "rungs": list(self.rungs),
            "versions": {"python": "3.11", "kerzoo": "0.1.0"},
            "commit": "0123abc",
            "method_version": 1,
            "factors": list(cells[0]["values"]),
            "baseline": self.arms[0],
            "cells": cells,
            "trials": specs,
            "cost": {
                "trials": len(specs),
                "forward_passes": self.rungs[-1] * len(specs),
                "memory_gib_per_trial": 0.9,
                "device": "cpu",
                "device_hours": 0.4,
                "assumption": "simulated",
                "seeds": len(self.seeds),
                "smallest_detectable_effect": None,
                "smallest_detectable_effect_note": "",
            },
            "preparation": {},
        }

    def _run(self, cell: Values, last_rung: int) -> tuple[Values, list[Values]]:
        """A trial.json and its rows."""
        fate = self.fate(cell["values"])
        status = fate or ("finished" if last_rung == self.rungs[-1] else "stopped")
        trial = {**self._spec(cell), "status": status, "attempts": 1, "failure": None}
        if status == "planned":
            return trial, []
        if status == "failed":
            trial["failure"] = {
                "kind": "OutOfMemory",
                "message": "needed <2> GiB & got 1",
                "traceback": "Traceback (most recent call last):\n  line 1\nOutOfMemory",
            }
            return trial, []
        reached = [0, *(rung for rung in self.rungs if rung <= last_rung)]
        if status in ("running", "interrupted", "diverged"):
            reached = [0, self.rungs[0]]
        rows = [self._row(cell, rung) for rung in reached]
        if status == "diverged":
            lost = dict.fromkeys(("train_loss", "dev_loss", self.metric, "dev_auc"))
            rows[-1] |= {**lost, "diverged": True}
        return trial, rows

    def _row(self, cell: Values, rung: int) -> Values:
        values = cell["values"]
        fall = self.gain(values) * rung / self.rungs[-1]
        row = {
            "trial_id": cell["trial_id"],
            "arm": cell["arm"],
            "kernel": "constant" if cell["arm"] == "mezo" else "legendre4",
            "order": 2 if cell["arm"] == "mezo" else 4,
            "half_width": None if cell["arm"] == "mezo" else 1.0,
            "perturbation_scale": values[EPSILON],
            "learning_rate": values[LEARNING_RATE],
            "num_directions": 1,
            "tuning": "lora_last6",
            "model": self.model,
            "task": self.task,
            "seed": values.get(SEED, self.seeds[0]),
            "phase": self.phase,
            "rung": rung,
            "step": rung // 2,
            "forward_passes": rung,
            "examples_seen": 8 * rung,
            "tokens_processed": 400 * rung,
            "wall_time_s": 0.5 * rung,
            "device_time_s": 0.25 * rung,
            "eval_time_s": 1.0 + 0.01 * rung,
            "train_loss": None if rung == 0 else START - fall,
            "dev_loss": START - fall,
            self.metric: 0.5 + fall,
            "diverged": False,
            "peak_memory_gib": 0.8,
        }
        return {**row, "dev_auc": 0.55 + fall} if self.is_binary else row


def write_trial(folder: Path, trial: Values, rows: Sequence[Values]) -> Path:
    """Write a trial's folder; returns the path of its records."""
    path = folder / "trials" / str(trial["trial_id"])
    path.mkdir(parents=True)
    (path / "trial.json").write_text(json.dumps(trial))
    records = path / "records.jsonl"
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return records
