"""What the records say, in sentences that claim no more than they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from analysis.formats import (
    format_change,
    format_count,
    format_duration,
    format_gib,
    format_loss,
    format_points,
    is_missing,
)
from analysis.load import Study, sweep_labels
from analysis.selection import STATUS_ORDER, best_cells, compared_rung

Best = Mapping[Hashable, Any]
RUN_STATUSES = ("running", "interrupted", "planned")


def summarise(study: Study) -> list[str]:
    """One sentence or two for each context: who has the lowest dev loss at the final rung."""
    best = best_cells(study, "final")
    return [
        (f"{context}: " if context else "")
        + _summarise_context(study, context, best[best["context"] == context].to_dict("records"))
        for context in study.contexts
    ]


def _summarise_context(study: Study, context: str, best: list[dict[Hashable, Any]]) -> str:
    cells = study.cells[study.cells["context"] == context]
    trials = cells.drop_duplicates(["sweep", "trial_id"])
    if not best:
        return (
            f"None of {len(trials)} trials has finished with a loss, so no arms are compared at "
            f"the final rung ({describe_statuses(trials)})."
        )
    rung = compared_rung(study, context, "final")
    when = f"After {format_count(rung)} forward passes" if rung else "Without training"
    lowest = min(best, key=lambda row: row["dev_loss"])
    baseline = study.baselines[0] if study.baselines else None
    base = next((row for row in best if row["arm"] == baseline), None)
    absent = [
        a for a in study.arms if a not in {r["arm"] for r in best} and (cells["arm"] == a).any()
    ]
    without = f" No trial of {', '.join(absent)} got there." if absent else ""
    if not (cells["arm"] == baseline).any():
        compared = "the baseline is not among these arms"
    elif base is None:
        compared = f"the baseline{f' {baseline}' if baseline else ''} has no finished trial"
    elif lowest is base:
        rest = "no other arm is below it" if len(best) > 1 else "no other arm has finished"
        compared = f"it is the baseline, and {rest}"
    else:
        below = format_loss(base["dev_loss"] - lowest["dev_loss"])
        compared = f"{below} below the best of the baseline {base['arm']} ({_changes(base, study)})"
    return (
        f"{when} the lowest dev loss is {format_loss(lowest['dev_loss'])}, by "
        f"{lowest['arm']} ({_changes(lowest, study)}): {compared}.{without}"
    )


def _changes(row: Best, study: Study) -> str:
    """−0.0338 and +8.0 points of accuracy over its own step 0."""
    score = ""
    if not is_missing(row["score_change"]):
        score = f" and {format_points(row['score_change'])} points of {study.score_name}"
    return f"{format_change(row['dev_loss_change'])}{score} over its own step 0"


def list_cautions(study: Study) -> list[str]:
    """What keeps these numbers from deciding anything."""
    cautions = []
    if study.seeds_per_cell == 1:
        cautions.append(
            "Every cell was run with one seed. One seed decides nothing: a screen ranks, it does "
            "not decide. A confirmation needs fresh seeds, five or more for each arm."
        )
    else:
        cautions.append(
            f"Cells have up to {study.seeds_per_cell} seeds; numbers are means over them, ± is the "
            "standard deviation over seeds. Intervals and tests are in the comparison of "
            "confirmed arms alone."
        )
    cautions.append(
        "An arm's best cell was chosen on the same dev examples that it is shown for, which "
        "flatters every arm, and most the arm with the most cells."
    )
    statuses = study.cells.drop_duplicates(["sweep", "trial_id"])["status"]
    if (statuses == "stopped").any():
        cautions.append(
            f"The scheduler stopped {int((statuses == 'stopped').sum())} of {len(statuses)} trials "
            "early; the final rung compares survivors, the first rung compares all."
        )
    pending = int(statuses.isin(RUN_STATUSES).sum())
    if pending:
        cautions.append(f"The sweep is not complete: {pending} of {len(statuses)} trials are open.")
    return cautions


def describe_statuses(trials: pd.DataFrame) -> str:
    """3 finished, 9 stopped."""
    counts = trials["status"].value_counts()
    known = [status for status in STATUS_ORDER if status in counts.index]
    other = sorted(set(counts.index) - set(known))
    return ", ".join(f"{counts[status]} {status}" for status in [*known, *other])


@dataclasses.dataclass(frozen=True)
class Costs:
    """What one sweep was planned to take and took, as label and text, and how to run it again.

    Attributes:
        name: The sweep.
        rows: (what, planned, used).
        facts: (what, text).
        command: The command that ran it.
    """

    name: str
    rows: list[tuple[str, str, str]]
    facts: list[tuple[str, str]]
    command: str


def list_costs(study: Study) -> list[Costs]:
    """The plan and the bill of every sweep."""
    last = study.trials.merge(study.last_rows, on=["sweep", "trial_id"], how="left")
    last = last[last["planned"].astype(bool)]
    return [
        _cost_of(sweep.plan, label, last[last["sweep"] == label])
        for label, sweep in zip(sweep_labels(study.sweeps), study.sweeps, strict=True)
    ]


def _cost_of(plan: Mapping[str, Any], name: str, last: pd.DataFrame) -> Costs:
    cost = plan.get("cost") or {}
    hours = cost.get("device_hours")
    spent = float((last["device_time_s"].fillna(0) + last["eval_time_s"].fillna(0)).sum())
    passes = float(last["forward_passes"].sum())
    rows = [
        ("Trials", format_count(cost.get("trials", len(last))), describe_statuses(last)),
        ("Forward passes", format_count(cost.get("forward_passes")), format_count(passes)),
        (
            "Device time, evaluation included",
            format_duration(None if hours is None else 3600 * float(hours)),
            format_duration(spent),
        ),
        (
            "Peak memory of a trial, GiB",
            format_gib(cost.get("memory_gib_per_trial")),
            format_gib(float(last["peak_memory_gib"].max())),
        ),
    ]
    return Costs(name, rows, _facts(plan, last), str(plan.get("command") or ""))


def _facts(plan: Mapping[str, Any], last: pd.DataFrame) -> list[tuple[str, str]]:
    cost, choices = plan.get("cost") or {}, plan.get("choices") or {}
    effect = cost.get("smallest_detectable_effect")
    versions = plan.get("versions") or {}
    found = [
        ("Scheduler's savings", _savings(last)),
        ("Seeds", ", ".join(format_count(seed) for seed in sorted(last["seed"].dropna().unique()))),
        ("Plan seed", str(plan.get("plan_seed", ""))),
        (
            "Rungs, forward passes",
            ", ".join(format_count(rung) for rung in plan.get("rungs") or []),
        ),
        ("Smallest detectable effect", "" if effect is None else f"{effect} points"),
        ("", str(cost.get("smallest_detectable_effect_note") or "")),
        ("Planned on", " · ".join(str(cost[k]) for k in ("device", "assumption") if cost.get(k))),
        ("Choices", " · ".join(f"{key} {value}" for key, value in choices.items())),
        ("Versions", " · ".join(f"{key} {value}" for key, value in versions.items())),
        ("Commit", str(plan.get("commit") or "unknown")),
        ("Method version", str(plan.get("method_version", ""))),
        ("Created", str(plan.get("created") or "")),
        ("Machine", str(plan.get("machine") or "")),
    ]
    return [(label, text) for label, text in found if text]


def _savings(last: pd.DataFrame) -> str:
    """Forward passes that the stopped trials did not need."""
    stopped = last[last["status"] == "stopped"]
    if stopped.empty:
        return "no trial was stopped"
    budgets = sum(max(rungs) for rungs in last["rungs"] if rungs)
    saved = sum(max(rungs) for rungs in stopped["rungs"] if rungs) - stopped["forward_passes"].sum()
    share = f", {100 * saved / budgets:.0f} % of the full grid" if budgets else ""
    return f"{format_count(saved)} forward passes{share}, by stopping {len(stopped)} trials early"
