"""Each arm against the baseline at every rung of a screen, with early stopping taken seriously.

At a rung below which nothing was stopped the arms are compared at the same settings, in pairs. At
later ones stand two figures side by side: the difference among the survivors, a selected sample
that says nothing about all trials, and the difference over all trials, estimated with the
controls that were exempt from stopping by lot.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import Study, sweep_labels
from analysis.memory import once_per_study
from analysis.sources import Results
from analysis.statistics import (
    adjust_holm,
    kendall,
    paired_mean,
    sign_flip_p,
    spearman,
    stratified,
    weighted_difference,
)

ALL, SURVIVORS = "all", "among survivors"
PENDING = ("planned", "running", "interrupted")
UNKNOWN = (
    *("difference", "low", "high", "p", "p_sign_flip"),
    *("weighted", "weighted_low", "weighted_high", "controls"),
)
ENOUGH_CONTROLS = 2
"""Controls among the dropped trials of an arm, from which on an estimate has an interval."""
SEEDS = ("training.seed", "task.data_seed")


@dataclasses.dataclass(frozen=True)
class Fates:
    """What early stopping said of a context's trials.

    Attributes:
        dropped_at: Trial → the rung at which the rule dropped it, whether or not it went on.
        exempt: The controls.
        is_known: Whether controls can be told from survivors; otherwise nothing can be weighted.
    """

    dropped_at: Mapping[str, float]
    exempt: frozenset[str]
    is_known: bool


@once_per_study
def effects_at_rungs(study: Study, level: float = 0.95) -> pd.DataFrame:
    """Every arm's difference of dev loss from the baseline, at every rung of every context.

    Returns:
        One row per context, rung and arm: `sample` (ALL or SURVIVORS), `difference`, `low`,
        `high`, `p`, `p_sign_flip`, `p_holm` (over the arms of a rung) and `pairs` of an
        unconditional comparison, `broken_pairs` (a member diverged), `survivors` (trials of both
        arms behind the difference among survivors), `weighted, weighted_low, weighted_high,
        controls`, `unseen` (trials that were stopped before), `pending` and `how`, the design;
        `few_controls`, arm → (its controls, its dropped trials) of the arm and the baseline where
        these are too few for an interval, and `is_weighable`, whether controls can be told at all.
        Empty without a baseline.
    """
    rows: list[dict[str, Any]] = []
    for context in study.contexts:
        cells = study.cells[(study.cells["context"] == context) & study.cells["trains"]]
        arms = [a for a in study.arms if (cells["arm"] == a).any()]
        baseline = study.baselines[0] if study.baselines else None
        if baseline not in arms:
            continue
        fates = fates_of(study, cells)
        cells = cells[["trial_id", "context", "arm", "status", "factors", "seed"]]
        cells = cells.assign(unit=units_of(cells))
        for rung in study.rungs(context):
            trials = values_at(study, cells, rung, fates)
            base = trials[trials["arm"] == baseline]
            found: list[dict[str, Any]] = [
                {"context": context, "rung": rung, "arm": arm}
                | _compare(trials[trials["arm"] == arm], base, fates, level)
                for arm in arms
                if arm != baseline
            ]
            for row, p in zip(found, adjust_holm([r["p"] for r in found]), strict=True):
                row["p_holm"] = float(p)
            rows += found
    return pd.DataFrame(rows)


def fates_of(study: Study, cells: pd.DataFrame) -> Fates:
    """What the decisions of the sweeps say of some cells' trials.

    Without decisions (as from W&B) a stopped trial was dropped at its last rung; which of the
    others went on as a control is then unknown, unless there were none.
    """
    ids = set(cells["trial_id"])
    labels = set(cells["sweep"])
    stopped = set(cells.loc[cells["status"] == "stopped", "trial_id"])
    dropped: dict[str, float] = {}
    exempt: set[str] = set()
    is_known = True
    for label, sweep in zip(sweep_labels(study.sweeps), study.sweeps, strict=True):
        if label not in labels:
            continue
        exempt |= ids & set(sweep.plan.get("control_trials") or [])
        for verdict in sweep.decisions:
            if verdict["trial_id"] in ids and not verdict["survives"]:
                dropped.setdefault(verdict["trial_id"], float(verdict["rung"]))
        is_known &= bool(sweep.decisions) or control_fraction(sweep) == 0
    reached = study.evaluations[study.evaluations["trial_id"].isin(stopped - set(dropped))]
    dropped |= {str(t): float(r) for t, r in reached.groupby("trial_id")["rung"].max().items()}
    return Fates(dropped, frozenset(exempt), is_known or not stopped)


def control_fraction(sweep: Results) -> float:
    """The probability with which the plan drew controls; 0 where it drew none."""
    scheduler = (sweep.plan.get("config") or {}).get("scheduler") or {}
    return float(scheduler.get("control_fraction") or 0.0)


def values_at(study: Study, cells: pd.DataFrame, rung: int, fates: Fates) -> pd.DataFrame:
    """Every cell and trial once, with its dev loss at a rung and why it has none.

    Columns `loss`, `seen` (it arrived, or diverged on its way), `lost` (diverged), `dropped`
    (by the rule, at a lower rung) and `pending`, beside those of the cells.
    """
    rows = study.evaluations[study.evaluations["context"] == cells["context"].iloc[0]]
    rows = rows[rows["step"] > 0]
    at = rows[(rows["rung"] == rung) & rows["dev_loss"].notna()].drop_duplicates("trial_id")
    lost_at = rows[rows["diverged"]].groupby("trial_id")["rung"].min()
    trials = cells.copy()
    trials["loss"] = trials["trial_id"].map(at.set_index("trial_id")["dev_loss"]).astype(float)
    lost_at = trials["trial_id"].map(lost_at).astype(float)
    trials["lost"] = lost_at <= rung
    trials["seen"] = trials["loss"].notna() | trials["lost"]
    dropped_at = trials["trial_id"].map(fates.dropped_at).astype(float)
    trials["dropped"] = (dropped_at < rung) & ~(lost_at <= dropped_at)
    trials["pending"] = trials["status"].isin(PENDING) & ~trials["seen"]
    return trials


def units_of(cells: pd.DataFrame) -> list[str]:
    """The setting of each cell in those factors, seeds apart, that all arms have."""
    shared = shared_keys(cells)
    return [json.dumps([(k, f[k]) for k in shared], default=str) for f in cells["factors"]]


def shared_keys(cells: pd.DataFrame) -> list[str]:
    """The swept keys, arm and seeds apart, that the cells of every arm have."""
    by_arm: dict[str, set[str]] = {}
    for arm, values in zip(cells["arm"], cells["factors"], strict=True):
        known = by_arm.setdefault(arm, set(values))
        known &= set(values)
    common = set.intersection(*by_arm.values()) if by_arm else set()
    return sorted(common - {"arm", *SEEDS})


def _compare(mine: pd.DataFrame, base: pd.DataFrame, fates: Fates, level: float) -> dict[str, Any]:
    both = pd.concat([mine, base])
    nothing = float("nan")
    row: dict[str, Any] = dict.fromkeys(UNKNOWN, nothing)
    row |= {"pairs": 0, "survivors": 0, "how": "", "pending": int(both["pending"].sum())}
    row |= {"few_controls": {}, "is_weighable": fates.is_known}
    row["unseen"] = int((both["dropped"] & ~both["seen"]).sum())
    row["sample"] = SURVIVORS if row["unseen"] else ALL
    pairs = _pair(mine, base)
    row["broken_pairs"] = int(pairs["broken"].sum())
    if row["sample"] == ALL:
        return row | _compare_all(pairs, mine, base, level)
    kept = [a.loc[~a["dropped"], "loss"].dropna() for a in (mine, base)]
    row["difference"] = kept[0].mean() - kept[1].mean()
    row["survivors"] = sum(map(len, kept))
    row["few_controls"] = _find_few_controls(both)
    if fates.is_known and not both["pending"].any():
        row |= _weight(mine, base, level)
    return row


def _pair(mine: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """Trials at one setting and seed; several of an arm there (other factors) are averaged."""
    sides = []
    for trials in (mine, base):
        groups = trials.groupby(["unit", "seed"], dropna=False)
        sides.append(pd.DataFrame({"loss": groups["loss"].mean(), "lost": groups["lost"].any()}))
    pairs = sides[0].join(sides[1].add_suffix("_base"), how="inner").reset_index()
    pairs["broken"] = pairs["lost"].astype(bool) | pairs["lost_base"].astype(bool)
    return pairs


def _compare_all(
    pairs: pd.DataFrame, mine: pd.DataFrame, base: pd.DataFrame, level: float
) -> dict[str, Any]:
    """Student's, over settings whose seeds are averaged; Welch's where no setting is shared."""
    whole = pairs[~pairs["broken"]].dropna(subset=["loss", "loss_base"])
    if len(pairs):
        d = (whole["loss"] - whole["loss_base"]).groupby(whole["unit"]).mean().to_numpy(float)
        found = paired_mean(d, level)
        return {
            "difference": float(found.mean),
            "low": float(found.low),
            "high": float(found.high),
            "p": float(found.p),
            "p_sign_flip": float(sign_flip_p(d)),
            "pairs": len(d),
            "how": "pairs",
        }
    sides = [side["loss"].dropna().to_numpy(float) for side in (mine, base)]
    if not all(map(len, sides)):
        return {"how": "two samples"}
    found = stratified([sides[0], -sides[1]], level)  # its mean is half of the difference
    return {
        "how": "two samples",
        "difference": 2 * float(found.mean),
        "low": 2 * float(found.low),
        "high": 2 * float(found.high),
        "p": float(found.p),
    }


def _find_few_controls(trials: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Arm → (controls, dropped trials), of arms whose dropped trials have too few controls."""
    seen = trials.loc[trials["dropped"]].groupby("arm", sort=False)["seen"]
    counts = {str(arm): (int(of.sum()), len(of)) for arm, of in seen}
    return {arm: count for arm, count in counts.items() if count[0] < ENOUGH_CONTROLS}


