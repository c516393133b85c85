"""What is compared with what: cells at a rung, the best of each arm, rungs and who reached them.

Trials that stopped early are never set beside trials that went on, except where a table names
each one's rung. Diverged evaluations have no loss and enter no mean; they are counted beside it.
"""

from __future__ import annotations

from typing import Literal

import pandas as pd

from analysis.load import Study
from analysis.memory import once_per_study

Which = Literal["first", "final"]

MEANS = (
    "forward_passes",
    "device_time_s",
    "dev_loss",
    "dev_loss_start",
    "dev_loss_change",
    "score",
    "score_start",
    "score_change",
    "dev_auc",
    "dev_auc_start",
    "dev_auc_change",
)
CELL = [
    "context",
    "arm",
    "perturbation_scale",
    "learning_rate",
    "extra",
    "shared_with",
]
STATUS_ORDER = ("finished", "running", "stopped", "interrupted", "diverged", "failed", "planned")


def compared_rung(study: Study, context: str, which: Which) -> int | None:
    """The first or the final rung of a context; None where it has no rungs."""
    rungs = study.rungs(context)
    if not rungs:
        return None
    return rungs[0] if which == "first" else rungs[-1]


def evaluations_at(study: Study, which: Which) -> pd.DataFrame:
    """The evaluations with a loss at the first or final rung; at the final, of finished trials.

    What trains nothing has one evaluation, at no cost, which counts at either.
    """
    frame = study.evaluations
    rungs = frame["context"].map({c: compared_rung(study, c, which) for c in study.contexts})
    at_rung = (frame["rung"] == rungs) & (frame["step"] > 0)
    chosen = frame[(at_rung | ~frame["trains"].astype(bool)) & frame["dev_loss"].notna()]
    return chosen[chosen["status"] == "finished"] if which == "final" else chosen


def average_seeds(evaluations: pd.DataFrame) -> pd.DataFrame:
    """One row per setting and rung: mean and, from two seeds on, sd (`NAME_sd`) over its seeds.

    Args:
        evaluations: At most one evaluation of each trial.

    Returns:
        A frame with CELL, `setting`, `rung`, `seeds` and MEANS, in the order of the plan.
    """
    groups = evaluations.groupby(["setting", "rung"], sort=True)
    means = groups[list(MEANS)].mean()
    spreads = groups[list(MEANS)].std().add_suffix("_sd")
    facts = groups[CELL].first(skipna=False) if len(evaluations) else groups[CELL].first()
    return pd.concat([facts, groups.size().rename("seeds"), means, spreads], axis=1).reset_index()


def best_cells(study: Study, which: Which) -> pd.DataFrame:
    """The cell with the lowest mean dev loss of each context and arm.

    Within an arm only the cells with the most seeds at that rung compete. Ties go to the cell
    that comes first in the plan.

    Returns:
        Rows as `average_seeds`, with `cells` (how many competed), `planned_cells`, and the
        differences to the best cell of the baseline, `loss_difference` and `score_difference`.
    """
    averages = average_seeds(evaluations_at(study, which))
    planned = study.cells.groupby(["context", "arm"])["setting"].nunique()
    chosen = []
    for context in study.contexts:
        for arm in study.arms:
            mine = averages[(averages["context"] == context) & (averages["arm"] == arm)]
            if mine.empty:
                continue
            rivals = mine[mine["seeds"] == mine["seeds"].max()]
            best = rivals.loc[rivals["dev_loss"].idxmin()]
            chosen.append(
                {**best.to_dict(), "cells": len(mine), "planned_cells": planned[context, arm]}
            )
    columns = [*averages.columns, "cells", "planned_cells"]
    return _subtract_baseline(study, pd.DataFrame(chosen, columns=columns))


def _subtract_baseline(study: Study, best: pd.DataFrame) -> pd.DataFrame:
    base = best[best["arm"].isin(study.baselines[:1])].set_index("context")
    for column, name in (("dev_loss", "loss_difference"), ("score", "score_difference")):
        best[name] = best[column] - best["context"].map(base[column]).astype(float)
        best.loc[best["arm"].isin(study.baselines[:1]), name] = float("nan")
    return best


