"""The papers' table as differences from the baseline, with intervals."""

from __future__ import annotations

import functools
from typing import Any

import pandas as pd

from analysis.formats import format_points, format_range
from analysis.load import Study
from analysis.paper import QUOTED_DIFFERENCES
from analysis.registry import Column, Table, table
from analysis.scores import ALPHA, ROW, choose_scores, paired_differences
from analysis.statistics import adjust_holm, paired_mean, stratified

AVERAGE = "average"


@table("best")
def differences_by_task(study: Study) -> Table | None:
    """Differences of scores from the baseline by arm, tuning and task, in points."""
    found = choose_scores(study)
    base_arm = study.baselines[0] if study.baselines else None
    if found.empty or base_arm not in set(found["arm"]):
        return None
    if not (found["task"].nunique() > 1 or (found["split"] == "test").any()):
        return None
    tasks = [t for t in dict.fromkeys(study.cells["task"]) if (found["task"] == t).any()]
    records = []
    for _, group in found.groupby(["sweep", "phase", "model", "tuning"], sort=False, dropna=False):
        base = group[group["arm"] == base_arm].set_index("task")
        rows = [
            _row(mine, base, tasks)
            for arm, mine in group.groupby("arm", sort=False)
            if arm != base_arm
        ]
        _adjust(rows, tasks)
        records += [row | {"source": ""} for row in rows if any(t in row for t in tasks)]
    if not records:
        return None
    records += _quote(found, base_arm, tasks)
    names = [*tasks, *([AVERAGE] if len(tasks) > 1 else [])]
    blank: dict[str, Any] = {f"{n}{s}": float("nan") for n in names for s in ("", "_p")}
    frame = pd.DataFrame([blank | {f"{n}_interval": "" for n in names} | r for r in records])
    frame["tuning"] = frame["tuning"].fillna("")
    varying = [name for name in ("sweep", "phase", "model") if frame[name].nunique() > 1]
    columns = (
        *(Column(name, name.capitalize()) for name in varying),
        Column("arm", "Method"),
        Column("tuning", "Tuning"),
        *(_difference_column(name) for name in names),
        *((Column("source", "Source"),) if (frame["source"] != "").any() else ()),
    )
    note = (
        f"Against {base_arm} under the same tuning, both at the cell and checkpoint that dev loss "
        "chose; pairs share their seed. In brackets Student's 95 % interval; the average is over "
        "tasks, which count alike. Bold: the paired test tells the two apart at 5 %, after Holm's "
        "correction over the arms of a column. A cell without interval has fewer than two pairs, "
        "or differences that do not vary. Diverged and unfinished trials are in no difference."
    )
    return Table(frame, columns, note)


def _quote(found: pd.DataFrame, baseline: str | None, tasks: list[str]) -> list[dict[str, Any]]:
    """Published differences for the study's own models and tasks, where its baseline is MeZO."""
    rows = []
    for quoted in QUOTED_DIFFERENCES if baseline == "mezo" else ():
        shown = {task: d for task, d in quoted.differences.items() if task in tasks}
        if shown and (found["model"] == quoted.model).any():
            source = f"quoted, unverified: {quoted.source}"
            rows.append({"model": quoted.model, "arm": quoted.method, "source": source} | shown)
    return rows


def _row(mine: pd.DataFrame, base: pd.DataFrame, tasks: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: mine[name].iloc[0] for name in ROW}
    scores = mine.set_index("task")
    groups = {}
    for task in [t for t in tasks if t in scores.index and t in base.index]:
        if scores.loc[task, "split"] != base.loc[task, "split"]:
            continue
        d = paired_differences(scores.loc[task, "values"], base.loc[task, "values"])
        if d:
            groups[task] = d
            row |= _describe(task, paired_mean(d))
    if len(groups) > 1:
        row |= _describe(AVERAGE, stratified([*groups.values()]))
    return row


def _describe(name: str, found: Any) -> dict[str, Any]:
    interval = format_range(float(found.low), float(found.high), 1)
    return {name: float(found.mean), f"{name}_interval": interval, f"{name}_p": float(found.p)}


def _adjust(rows: list[dict[str, Any]], tasks: list[str]) -> None:
    """Correct the p-values of each column for the number of arms."""
    for name in (*tasks, AVERAGE):
        there = [row for row in rows if name in row]
        for row, p in zip(there, adjust_holm([r[f"{name}_p"] for r in there]), strict=True):
            row[f"{name}_p"] = float(p)


def _difference_column(name: str) -> Column:
    return Column(
        name,
        name,
        _format_cell,
        numeric=True,
        spread=f"{name}_interval",
        spread_form="{} {}",
        bold=functools.partial(_is_told_apart, name),
    )


def _format_cell(value: Any) -> str:
    """A difference in points, or its interval, which is text already."""
    return value if isinstance(value, str) else format_points(value / 100)


def _is_told_apart(name: str, row: Any) -> bool:
    return bool(row[f"{name}_p"] <= ALPHA)
