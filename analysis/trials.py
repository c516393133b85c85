"""Every trial in one table, and the failed ones by what they failed with."""

from __future__ import annotations

import dataclasses
import re

import pandas as pd

from analysis.formats import (
    format_area,
    format_change,
    format_count,
    format_gib,
    format_level,
    format_loss,
    format_points,
    format_score,
    format_seconds,
)
from analysis.load import Study
from analysis.registry import Column, Table, table
from analysis.style import CSS_COLORS, colors_of

AXES = ("context", "arm", "perturbation_scale", "learning_rate", "extra", "seed", "rung")
"""What the parallel coordinates run through before the dev loss, where it varies."""


@table("cells")
def trials(study: Study) -> Table | None:
    """Every trial at its last evaluation."""
    frame = frame_trials(study)
    where = ("context", "perturbation_scale", "learning_rate", "extra", "seed", "phase")
    columns = (
        Column("context", "Study"),
        Column("arm", "Arm"),
        Column("perturbation_scale", "ε", format_level, numeric=True),
        Column("learning_rate", "Learning rate", format_level, numeric=True),
        Column("extra", "Other factors"),
        Column("seed", "Seed", format_count, numeric=True),
        Column("status", "Status"),
        Column("rung", "Rung", format_count, numeric=True),
        Column("forward_passes", "Forward passes", format_count, numeric=True),
        Column("dev_loss", "Dev loss", format_loss, numeric=True),
        Column("dev_loss_change", "Loss change", format_change, numeric=True),
        Column("score", f"Dev {study.score_name}", format_score, numeric=True),
        Column("score_change", "Change, pt", format_points, numeric=True),
        Column("dev_auc", "Dev AUC", format_area, numeric=True),
        Column("test_loss", "Test loss", format_loss, numeric=True),
        Column("test_score", f"Test {study.score_name}", format_score, numeric=True),
        Column("device_time_s", "Device s", format_seconds, numeric=True),
        Column("peak_memory_gib", "GiB", format_gib, numeric=True),
        Column("attempts", "Attempts", format_count, numeric=True),
        Column("trial_id", "Trial"),
    )
    shown = tuple(c for c in columns if c.name not in where or frame[c.name].nunique() > 1)
    optional = ("dev_auc", "test_loss", "test_score", "score", "score_change", "peak_memory_gib")
    shown = tuple(c for c in shown if c.name not in optional or frame[c.name].notna().any())
    note = (
        "A trial that serves several arms has a line for each. Trials at different rungs have had "
        "different budgets: their losses are not comparable. The trial's name opens the command "
        "that reruns it."
    )
    return Table(frame, shown, note, sortable=True)


def frame_trials(study: Study) -> pd.DataFrame:
    """Every cell and trial of the plans, with the trial's last row where it has one."""
    return study.cells.merge(study.last_rows, on=["sweep", "trial_id"], how="left")


@dataclasses.dataclass(frozen=True)
class Axis:
    """A parallel coordinate: which column of the trials' table it shows, and how.

    Attributes:
        column: Its place in the table.
        label: Its heading.
        numeric: Otherwise its levels are words, in the order of the table.
        outcome: Whether it is what came out, which is drawn to scale; a factor has levels.
    """

    column: int
    label: str
    numeric: bool
    outcome: bool


def list_axes(shown: Table) -> list[Axis]:
    """The axes of the parallel coordinates; fewer than two are not worth a drawing."""
    found = {column.name: place for place, column in enumerate(shown.columns)}
    names = [n for n in AXES if n in found and shown.frame[n].nunique() > 1]
    if "dev_loss" not in found or not shown.frame["dev_loss"].notna().any():
        return []
    columns = [(found[name], shown.columns[found[name]]) for name in [*names, "dev_loss"]]
    return [Axis(place, c.label, c.numeric, c.name == "dev_loss") for place, c in columns]


def color_arms(study: Study) -> dict[str, str]:
    """The CSS colour of each arm."""
    colors = colors_of(study.arms, study.baselines)
    return {arm: f"var(--{CSS_COLORS.get(color, 'ink')})" for arm, color in colors.items()}


@dataclasses.dataclass(frozen=True)
class FailureGroup:
    """Trials that failed with the same traceback.

    Attributes:
        kind: The cause, or the exception's name.
        message: Of the first of them.
        traceback: Of the first of them.
        trials: Name, arm and the command that runs each alone.
    """

    kind: str
    message: str
    traceback: str
    trials: list[tuple[str, str, str]]


def group_failures(study: Study) -> list[FailureGroup]:
    """The failed trials by traceback, the largest group first; numbers in it do not count."""
    failed = study.trials[study.trials["failure_kind"] != ""]
    groups: dict[tuple[str, str], FailureGroup] = {}
    for trial in failed.to_dict("records"):
        text = trial["failure_traceback"] or trial["failure_message"]
        key = (trial["failure_kind"], re.sub(r"0x[0-9a-f]+|\d+", "#", str(text)))
        group = groups.setdefault(
            key,
            FailureGroup(
                str(trial["failure_kind"]),
                str(trial["failure_message"]),
                str(trial["failure_traceback"]),
                [],
            ),
        )
        group.trials.append((trial["trial_id"], trial["arm"], trial["command"]))
    return sorted(groups.values(), key=lambda group: -len(group.trials))
