"""Where each arm stands: the score and the device time of its chosen cell, with intervals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import NO_TUNING, Study
from analysis.scores import choose_scores
from analysis.speed import set_target
from analysis.statistics import stratified, wilson_interval

GROUP = ["sweep", "phase", "model", "tuning"]
"""Arms are set beside each other within these; tasks count alike."""

TRIAL = ["setting", "trial_id"]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval; NaN where there is none.

    Attributes:
        mean: Over seeds, and over tasks alike.
        low: Lower end.
        high: Upper end.
        basis: What the interval is over: "seeds", "examples" (of a single seed), or "none".
    """

    mean: float
    low: float = math.nan
    high: float = math.nan
    basis: str = "none"


@dataclasses.dataclass(frozen=True)
class Standing:
    """An arm and the cell that dev loss chose for it, on every task.

    Attributes:
        arm: Its name.
        is_baseline: Whether the others are compared with it.
        is_kernel: Whether it is a zeroth-order method, one that has a kernel.
        trains: Whether it moves any parameter.
        settings: The chosen cell of each task, as `Study.cells` numbers them.
        tasks: On how many tasks it has a result.
        seeds: The fewest finished seeds of its cells.
        split: "test" where every score is one, else "dev".
        dev_loss: Mean over tasks of the mean at the checkpoint that dev chose.
        start_loss: The same at step 0, before training; NaN where it is not known.
        last_loss: The same at the last evaluation of each run; NaN where one is missing.
        passes: Forward passes at those checkpoints, the mean over runs.
        budget: Forward passes at the last evaluations, the mean over runs.
        score: Between 0 and 1, at those checkpoints.
        seconds: Device seconds of a whole run, evaluation excluded.
        target_seconds: Device seconds to the dev loss that every run of the baseline reaches; NaN
            where not every run reached it, and where some run was there before training.
        memory_gib: Peak memory of its runs, the highest.
        reached: How many of its runs reached that loss.
        runs: Of how many.
    """

    arm: str
    is_baseline: bool
    is_kernel: bool
    trains: bool
    settings: tuple[int, ...]
    tasks: int
    seeds: int
    split: str
    dev_loss: float
    start_loss: float
    last_loss: float
    passes: float
    budget: float
    score: Estimate
    seconds: Estimate
    target_seconds: Estimate
    memory_gib: float
    reached: int
    runs: int


@dataclasses.dataclass(frozen=True)
class Group:
    """Arms that may be set beside each other.

    Attributes:
        sweep: Its label.
        phase: "screen" or "confirm".
        model: Its name.
        tuning: Which parameters move.
        standings: One for each arm with a finished trial, in the order of the study.
    """

    sweep: str
    phase: str
    model: str
    tuning: str
    standings: tuple[Standing, ...]

    @property
    def baseline(self) -> Standing | None:
        """The arm that the others are compared with, where it has a result."""
        return next((s for s in self.standings if s.is_baseline), None)

    @property
    def has_target(self) -> bool:
        """Whether there is a dev loss that all of the baseline's runs reached by training."""
        return self.baseline is not None and self.baseline.reached == self.baseline.runs

    @property
    def is_tested(self) -> bool:
        """Whether every score is one of the test split."""
        return all(s.split == "test" for s in self.standings)


def list_standings(study: Study) -> list[Group]:
    """The groups of a study, confirmed ones first; those without a finished trial are missing."""
    chosen = choose_scores(study)
    if chosen.empty:
        return []
    runs = _stand_beside(_runs_of(study, chosen))
    groups = []
    for key, mine in runs.groupby(GROUP, sort=False, dropna=False):
        arms = [arm for arm in study.arms if (mine["arm"] == arm).any()]
        standings = tuple(_stand(mine[mine["arm"] == arm], study) for arm in arms)
        sweep, phase, model, tuning = ("" if pd.isna(name) else str(name) for name in key)
        groups.append(Group(sweep, phase, model, tuning, standings))
    return sorted(groups, key=lambda group: group.phase != "confirm")


