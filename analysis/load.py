"""Results folders as frames: a study's trials, its cells and its evaluations.

One trial may serve several cells (arms that coincide): the frames of cells and of evaluations
repeat it for each, the frame of trials has it once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.sources import Results, ResultsError, Values, read_source

ARM, EPSILON, LEARNING_RATE, SEED, DATA_SEED = (
    "arm",
    "training.perturbation_scale",
    "training.learning_rate",
    "training.seed",
    "task.data_seed",
)
CONTEXT_COLUMNS = ("sweep", "phase", "model", "task", "tuning")
"""Trials that differ in one of these are shown apart and never compared."""

FIXED_FACTORS = frozenset({ARM, EPSILON, LEARNING_RATE, SEED, DATA_SEED, "model", "task", "tuning"})
"""Swept keys that have a column of their own, or are what is averaged over."""

MEASURED = (
    "rung",
    "step",
    "forward_passes",
    "device_time_s",
    "eval_time_s",
    "wall_time_s",
    "train_loss",
    "projected_gradient_rms",
    "dev_loss",
    "score",
    "dev_auc",
    "test_step",
    "test_loss",
    "test_score",
    "test_auc",
    "peak_memory_gib",
)
NO_TUNING = "none"
"""The tuning of trials that leave the model as it is."""
LARGEST = 1e150
"""A measured number above this is as good as infinite: sums of its squares would be."""

OUTCOMES = ("dev_loss", "score", "dev_auc")


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """One or more sweeps, ready to be tabulated.

    Attributes:
        sweeps: The folders' contents, as read.
        trials: One row per trial: `sweep, trial_id, planned, context, arm, status, …`.
        cells: One row per cell and trial of the plans: the trial's columns with the cell's own
            arm and factors, `extra` (the other factors in words), `factors` (all swept keys and
            values) and `setting`, a number that is the same for the seeds of one cell.
        evaluations: One row per cell, trial and evaluation; outcomes, and `*_change` over the
            trial's own step 0. A diverged evaluation has NaN outcomes.
        last_rows: The last row of every trial that has one, those outside the plans included.
        score_name: "accuracy" or "F1": what `score` means.
        warnings: What was wrong with the files, in sentences.
    """

    sweeps: tuple[Results, ...]
    trials: pd.DataFrame
    cells: pd.DataFrame
    evaluations: pd.DataFrame
    last_rows: pd.DataFrame
    score_name: str
    warnings: tuple[str, ...]

    @property
    def contexts(self) -> list[str]:
        """What is shown apart, in the order of the plans; a single unnamed one as a rule."""
        return list(dict.fromkeys(self.cells["context"]))

    @property
    def arms(self) -> list[str]:
        """The arms: the baselines first, then in the order of the plans."""
        found = list(dict.fromkeys(self.cells["arm"]))
        return [a for a in self.baselines if a in found] + [
            a for a in found if a not in self.baselines
        ]

    @property
    def baselines(self) -> list[str]:
        """The arms that the plans, or else the caller, name as baselines."""
        return list(
            dict.fromkeys(str(s.plan["baseline"]) for s in self.sweeps if s.plan.get("baseline"))
        )

    @property
    def is_adaptive(self) -> bool:
        """Whether the cells of some sweep were chosen by the results of others."""
        return any(is_adaptive(sweep.plan) for sweep in self.sweeps)

    @property
    def has_extra_factors(self) -> bool:
        """Whether anything but arm, epsilon, learning rate and seed was swept."""
        return bool((self.cells["extra"] != "").any())

    @property
    def seeds_per_cell(self) -> int:
        """The most seeds that any cell was planned with."""
        return int(self.cells.groupby("setting")["trial_id"].nunique().max())

    def planned_trials(self, sweep: str) -> pd.DataFrame:
        """The trials of a sweep's plan; what else lies in its folder is left out."""
        trials = self.trials
        return trials[(trials["sweep"] == sweep) & trials["planned"].astype(bool)]

    def sort_by_arm(self, frame: pd.DataFrame, *before: str) -> pd.DataFrame:
        """The frame in the order of `arms`, after that of other columns; ties stay as they were."""
        order = {arm: place for place, arm in enumerate(self.arms)}
        arms = frame["arm"].map(order).fillna(len(order)).rename("arm_order")
        keys = pd.concat([frame[list(before)], arms], axis=1)
        return frame.loc[keys.sort_values([*before, "arm_order"], kind="stable").index]

    def rungs(self, context: str) -> list[int]:
        """The nominal forward passes at which a context's trials are evaluated."""
        lists = self.cells.loc[self.cells["context"] == context, "rungs"]
        return sorted({int(rung) for rungs in lists for rung in rungs})


def is_adaptive(plan: Mapping[str, Any]) -> bool:
    """Whether a search that learns from results (TPE) chose a plan's cells."""
    search = plan.get("search") or (plan.get("config") or {}).get("search") or ""
    name = search.get("name") if isinstance(search, dict) else search
    return str(name) == "optuna"


