"""Ray Tune experiment folders from elsewhere: result.json or progress.csv, and params.json."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.sources.base import (
    FACTORS,
    Results,
    Values,
    assemble_results,
    parse_json_object,
    unflatten,
    whole_step,
)

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "step": ("training_iteration",),
    "forward_passes": ("step", "training_iteration"),
    "rung": ("forward_passes",),
    "dev_loss": ("eval_loss", "val_loss", "validation_loss", "loss"),
    "dev_accuracy": ("eval_accuracy", "val_accuracy", "accuracy", "mean_accuracy"),
    "device_time_s": ("time_total_s",),
    "wall_time_s": ("time_total_s",),
}
"""Our column → what others call it, the first that a row has counts."""

PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "training.learning_rate": ("learning_rate", "lr"),
    "training.perturbation_scale": ("perturbation_scale", "zo_eps", "eps", "epsilon", "mu"),
    "training.seed": ("seed",),
}
_ARMS = ("arm", "method", "kernel", "optimizer", "trainer")


def find_trial_folders(folder: Path) -> list[Path]:
    """The folders below that hold a Tune trial's results."""
    found = [*folder.glob("**/result.json"), *folder.glob("**/progress.csv")]
    return sorted({path.parent for path in found})


def read_tune_experiment(folder: Path) -> Results:
    """A Tune experiment as a sweep; a trial that ended without an error counts as finished.

    Raises:
        ResultsError: If no trial has a result.
    """
    warnings: list[str] = []
    trials: dict[str, Values] = {}
    rows: dict[str, list[Values]] = {}
    for path in find_trial_folders(folder):
        results = _read_results(path, warnings)
        config = _read_config(path, results, warnings)
        trial_id = str(results[-1].get("trial_id") or path.name) if results else path.name
        if trial_id in trials:
            trial_id = path.name
        arm = next((str(config[key]) for key in _ARMS if isinstance(config.get(key), str)), "trial")
        ours = {
            key: next((config[name] for name in names if name in config), None)
            for key, names in PARAMETERS.items()
        }
        trial = {"trial_id": trial_id, "arm": arm, "status": _status_of(path, results)}
        flat = {**config, **{key: value for key, value in ours.items() if value is not None}}
        trials[trial_id] = {**trial, "config": unflatten(flat), "phase": "screen"}
        named = {key.removeprefix("training."): ours[key] for key in FACTORS}
        rows[trial_id] = [{**_translate(row), **named, "arm": arm} for row in results]
        trials[trial_id]["rungs"] = sorted({row["rung"] for row in rows[trial_id]})
    warnings.append(
        f"{folder.name} is a Ray Tune experiment from elsewhere: columns were taken by their "
        "names, budgets from its steps, and a trial that ended without an error as finished."
    )
    name = folder.resolve().name
    return assemble_results(name, trials, rows, {"name": name}, warnings)


def _read_results(path: Path, warnings: list[str]) -> list[Values]:
    lines = (path / "result.json") if (path / "result.json").is_file() else None
    found: list[Values] = []
    if lines is not None:
        for number, line in enumerate(lines.read_text(errors="replace").splitlines(), start=1):
            try:
                found.append(parse_json_object(line))
            except ValueError:
                warnings.append(f"Trial {path.name}: line {number} of result.json is damaged.")
    if not found and (path / "progress.csv").is_file():
        with (path / "progress.csv").open(newline="", errors="replace") as file:
            found = [
                {key: _number(value) for key, value in row.items() if key}
                for row in csv.DictReader(file)
            ]
    return [row for row in found if _has_step(row)]


def _has_step(row: Mapping[str, Any]) -> bool:
    try:
        whole_step(row.get("training_iteration", row.get("step")))
    except ValueError:
        return False
    return True


def _number(text: str | None) -> Any:
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text or "")
    except ValueError:
        return text or None


def _read_config(path: Path, results: list[Values], warnings: list[str]) -> Values:
    if (path / "params.json").is_file():
        try:
            return parse_json_object((path / "params.json").read_text(errors="replace"))
        except ValueError as error:
            warnings.append(f"Trial {path.name}: params.json is not readable ({error}).")
    last = results[-1] if results else {}
    prefix = "config/"
    within = {k.removeprefix(prefix): v for k, v in last.items() if k.startswith(prefix)}
    config = last.get("config")
    return {**config, **within} if isinstance(config, dict) else within


def _status_of(path: Path, results: list[Values]) -> str:
    if (path / "error.txt").is_file() or (path / "error.pkl").is_file():
        return "failed"
    return "finished" if results else "interrupted"


def _translate(row: Values) -> Values:
    row = dict(row)
    for name, others in SYNONYMS.items():
        if name not in row:
            row[name] = next((row[other] for other in others if other in row), None)
    row["step"], row["rung"] = whole_step(row["step"]), whole_step(row["rung"])
    return row