def _weight(mine: pd.DataFrame, base: pd.DataFrame, level: float) -> dict[str, Any]:
    both = pd.concat([mine, base])
    units, _ = pd.factorize(both["unit"])
    if not set(mine["unit"]) & set(base["unit"]):
        units = np.arange(len(both))
    found = weighted_difference(
        both["loss"].to_numpy(float),
        both["dropped"].to_numpy(bool),
        both["seen"].to_numpy(bool),
        np.arange(len(both)) < len(mine),
        units,
        level,
    )
    return {
        "weighted": float(found.mean),
        "weighted_low": float(found.low),
        "weighted_high": float(found.high),
        "controls": float(found.controls),
    }


def rank_correlations(study: Study, level: float = 0.95) -> pd.DataFrame:
    """How well the ranking at each rung foretells the ranking at the end.

    Returns:
        One row per context, rung before the last, and sample: "all" where nothing was stopped;
        else "finished" (survivors and controls, a selected sample) and "controls" (a random
        one). Columns `trials, spearman, spearman_low, spearman_high, kendall, …`.
    """
    rows: list[dict[str, Any]] = []
    for context in study.contexts:
        cells = study.cells[(study.cells["context"] == context) & study.cells["trains"]]
        rungs = study.rungs(context)
        if cells.empty or len(rungs) < 2:
            continue
        fates = fates_of(study, cells)
        here = study.evaluations[study.evaluations["context"] == context]
        losses = here.drop_duplicates(["trial_id", "rung"]).pivot(
            index="trial_id", columns="rung", values="dev_loss"
        )
        samples = {ALL: losses}
        if fates.dropped_at:
            controls = losses[losses.index.isin(fates.exempt)]
            samples = {"finished": losses, "controls": controls}
        for rung in rungs[:-1]:
            for sample, values in samples.items():
                if not {rung, rungs[-1]} <= set(values.columns):
                    continue
                known = values[[rung, rungs[-1]]].dropna()
                row = {"context": context, "rung": rung, "sample": sample, "trials": len(known)}
                for name, measure in (("spearman", spearman), ("kendall", kendall)):
                    found = measure(known[rung], known[rungs[-1]], level)
                    row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
                rows.append(row)
    return pd.DataFrame(rows)