def load_study(folders: Sequence[Path], baseline: str | None = None) -> Study:
    """Read results folders into frames.

    Args:
        folders: Results folders, at least one.
        baseline: The arm that the others are compared with, in place of the plans' own.

    Returns:
        The study.

    Raises:
        ResultsError: As `read_source`, or if the baseline is none of the arms.
        ValueError: If no folder is given.
    """
    if not folders:
        raise ValueError("folders must name at least one results folder, got none")
    sweeps = tuple(sweep for folder in folders for sweep in read_source(folder))
    if baseline is not None:
        sweeps = tuple(_compare_with(baseline, sweep) for sweep in sweeps)
    trials = _frame_trials(sweeps)
    rows = _frame_rows(sweeps)
    cells = _frame_cells(sweeps, trials)
    if baseline is not None and not (cells["arm"] == baseline).any():
        arms = ", ".join(dict.fromkeys(cells["arm"]))
        raise ResultsError(f"baseline must be one of the arms {arms}; got {baseline!r}")
    rows, score_name = _unify_score(rows)
    measured = _measure(rows)
    evaluations = cells.merge(measured, on=["sweep", "trial_id"], how="inner")
    last_rows = measured.groupby(["sweep", "trial_id"], sort=False).tail(1)
    warnings = [
        f"{sweep.name}: {warning}" if len(sweeps) > 1 else warning
        for sweep in sweeps
        for warning in sweep.warnings
    ]
    return Study(sweeps, trials, cells, evaluations, last_rows, score_name, tuple(warnings))


def _compare_with(baseline: str, sweep: Results) -> Results:
    """The sweep with another baseline; what its plan names stays known as `planned_baseline`."""
    named = sweep.plan.get("baseline")
    return dataclasses.replace(
        sweep, plan={**sweep.plan, "baseline": baseline, "planned_baseline": named}
    )


def _frame_trials(sweeps: Sequence[Results]) -> pd.DataFrame:
    records = []
    for label, sweep in zip(sweep_labels(sweeps), sweeps, strict=True):
        first_rows: dict[str, Values] = {}
        for row in sweep.rows:
            first_rows.setdefault(row["trial_id"], row)
        for trial_id, trial in sweep.trials.items():
            facts = _facts(trial, first_rows.get(trial_id, {}), sweep.plan)
            records.append({"sweep": label, "trial_id": trial_id, **facts})
    frame = pd.DataFrame(records)
    varying = _varying(frame)
    frame["context"] = [_name_context(values, varying) for values in frame.to_dict("records")]
    return frame


def _varying(trials: pd.DataFrame) -> list[str]:
    """The context columns in which the planned trials differ; those without a tuning do not."""
    planned = trials.loc[trials["planned"], list(CONTEXT_COLUMNS)]
    counts = planned.assign(tuning=planned["tuning"].where(planned["tuning"] != NO_TUNING))
    return [c for c in CONTEXT_COLUMNS if counts[c].nunique() > 1]


def _name_context(values: Mapping[Any, Any], varying: Sequence[str]) -> str:
    return " · ".join(str(values[column]) for column in varying)


def sweep_labels(sweeps: Sequence[Results]) -> list[str]:
    """A distinct label for each sweep: its name, numbered where names repeat."""
    names = [sweep.name for sweep in sweeps]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})"
        for i, name in enumerate(names)
    ]


