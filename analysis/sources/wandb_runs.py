"""W&B runs as trials, whether they were read from files or fetched from a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from analysis.sources.base import Results, Values, assemble_results, unflatten

_BOOKKEEPING = ("overrides", "trial", "plan", "row", "_wandb")
"""Parts of a run's configuration that are not the trial's."""


@dataclasses.dataclass
class WandbRun:
    """A run as W&B keeps it: an id, a group, a flat configuration, a history, a summary."""

    run_id: str
    group: str = ""
    job_type: str = ""
    name: str = ""
    config: Values = dataclasses.field(default_factory=dict)
    summary: Values = dataclasses.field(default_factory=dict)
    rows: list[Values] = dataclasses.field(default_factory=list)

    def continue_with(self, later: WandbRun) -> None:
        """Take in a later segment of the same run; where both have a step, the later counts."""
        steps = {row["step"] for row in later.rows}
        self.rows = [row for row in self.rows if row["step"] not in steps] + later.rows
        self.config |= later.config
        self.summary |= later.summary


def group_runs(name: str, runs: Iterable[WandbRun], warnings: list[str]) -> list[Results]:
    """Runs as sweeps, one for each group; a run without group belongs to `name`.

    Raises:
        ResultsError: If a group has no row at all.
    """
    groups: dict[str, list[WandbRun]] = {}
    for run in runs:
        groups.setdefault(run.group or name, []).append(run)
    return [_to_results(group, members, warnings) for group, members in groups.items()]


def _to_results(name: str, runs: list[WandbRun], warnings: list[str]) -> Results:
    trials: dict[str, Values] = {}
    rows: dict[str, list[Values]] = {}
    plan: Values = {"name": name, "cells": []}
    for run in runs:
        config = unflatten(run.config)
        told, planned, labels = (config.get(key) or {} for key in ("trial", "plan", "row"))
        arm = str(told.get("arm") or labels.get("arm") or _arm_of(run, config))
        trials[run.run_id] = {
            "trial_id": run.run_id,
            **told,
            "arm": arm,
            "phase": told.get("phase") or run.job_type or "screen",
            "status": str(run.summary.get("status") or "interrupted"),
            "config": {key: part for key, part in config.items() if key not in _BOOKKEEPING},
        }
        rows[run.run_id] = [
            {"arm": arm, **labels, **{k: v for k, v in row.items() if not k.startswith("_")}}
            for row in run.rows
        ]
        plan["cells"] += planned.get("cells") or []
        plan |= {key: part for key, part in planned.items() if key != "cells"}
    return assemble_results(name, trials, rows, plan, warnings)


def _arm_of(run: WandbRun, config: Values) -> str:
    part = config.get("arm")
    name = part.get("name") if isinstance(part, dict) else part
    return str(name or run.name.rpartition("-")[0] or run.name or run.run_id)
