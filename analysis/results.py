"""A results folder as it lies on disk: plan.json, trial.json and records.jsonl, as they are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

Values = dict[str, Any]


class ResultsError(ValueError):
    """A results folder that no report can be made of."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What one results folder holds.

    Attributes:
        name: The sweep's name.
        plan: plan.json.
        trials: Trial id → plan entry updated by trial.json, with `status` and `planned`; those of
            the plan first, in its order, then those outside it by id.
        rows: The rows of every trial, one per (trial, step), ordered by step within a trial.
        warnings: What was wrong with the files, in sentences.
    """

    name: str
    plan: Values
    trials: dict[str, Values]
    rows: list[Values]
    warnings: list[str]


def read_results(folder: Path) -> Results:
    """Read a results folder.

    Args:
        folder: results/NAME.

    Returns:
        Its plan, trials and rows.

    Raises:
        ResultsError: If the folder or plan.json is missing or unreadable, or nothing has run.
    """
    plan = _read_plan(folder)
    name = str(plan.get("name") or folder.resolve().name)
    warnings: list[str] = []
    trials = _read_trials(folder, plan, warnings)
    rows: list[Values] = []
    for trial_id, trial in trials.items():
        trial_rows = _read_rows(folder / "trials" / trial_id / "records.jsonl", warnings)
        rows += _one_row_per_step(trial_id, trial_rows, warnings)
        if trial_rows and trial["status"] == "planned":
            trial["status"] = "interrupted"
    if not rows and all(trial["status"] != "failed" for trial in trials.values()):
        raise ResultsError(
            f"no records yet in {folder}: {len(trials)} trials are planned, none has been "
            "evaluated; run the sweep first"
        )
    return Results(name, plan, trials, rows, warnings)


def _read_plan(folder: Path) -> Values:
    if not folder.is_dir():
        raise ResultsError(f"no such results folder: {folder}{_neighbours(folder)}")
    path = folder / "plan.json"
    if not path.is_file():
        raise ResultsError(f"{folder} has no plan.json, so it is not a results folder of a sweep")
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path} is not readable as JSON: {error}") from error
    missing = [key for key in ("trials", "cells") if not isinstance(plan.get(key), list)]
    if missing:
        raise ResultsError(f"{path} must list its trials and cells, got none of {missing}")
    return dict(plan)


def _neighbours(folder: Path) -> str:
    found = sorted(plan.parent.name for plan in folder.parent.glob("*/plan.json"))
    return f"; beside it there are: {', '.join(found)}" if found else ""


def _read_trials(folder: Path, plan: Values, warnings: list[str]) -> dict[str, Values]:
    trials: dict[str, Values] = {}
    for entry in plan["trials"]:
        trials[entry["trial_id"]] = {**entry, "status": "planned", "planned": True}
    for path in sorted((folder / "trials").glob("*/")):
        trial_id = path.name
        known = trials.get(trial_id, {"status": "planned", "planned": False, "trial_id": trial_id})
        try:
            found = json.loads((path / "trial.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            warnings.append(f"Trial {trial_id}: trial.json is not readable ({error}).")
            found = {}
        trials[trial_id] = {**known, **found}
    return trials


def _read_rows(path: Path, warnings: list[str]) -> list[Values]:
    """The rows of a records.jsonl; a torn last line is dropped in silence, others are reported."""
    if not path.is_file():
        return []
    *lines, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows: list[Values] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            row["step"] = int(row["step"])
        except (ValueError, KeyError, TypeError):
            warnings.append(f"Trial {path.parent.name}: line {number} of its records is damaged.")
        else:
            rows.append(row)
    return rows


def _one_row_per_step(trial_id: str, rows: list[Values], warnings: list[str]) -> list[Values]:
    by_step = {row["step"]: {**row, "trial_id": trial_id} for row in rows}
    num_repeated = len(rows) - len(by_step)
    if num_repeated:
        warnings.append(
            f"Trial {trial_id}: {num_repeated} of its rows repeat a step; the last of each is used."
        )
    return [by_step[step] for step in sorted(by_step)]