def _stand_beside(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, with those that tune nothing beside every tuning of their sweep and model."""
    still = runs[runs["tuning"] == NO_TUNING]
    tuned = runs[runs["tuning"] != NO_TUNING]
    if still.empty or tuned.empty:
        return runs
    places = tuned[GROUP].drop_duplicates()
    beside = still.drop(columns="tuning").merge(places, on=[n for n in GROUP if n != "tuning"])
    return pd.concat([tuned, beside], ignore_index=True)


def _runs_of(study: Study, chosen: pd.DataFrame) -> pd.DataFrame:
    """One row for each finished trial of the chosen cells: what it reached, and when."""
    rows = study.evaluations
    rows = rows[rows["setting"].isin(chosen["setting"]) & (rows["status"] == "finished")]
    rows = rows.sort_values("step", kind="stable")
    trains = rows.groupby(TRIAL)["step"].transform("max") > 0
    judged = rows[rows["dev_loss"].notna() & ((rows["step"] > 0) | ~trains)]
    ends = rows.groupby(TRIAL, sort=False).tail(1).set_index(TRIAL)
    best = judged.sort_values(["dev_loss", "step"], kind="stable").groupby(TRIAL).first()
    runs = ends.assign(
        dev_score=best["score"], last_loss=ends["dev_loss"], passes=best["forward_passes"]
    )
    runs["dev_loss"] = best["dev_loss"]
    runs = runs[runs["dev_loss"].notna()].reset_index()
    split = dict(zip(chosen["setting"], chosen["split"], strict=True))
    runs["split"] = runs["setting"].map(split)
    runs["value"] = runs["test_score"].where(runs["split"] == "test", runs["dev_score"])
    runs["target"] = math.nan
    for _, mine in runs.groupby([*GROUP, "task"], sort=False, dropna=False):
        lowest = mine.loc[mine["arm"].isin(study.baselines[:1]), "dev_loss"]
        starts = mine.loc[mine["trains"].astype(bool), "dev_loss_start"]
        runs.loc[mine.index, "target"] = set_target(lowest, starts)
    there = judged.merge(runs[[*TRIAL, "target"]], on=TRIAL)
    there = there[(there["dev_loss"] <= there["target"]) & (there["step"] > 0)]
    first = there.groupby(TRIAL)["device_time_s"].first().rename("target_seconds")
    return runs.merge(first.reset_index(), on=TRIAL, how="left")


def _stand(runs: pd.DataFrame, study: Study) -> Standing:
    by_task = [mine for _, mine in runs.groupby("task", sort=False)]
    reached = runs["target_seconds"].notna()
    all_reached = bool(reached.all())
    kernels = study.cells["kernel"]
    return Standing(
        arm=str(runs["arm"].iloc[0]),
        is_baseline=runs["arm"].iloc[0] in study.baselines[:1],
        is_kernel=bool(
            runs["kernel"].notna().any() or (kernels.isna().all() and runs["trains"].any())
        ),
        trains=bool(runs["trains"].any()),
        settings=tuple(dict.fromkeys(int(setting) for setting in runs["setting"])),
        tasks=len(by_task),
        seeds=min(len(mine) for mine in by_task),
        split="test" if (runs["split"] == "test").all() else "dev",
        dev_loss=float(np.mean([mine["dev_loss"].mean() for mine in by_task])),
        start_loss=float(np.mean([mine["dev_loss_start"].mean() for mine in by_task])),
        last_loss=float(np.mean([mine["last_loss"].mean(skipna=False) for mine in by_task])),
        passes=float(runs["passes"].mean()),
        budget=float(runs["forward_passes"].mean()),
        score=_estimate_score(by_task),
        seconds=_estimate_time(by_task, "device_time_s"),
        target_seconds=_estimate_time(by_task, "target_seconds")
        if all_reached
        else Estimate(math.nan),
        memory_gib=float(runs["peak_memory_gib"].max()),
        reached=int(reached.sum()),
        runs=len(runs),
    )


def _estimate(by_task: list[pd.DataFrame], column: str) -> Estimate:
    groups = [mine[column].dropna().to_numpy(float) for mine in by_task]
    if not all(len(group) for group in groups):
        return Estimate(math.nan)
    found = stratified([*groups])
    low, high = float(found.low), float(found.high)
    return Estimate(float(found.mean), low, high, "none" if math.isnan(low) else "seeds")


def _estimate_time(by_task: list[pd.DataFrame], column: str) -> Estimate:
    """Seconds over seeds; no interval reaches below zero."""
    found = _estimate(by_task, column)
    return dataclasses.replace(found, low=max(found.low, 0.0)) if found.low < 0 else found


def _estimate_score(by_task: list[pd.DataFrame]) -> Estimate:
    """Over seeds; of one seed on one task, over the examples that were judged."""
    found = _estimate(by_task, "value")
    if found.basis == "seeds":
        return dataclasses.replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))
    if len(by_task) > 1 or len(by_task[0]) > 1 or math.isnan(found.mean):
        return found
    run = by_task[0].iloc[0]
    total = _count_examples(run["config"], run["split"])
    if total is None:
        return found
    interval = wilson_interval(round(found.mean * total), total)
    return Estimate(found.mean, interval.low, interval.high, "examples")


def _count_examples(config: Any, split: str) -> int | None:
    task = config.get("task") if isinstance(config, dict) else None
    number = task.get(f"num_{split}") if isinstance(task, dict) else None
    return number if isinstance(number, int) and number > 0 else None