def _facts(trial: Values, row: Values, plan: Values) -> Values:
    """What a trial is, from its resolved configuration, else from its rows."""
    config = _mapping(trial.get("config"))
    training = _mapping(config.get("training"))
    choices = {**_mapping(plan.get("choices")), **_mapping(trial.get("choices"))}
    failure = _mapping(trial.get("failure"))

    def name_of(group: str) -> str:
        part = config.get(group)
        name = part.get("name") if isinstance(part, Mapping) else None
        return str(choices.get(group) or name or row.get(group) or "unknown")

    def number_of(name: str) -> Any:
        """A value of the configuration; none where the rows say that it means nothing."""
        meaningless = name in row and row[name] is None
        return None if meaningless else _first_of(training.get(name), row.get(name))

    tunes = not ("tuning" in row and row["tuning"] is None)
    listed = _first_of(trial.get("rungs"), plan.get("rungs"), [])
    rungs = [rung for rung in listed if isinstance(rung, int)] if isinstance(listed, list) else []
    return {
        "planned": bool(trial["planned"]),
        "phase": trial.get("phase") or row.get("phase") or "screen",
        "model": name_of("model"),
        "task": name_of("task"),
        "tuning": name_of("tuning") if tunes else NO_TUNING,
        "arm": str(trial.get("arm") or row.get("arm") or "unknown"),
        "status": str(trial["status"]),
        "attempts": trial.get("attempts", 0),
        "seed": number_of("seed"),
        "perturbation_scale": _number(number_of("perturbation_scale")),
        "learning_rate": _number(number_of("learning_rate")),
        "kernel": row.get("kernel"),
        "order": row.get("order"),
        "half_width": row.get("half_width"),
        "num_directions": row.get("num_directions"),
        "rungs": rungs,
        "trains": trial.get("rungs") != [],
        "command": trial.get("command") or "",
        "failure_kind": failure.get("cause") or failure.get("kind") or "",
        "failure_message": failure.get("message") or "",
        "failure_traceback": failure.get("traceback") or "",
        "config": config,
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first_of(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return float("nan")
    try:
        return float(value)
    except ValueError:
        return float("nan")


def _frame_rows(sweeps: Sequence[Results]) -> pd.DataFrame:
    records = [
        {**row, "sweep": label}
        for label, sweep in zip(sweep_labels(sweeps), sweeps, strict=True)
        for row in sweep.rows
    ]
    return pd.DataFrame(records, columns=None if records else ["sweep", "trial_id"])


def _frame_cells(sweeps: Sequence[Results], trials: pd.DataFrame) -> pd.DataFrame:
    varying = _varying(trials)
    by_trial = {(t["sweep"], t["trial_id"]): t for t in trials.to_dict("records")}
    settings: dict[tuple[Any, ...], int] = {}
    listed: set[tuple[int | None, str]] = set()
    records = []
    for label, sweep in zip(sweep_labels(sweeps), sweeps, strict=True):
        for cell in sweep.plan["cells"]:
            trial = by_trial.get((label, cell["trial_id"]))
            if trial is None:
                continue
            values = cell["values"]
            arm = str(cell.get("arm") or values.get(ARM) or trial["arm"])
            epsilon, rate = (
                trial[name] if pd.isna(trial[name]) else _number(values.get(key, trial[name]))
                for name, key in (
                    ("perturbation_scale", EPSILON),
                    ("learning_rate", LEARNING_RATE),
                )
            )
            extra = ", ".join(
                f"{key.removeprefix('training.')} {_in_words(value)}"
                for key, value in values.items()
                if key not in FIXED_FACTORS
            )
            if trial["tuning"] == NO_TUNING and "tuning" in values:  # beside every tuning
                beside = {**trial, "tuning": str(values["tuning"])}
                trial = {**trial, "context": _name_context(beside, varying)}
            key = (trial["context"], arm, repr(epsilon), repr(rate), extra)
            if (settings.get(key), trial["trial_id"]) in listed:
                continue  # cells that differ in what means nothing to their method
            listed.add((settings.setdefault(key, len(settings)), trial["trial_id"]))
            records.append(
                {
                    **trial,
                    "arm": arm,
                    "perturbation_scale": epsilon,
                    "learning_rate": rate,
                    "extra": extra,
                    "factors": values,
                    "setting": settings[key],
                    "shared_with": "",
                }
            )
    _name_aliases(records)
    columns = [*trials.columns, "extra", "factors", "setting", "shared_with"]
    return pd.DataFrame(records, columns=columns)


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _name_aliases(records: list[Values]) -> None:
    arms: dict[tuple[str, str], list[str]] = {}
    for record in records:
        arms.setdefault((record["sweep"], record["trial_id"]), []).append(record["arm"])
    for record in records:
        others = [a for a in arms[record["sweep"], record["trial_id"]] if a != record["arm"]]
        record["shared_with"] = ", ".join(dict.fromkeys(others))


def _unify_score(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Put accuracy, or F1 where there is none, into `score` and `test_score`."""
    rows = rows.copy()
    names = {"accuracy": "accuracy", "f1": "F1"}
    for split, name in (("dev", "score"), ("test", "test_score")):
        rows[name] = float("nan")
        for metric in names:
            if (column := f"{split}_{metric}") in rows:
                rows[name] = rows[name].fillna(_numeric(rows[column]))
    found = [m for m in names if f"dev_{m}" in rows and rows[f"dev_{m}"].notna().any()]
    return rows, " or ".join(names[metric] for metric in found) or "accuracy"


def _numeric(values: pd.Series) -> pd.Series:
    """Values as floats; what is no number, or so large that its square is none, is missing."""
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    return numbers.where(numbers.abs() < LARGEST)


def _measure(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows' measured numbers as floats, with changes of the outcomes over step 0."""
    rows = rows.copy()
    for column in MEASURED:
        missing = pd.Series(float("nan"), index=rows.index, dtype="float64")
        rows[column] = _numeric(rows[column]) if column in rows else missing
    rows["diverged"] = (
        [value is True for value in rows["diverged"]] if "diverged" in rows else False
    )
    measured = rows[["sweep", "trial_id", "diverged", *MEASURED]]
    starts = measured.loc[measured["step"] == 0, ["sweep", "trial_id", *OUTCOMES]]
    starts = starts.rename(columns={name: f"{name}_start" for name in OUTCOMES})
    measured = measured.merge(starts, on=["sweep", "trial_id"], how="left")
    for name in OUTCOMES:
        measured[f"{name}_change"] = measured[name] - measured[f"{name}_start"]
    return measured
