"""What every source gives: a sweep's plan, trials and rows, wherever they were kept."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

Values = dict[str, Any]

FACTORS = ("training.perturbation_scale", "training.learning_rate", "training.seed")
"""What tells cells apart beside the arm, where a source has no plan that says so."""


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
"""Made once: a decoder of one's own for each row would take longer than the row."""


class ResultsError(ValueError):
    """Results that no report can be made of."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What one sweep left.

    Attributes:
        name: The sweep's name.
        plan: plan.json, or what can be told of it.
        trials: Trial id → plan entry updated by trial.json, with `status` and `planned`; those of
            the plan first, in its order, then those outside it by id.
        rows: The rows of every trial, one per (trial, step), ordered by step within a trial.
        warnings: What was wrong with the files, in sentences.
        decisions: The verdicts of early stopping in order, each with `trial_id`, `rung`,
            `survives` and `exempt`; none where the source does not keep them.
    """

    name: str
    plan: Values
    trials: dict[str, Values]
    rows: list[Values]
    warnings: list[str]
    decisions: list[Values] = dataclasses.field(default_factory=list)


def keep_one_row_per_step(
    trial_id: str, rows: Sequence[Values], warnings: list[str]
) -> list[Values]:
    """A trial's rows in the order of their steps; of a repeated step the last one counts."""
    by_step = {row["step"]: {**row, "trial_id": trial_id} for row in rows}
    num_repeated = len(rows) - len(by_step)
    if num_repeated:
        warnings.append(
            f"Trial {trial_id}: {num_repeated} of its rows repeat a step; the last of each is used."
        )
    return [by_step[step] for step in sorted(by_step)]


def assemble_results(
    name: str,
    trials: Mapping[str, Values],
    rows: Mapping[str, Sequence[Values]],
    plan: Values,
    warnings: list[str],
) -> Results:
    """Results of a source without plan.json: every trial is a cell, told apart by what varies.

    Args:
        name: The sweep's name.
        trials: Trial id → what would be in its trial.json; `config` may be nested.
        rows: Trial id → its rows, with `step`.
        plan: What is known of the plan; cells are added where it has none.
        warnings: Added to.

    Raises:
        ResultsError: If no trial has a row.
    """
    drop_foreign_entries(plan, warnings)
    if not any(rows.values()):
        raise ResultsError(f"no records in {name}: {len(trials)} runs, none with a row")
    kept = [
        row
        for trial_id in trials
        for row in keep_one_row_per_step(trial_id, rows.get(trial_id, ()), warnings)
    ]
    if not plan.get("cells"):
        flat = {trial_id: flatten(trial.get("config") or {}) for trial_id, trial in trials.items()}
        factors = _find_factors(trials, flat)
        plan = {
            **plan,
            "cells": [
                {
                    "trial_id": trial_id,
                    "arm": trial["arm"],
                    "values": {
                        key: flat[trial_id][key] for key in factors if key in flat[trial_id]
                    },
                }
                for trial_id, trial in trials.items()
            ],
        }
    return Results(
        name, plan, {t: {**v, "planned": True} for t, v in trials.items()}, kept, warnings
    )


def _find_factors(trials: Mapping[str, Values], flat: Mapping[str, Values]) -> list[str]:
    """The keys that take more than one value within an arm."""
    seen: dict[tuple[str, str], set[str]] = {}
    for trial_id, values in flat.items():
        for key, value in values.items():
            seen.setdefault((str(trials[trial_id]["arm"]), key), set()).add(repr(value))
    varying = {key for (_, key), found in seen.items() if len(found) > 1}
    named = {key for key in varying if key.split(".")[0] not in ("model", "task", "tuning")}
    return [*(key for key in FACTORS if key in named), *sorted(named - set(FACTORS))]


def flatten(node: Mapping[str, Any], prefix: str = "") -> Values:
    """Nested mappings as one, with dotted keys.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: Values = {}
    for key, value in node.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> Values:
    """Dotted keys as nested mappings; a value in the way of others gives way.

    >>> unflatten({"a.b": 1, "c": 2})
    {'a': {'b': 1}, 'c': 2}
    """
    nested: Values = {}
    for key, value in flat.items():
        *path, last = str(key).split(".")
        node = nested
        for part in path:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        node[last] = value
    return nested


def parse_json_object(text: str) -> Values:
    """A JSON object, numbers that are not finite as null.

    Raises:
        ValueError: If it is not JSON, or no object.
    """
    values = _DECODER.decode(text)
    if not isinstance(values, dict):
        raise ValueError(f"must be an object, got {type(values).__name__}")
    return values


_PLAN_TYPES: Mapping[str, type] = {
    "name": str,
    "description": str,
    "command": str,
    "baseline": str,
    "commit": str,
    "config": dict,
    "choices": dict,
    "versions": dict,
    "cost": dict,
    "fixed": dict,
    "strata": dict,
    "overrides": list,
    "rungs": list,
    "control_trials": list,
}
"""What an entry of a plan is, where there is one."""


def drop_foreign_entries(plan: Values, warnings: list[str]) -> None:
    """Leave out the entries of a plan that are not what they must be, and say so."""
    for key, kind in _PLAN_TYPES.items():
        if plan.get(key) is not None and not isinstance(plan[key], kind):
            found = type(plan[key]).__name__
            warnings.append(f"The plan's {key} must be a {kind.__name__}, got {found}: left out.")
            del plan[key]


def whole_step(value: Any) -> int:
    """A step as an integer.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"step must be a whole number, got {value!r}")
    return int(value)
