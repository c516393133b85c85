"""`python -m analysis compare A B`: two sweeps side by side, and what differs in their design.

Trials are paired where arm, ε, learning rate, the other factors and the seed coincide, and model,
task, tuning and phase where the sweeps share them at all; both must have finished. Differences are
B less A. Those of one seed are averaged over its cells first, and seeds are what the interval is
over: cells of one seed are not independent.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.formats import (
    format_change,
    format_count,
    format_loss,
    format_number,
    format_points,
    format_score,
    format_seconds,
)
from analysis.load import Study, load_study, sweep_labels
from analysis.registry import Column, Table
from analysis.report import default_folder
from analysis.sources import Results, ResultsError
from analysis.sources.base import flatten
from analysis.standings import list_standings
from analysis.statistics import paired_mean
from analysis.trials import frame_trials
from analysis.writers import to_markdown, write_table

CELL = ["arm", "perturbation_scale", "learning_rate", "extra", "seed"]
CONTEXT = ["model", "task", "tuning", "phase"]
OUTCOMES = (
    ("dev_loss", "dev loss", format_loss, format_change),
    ("score", "dev score", format_score, format_points),
    ("test_loss", "test loss", format_loss, format_change),
    ("test_score", "test score", format_score, format_points),
    ("device_time_s", "device seconds", format_seconds, format_number),
)
"""Column, name, form of a mean, form of a difference."""

_IGNORED = ("name", "description", "results_dir", "report", "plan_only", "fresh")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two sweeps.

    Attributes:
        names: Of A and B.
        tables: Name → caption and table, in the order in which they are shown.
    """

    names: tuple[str, str]
    tables: dict[str, tuple[str, Table]]

    def to_text(self) -> str:
        """All tables in Markdown."""
        heading = f"# {self.names[0]} (A) and {self.names[1]} (B)"
        return "\n".join([heading, "", *(to_markdown(t, c) for c, t in self.tables.values())])


def compare_sweeps(first: Path, second: Path) -> Comparison:
    """Read two sweeps and set them side by side.

    Raises:
        ResultsError: If one cannot be read, or is not a single sweep.
    """
    study = load_study([first, second])
    if len(study.sweeps) != 2:
        raise ResultsError(f"compare takes two sweeps, got {len(study.sweeps)}")
    a, b = sweep_labels(study.sweeps)
    pairs = _pair(study, a, b)
    tables = {
        "design": ("What differs in their design", _tabulate_design(*study.sweeps)),
        "coverage": ("Trials", _tabulate_coverage(study, pairs, a, b)),
        "pairs": ("Paired differences, B less A", _tabulate_pairs(study, pairs)),
        "chosen": ("The cell that dev loss chose in each", _tabulate_chosen(study, a)),
    }
    return Comparison((a, b), tables)


def write_comparison(first: Path, second: Path, out: Path | None = None) -> tuple[Comparison, Path]:
    """Compare and write comparison.md beside each table as CSV, Markdown and LaTeX.

    Args:
        first: Sweep A.
        second: Sweep B.
        out: The folder; by default `report/compared-with-B` of A.

    Returns:
        The comparison and the path of comparison.md.

    Raises:
        ResultsError: As `compare_sweeps`.
    """
    found = compare_sweeps(first, second)
    folder = out or default_folder([first]) / f"compared-with-{second.resolve().name}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (caption, table) in found.tables.items():
        write_table(table, name, caption, folder)
    path = folder / "comparison.md"
    path.write_text(found.to_text(), encoding="utf-8", newline="\n")
    return found, path


def _pair(study: Study, a: str, b: str) -> pd.DataFrame:
    """Finished trials of both that coincide, with `_a` and `_b` of every outcome."""
    frame = frame_trials(study)
    frame = frame[(frame["status"] == "finished") & ~frame["diverged"].eq(True)]
    ours, theirs = frame[frame["sweep"] == a], frame[frame["sweep"] == b]
    shared = [n for n in CONTEXT if set(ours[n].dropna()) & set(theirs[n].dropna())]
    keys = [*CELL, *shared]
    values = [name for name, *_ in OUTCOMES]
    columns = [*keys, *values, "trial_id", "forward_passes"]
    return ours[columns].merge(theirs[columns], on=keys, suffixes=("_a", "_b"))


def _tabulate_design(first: Results, second: Results) -> Table:
    """The keys of the two plans that differ."""
    a, b = _describe_design(first), _describe_design(second)
    rows = [
        {"key": key, "a": a.get(key, ""), "b": b.get(key, "")}
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    ]
    columns = (Column("key", "Key"), Column("a", "A"), Column("b", "B"))
    frame = pd.DataFrame(rows, columns=["key", "a", "b"])
    return Table(frame, columns, "" if rows else "Nothing: the plans agree.")