@once_per_study
def last_of_settings(study: Study) -> pd.DataFrame:
    """Every setting of the plans at the last rung that one of its seeds reached with a loss.

    Returns:
        One row per setting, in the order of the plan: as `average_seeds`, with `status`,
        `planned_seeds`, and the outcomes at step 0. A setting that has no loss beyond step 0 has
        no outcomes, and the budget that was spent on it.
    """
    frame = study.evaluations
    reached = frame[frame["dev_loss"].notna()]
    reached = reached[reached["rung"] == reached.groupby("setting")["rung"].transform("max")]
    averages = average_seeds(reached).drop(columns=CELL)
    trains = study.cells.groupby("setting")["trains"].any()
    at_start = (averages["rung"] == 0) & averages["setting"].map(trains).astype(bool)
    spent = frame.groupby(["setting", "trial_id"]).last().groupby("setting").mean(numeric_only=True)
    for name in ("forward_passes", "device_time_s"):
        averages.loc[at_start, name] = averages["setting"].map(spent[name])
    outcomes = ("dev_loss", "dev_loss_change", "score", "score_change", "dev_auc", "dev_auc_change")
    averages.loc[at_start, [f"{n}{s}" for n in outcomes for s in ("", "_sd")]] = float("nan")
    cells = study.cells.groupby("setting", sort=True)
    facts = cells[CELL].first(skipna=False)
    facts["status"] = cells["status"].agg(_describe_statuses)
    facts["planned_seeds"] = cells["trial_id"].nunique()
    facts["trial_ids"] = cells["trial_id"].agg(lambda ids: " ".join(dict.fromkeys(ids)))
    return facts.reset_index().merge(averages, on="setting", how="left")


def _describe_statuses(statuses: pd.Series) -> str:
    """The one status of all seeds, or counts such as "3 finished, 2 stopped"."""
    counts = statuses.value_counts()
    if len(counts) == 1:
        return str(counts.index[0])
    known = sorted(counts.index, key=STATUS_ORDER.index)
    return ", ".join(f"{counts[status]} {status}" for status in known)


def rung_counts(study: Study) -> pd.DataFrame:
    """For each context, rung and arm: how many trials arrived and stopped; best and median loss.

    Returns:
        Columns `context, rung, arm, trials, arrived, stopped, diverged, best, median, sample`;
        `sample` is "among survivors" once the scheduler stopped a trial of the context at a lower
        rung; before that "all", or "arrived so far" while trials are still to come.
    """
    frame = study.evaluations[study.evaluations["step"] > 0]
    records = []
    for context in study.contexts:
        here = frame[frame["context"] == context]
        cells = study.cells[study.cells["context"] == context]
        stopped_at = _stopping_rungs(cells, here)
        reached, lost = here[here["dev_loss"].notna()], here[here["diverged"]]
        trained = {arm: mine for arm, mine in cells.groupby("arm") if mine["trains"].any()}
        of_arms = {arm: list(trained[arm]["trial_id"]) for arm in study.arms if arm in trained}
        for rung in study.rungs(context):
            sample = _describe_sample(rung, stopped_at, cells, here)
            arrived = reached[reached["rung"] == rung].groupby("arm")["dev_loss"]
            best, median, count = arrived.min(), arrived.median(), arrived.count()
            records += [
                {
                    "context": context,
                    "rung": rung,
                    "arm": arm,
                    "trials": len(of_arms[arm]),
                    "arrived": int(count.get(arm, 0)),
                    "stopped": sum(stopped_at.get(trial) == rung for trial in set(of_arms[arm])),
                    "diverged": int((lost.loc[lost["arm"] == arm, "rung"] <= rung).sum()),
                    "best": best.get(arm, float("nan")),
                    "median": median.get(arm, float("nan")),
                    "sample": sample,
                }
                for arm in of_arms
            ]
    return pd.DataFrame(records)


def _describe_sample(
    rung: int, stopped_at: dict[str, float], cells: pd.DataFrame, evaluations: pd.DataFrame
) -> str:
    if any(at < rung for at in stopped_at.values()):
        return "among survivors"
    pending = set(
        cells.loc[cells["status"].isin(["planned", "running", "interrupted"]), "trial_id"]
    )
    arrived = set(evaluations.loc[evaluations["rung"] >= rung, "trial_id"])
    return "arrived so far" if pending - arrived else "all"


def _stopping_rungs(cells: pd.DataFrame, evaluations: pd.DataFrame) -> dict[str, float]:
    """Trial id → the rung at which the scheduler stopped it."""
    stopped = set(cells.loc[cells["status"] == "stopped", "trial_id"])
    reached = evaluations[evaluations["trial_id"].isin(stopped)].groupby("trial_id")["rung"].max()
    return {str(trial): float(rung) for trial, rung in reached.items()}
