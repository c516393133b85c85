"""A results folder as it lies on disk: plan.json, trial.json and records.jsonl, as they are."""

from __future__ import annotations

from pathlib import Path

from analysis.sources.base import (
    Results,
    ResultsError,
    Values,
    drop_foreign_entries,
    keep_one_row_per_step,
    parse_json_object,
    whole_step,
)
from kerzoo.records import describe_missing, missing_rungs


def read_results(folder: Path) -> Results:
    """Read a results folder.

    Args:
        folder: results/NAME.

    Returns:
        Its plan, trials and rows.

    Raises:
        ResultsError: If plan.json is unreadable, or nothing has run.
    """
    warnings: list[str] = []
    plan = _read_plan(folder, warnings)
    name = str(plan.get("name") or folder.resolve().name)
    trials = _read_trials(folder, plan, warnings)
    rows: list[Values] = []
    lacking: list[str] = []
    for trial_id, trial in trials.items():
        trial_rows = _read_rows(folder / "trials" / trial_id / "records.jsonl", warnings)
        rows += keep_one_row_per_step(trial_id, trial_rows, warnings)
        if trial_rows and trial["status"] == "planned":
            trial["status"] = "interrupted"
        if missing_rungs(trial, trial_rows):
            trial["status"] = "interrupted"
            lacking.append(trial_id)
    if lacking:
        warnings.append(describe_missing(lacking))
    if not rows and all(trial["status"] != "failed" for trial in trials.values()):
        raise ResultsError(
            f"no records yet in {folder}: {len(trials)} trials are planned, none has been "
            "evaluated; run the sweep first"
        )
    decisions = _read_decisions(folder / "events.jsonl", warnings)
    return Results(name, plan, trials, rows, warnings, decisions)


def _read_plan(folder: Path, warnings: list[str]) -> Values:
    path = folder / "plan.json"
    try:
        plan = parse_json_object(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is not readable as JSON: {error}") from error
    missing = [key for key in ("trials", "cells") if not isinstance(plan.get(key), list)]
    if missing:
        raise ResultsError(f"{path} must list its trials and cells, got none of {missing}")
    for key in ("trials", "cells"):
        whole = [entry for entry in plan[key] if _has_trial_id(entry)]
        if len(whole) < len(plan[key]):
            lost = len(plan[key]) - len(whole)
            warnings.append(f"plan.json: {lost} of its {key} have no trial_id and are left out.")
        plan[key] = whole
    drop_foreign_entries(plan, warnings)
    for cell in plan["cells"]:
        cell["values"] = cell["values"] if isinstance(cell.get("values"), dict) else {}
    if not plan["cells"]:
        raise ResultsError(f"{path} must list at least one cell, got none")
    return plan


def _has_trial_id(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("trial_id"), str)


def _read_trials(folder: Path, plan: Values, warnings: list[str]) -> dict[str, Values]:
    trials: dict[str, Values] = {}
    for entry in plan["trials"]:
        trials[entry["trial_id"]] = {**entry, "status": "planned", "planned": True}
    for path in sorted(p for p in (folder / "trials").glob("*") if p.is_dir()):
        trial_id = path.name
        is_foreign = trial_id not in trials and not (path / "trial.json").exists()
        if is_foreign and not (path / "records.jsonl").exists():
            warnings.append(f"trials/{trial_id} is no trial's folder; it is left out.")
            continue
        known = trials.get(trial_id, {"status": "planned", "planned": False, "trial_id": trial_id})
        try:
            found = parse_json_object((path / "trial.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            warnings.append(f"Trial {trial_id}: trial.json is not readable ({error}).")
            found = {}
        trials[trial_id] = {**known, **found, "trial_id": trial_id}
    return trials


def _read_rows(path: Path, warnings: list[str]) -> list[Values]:
    """The rows of a records.jsonl; a torn last line is dropped in silence, others are reported."""
    if not path.is_file():
        return []
    *lines, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows: list[Values] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json_object(line)
            row["step"] = whole_step(row["step"])
        except (ValueError, KeyError):
            warnings.append(f"Trial {path.parent.name}: line {number} of its records is damaged.")
        else:
            rows.append(row)
    return rows


def _read_decisions(path: Path, warnings: list[str]) -> list[Values]:
    """The verdicts of early stopping; of what is damaged there is a warning."""
    if not path.is_file():
        return []
    *lines, _torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found: list[Values] = []
    num_damaged = 0
    for line in lines:
        try:
            event = parse_json_object(line)
        except ValueError:
            num_damaged += 1
            continue
        if event.get("event") == "decision" and _is_verdict(event):
            found.append({key: event[key] for key in _VERDICT})
    if num_damaged:
        warnings.append(f"events.jsonl: {num_damaged} of its lines are damaged and left out.")
    return found


_VERDICT = ("trial_id", "rung", "survives", "exempt")


def _is_verdict(event: Values) -> bool:
    return (
        isinstance(event.get("trial_id"), str)
        and isinstance(event.get("rung"), int)
        and isinstance(event.get("survives"), bool)
        and isinstance(event.get("exempt"), bool)
    )