def _describe_design(sweep: Results) -> dict[str, str]:
    plan = sweep.plan
    config = {k: v for k, v in (plan.get("config") or {}).items() if k not in _IGNORED}
    levels: dict[str, list[Any]] = {}
    for cell in plan["cells"]:
        for key, value in cell["values"].items():
            known = levels.setdefault(key, [])
            if value not in known:
                known.append(value)
    about: dict[str, Any] = {
        "baseline": plan.get("baseline"),
        "rungs": plan.get("rungs"),
        "commit": plan.get("commit"),
        "method version": plan.get("method_version"),
        "machine": plan.get("machine"),
        "versions": plan.get("versions"),
        "choices": plan.get("choices"),
        "swept": levels,
        "config": {k: v for k, v in config.items() if k != "space"},
    }
    return {key: _in_words(value) for key, value in flatten(about).items()}


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tabulate_coverage(study: Study, pairs: pd.DataFrame, a: str, b: str) -> Table:
    """How many trials each has of an arm, and how many coincide."""
    rows = []
    for arm in study.arms:
        mine = study.cells[study.cells["arm"] == arm]
        same = pairs[pairs["arm"] == arm]
        identical = (same["trial_id_a"] == same["trial_id_b"]).sum()
        rows.append(
            {
                "arm": arm,
                **{
                    f"trials_{x}": int((mine["sweep"] == name).sum())
                    for x, name in zip("ab", (a, b), strict=True)
                },
                **{
                    f"finished_{x}": int(
                        ((mine["sweep"] == name) & (mine["status"] == "finished")).sum()
                    )
                    for x, name in zip("ab", (a, b), strict=True)
                },
                "pairs": len(same),
                "identical": int(identical),
            }
        )
    columns = (
        Column("arm", "Arm"),
        Column("trials_a", "Trials of A", format_count, numeric=True),
        Column("trials_b", "Trials of B", format_count, numeric=True),
        Column("finished_a", "Finished of A", format_count, numeric=True),
        Column("finished_b", "Finished of B", format_count, numeric=True),
        Column("pairs", "Pairs", format_count, numeric=True),
        Column("identical", "Of one identity", format_count, numeric=True),
    )
    note = (
        "A pair has one arm, ε, learning rate, other factors and seed, and has finished in both. "
        "Trials of one identity have the same numerical configuration, so that a difference "
        "between them is that of machines."
    )
    return Table(pd.DataFrame(rows), columns, note)


def _tabulate_pairs(study: Study, pairs: pd.DataFrame) -> Table:
    """Mean paired differences of each arm and outcome."""
    forms = {label: (mean, change) for _, label, mean, change in OUTCOMES}
    rows = [
        _difference(pairs[pairs["arm"] == arm], name) | {"arm": arm, "outcome": label}
        for arm in study.arms
        for name, label, *_ in OUTCOMES
        if (pairs["arm"] == arm).any()
    ]
    rows = [row for row in rows if row["pairs"]]
    for row in rows:
        mean, change = forms[row["outcome"]]
        row |= {f"{n}_text": mean(row[n]) for n in ("a", "b")}
        row |= {f"{n}_text": change(row[n]) for n in ("difference", "low", "high")}
    names = ["arm", "outcome", "a", "b", "difference", "low", "high", "p", "pairs", "seeds"]
    frame = pd.DataFrame(rows, columns=[*names, *(f"{n}_text" for n in names[2:7])])
    shown = (("a", "A"), ("b", "B"), ("difference", "B − A"), ("low", "95 % from"), ("high", "to"))
    columns = (
        Column("arm", "Arm"),
        Column("outcome", "Outcome"),
        *(Column(f"{name}_text", label, numeric=True) for name, label in shown),
        Column("p", "p", format_number, numeric=True),
        Column("pairs", "Pairs", format_count, numeric=True),
        Column("seeds", "Seeds", format_count, numeric=True),
    )
    note = (
        "Differences of scores are in points. Intervals and p are Student's over seeds, without a "
        "correction for their number; with one seed there are none."
        if rows
        else "No trial of the one coincides with one of the other."
    )
    return Table(frame, columns, note)


def _tabulate_chosen(study: Study, a: str) -> Table:
    """Each arm's chosen cell in either sweep, whether or not they coincide."""
    rows = [
        {
            "sweep": "A" if group.sweep == a else "B",
            "group": " · ".join(dict.fromkeys([group.model, group.tuning, group.phase])),
            "arm": standing.arm,
            "seeds": standing.seeds,
            "dev_loss": standing.dev_loss,
            "split": standing.split,
            "score": standing.score.mean,
            "low": standing.score.low,
            "high": standing.score.high,
            "seconds": standing.seconds.mean,
        }
        for group in list_standings(study)
        for standing in group.standings
    ]
    order = {arm: place for place, arm in enumerate(study.arms)}
    rows.sort(key=lambda row: (order[str(row["arm"])], row["sweep"]))
    columns = (
        Column("arm", "Arm"),
        Column("sweep", "Sweep"),
        Column("group", "Of"),
        Column("seeds", "Seeds", format_count, numeric=True),
        Column("dev_loss", "Dev loss", format_loss, numeric=True),
        Column("split", "Split"),
        Column("score", "Score", format_score, numeric=True),
        Column("low", "95 % from", format_score, numeric=True),
        Column("high", "to", format_score, numeric=True),
        Column("seconds", "Device s", format_seconds, numeric=True),
    )
    note = (
        "Means over seeds and tasks; intervals are over seeds, of a single seed over its examples. "
        "Differences between rows of this table are not paired."
    )
    return Table(pd.DataFrame(rows, columns=[c.name for c in columns]), columns, note)


def _difference(pairs: pd.DataFrame, name: str) -> dict[str, Any]:
    known = pairs.dropna(subset=[f"{name}_a", f"{name}_b"])
    by_seed = (known[f"{name}_b"] - known[f"{name}_a"]).groupby(known["seed"], dropna=False).mean()
    found = paired_mean(by_seed.to_numpy(float)) if len(by_seed) else paired_mean(np.empty(0))
    return {
        "a": known[f"{name}_a"].mean(),
        "b": known[f"{name}_b"].mean(),
        "difference": float(found.mean),
        "low": float(found.low),
        "high": float(found.high),
        "p": float(found.p),
        "pairs": len(known),
        "seeds": len(by_seed),
    }
