"""Each arm against the baseline, over the fresh seeds of the phase "confirm".

Two questions, never mixed: best-tuned, each arm's own confirmed cell against the baseline's ("own
cells"; where several were confirmed, the one that dev chose, compared in what dev did not see),
and both at one learning rate, ε and other factors ("equal hyperparameters"). Seeds are paired
within a task and tasks count alike. A pair with a member that diverged is left out and counted:
every figure is given that both converged, and stands beside how often they did not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import differences, sensitivity, speed
from analysis.formats import format_count, format_number, format_score, format_text
from analysis.load import Study
from analysis.margins import Margins, margins_of
from analysis.memory import once_per_study
from analysis.registry import Column, Table, table
from analysis.speed import lowest_losses, set_target
from analysis.statistics import (
    adjust_holm,
    equivalence,
    seeds_needed,
    sign_flip_p,
    stratified,
    wilson_interval,
)
from analysis.statistics.paired import PairedMean

REGISTERED = (differences, sensitivity, speed)
"""Modules whose import registers their exhibits."""

OWN, TUNED, EQUAL = "own cells", "best cells by dev", "equal hyperparameters"
GROUP = ["model", "tuning"]
SETTING = ["perturbation_scale", "learning_rate", "extra"]
PAIR = ["task", "data_seed", "seed"]
FLATTERED = ("score", "dev_loss", "dev_auc")
"""What cells that were chosen on dev must not be compared in."""
Judgement = Literal["identical", "better", "worse", "equivalent", "undecided"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What arms are compared in.

    Attributes:
        name: The frame's column.
        label: In words.
        margin: Differences within ±margin are as good as none; of logarithms for a ratio.
        higher_is_better: Otherwise lower.
        is_ratio: Whether the logarithm is compared, and a ratio shown.
    """

    name: str
    label: str
    margin: float
    higher_is_better: bool = False
    is_ratio: bool = False


def list_outcomes(margins: Margins) -> tuple[Outcome, ...]:
    """What arms are compared in, with the configured margins."""
    cost = math.log(1 + margins.cost)
    return (
        Outcome("test_score", "test score", margins.score, True),
        Outcome("test_loss", "test loss", margins.loss),
        Outcome("test_auc", "test AUC", margins.auc, True),
        Outcome("score", "dev score", margins.score, True),
        Outcome("dev_loss", "dev loss", margins.loss),
        Outcome("dev_auc", "dev AUC", margins.auc, True),
        Outcome("passes_to_target", "forward passes to target", cost, is_ratio=True),
        Outcome("seconds_to_target", "device seconds to target", cost, is_ratio=True),
        Outcome("device_hours", "device hours", cost, is_ratio=True),
        Outcome("peak_memory_gib", "peak memory", cost, is_ratio=True),
    )


@once_per_study
def compare_arms(study: Study, level: float = 0.95) -> pd.DataFrame:
    """Every arm's paired difference from the baseline, for each question and outcome.

    Args:
        study: Only its trials of the phase "confirm" count.
        level: Of the intervals; tests are at 1 − level.

    Returns:
        One row per model, tuning, question, outcome and arm, with `difference, low, high, p`
        (Student's, over tasks), `p_holm` (over the arms), `p_sign_flip`, `p_equivalence`,
        `pairs, broken_pairs, tasks, more_seeds, judgement, verdict`. A ratio's difference and
        interval are ratios. Empty without a baseline or a confirmed trial.
    """
    ends = confirmed(study)
    if ends.empty or not study.baselines:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    outcomes = list_outcomes(margins_of(study))
    for group, here in ends.groupby(GROUP, sort=False):
        for question, members in _questions(here, study):
            for outcome in outcomes:
                if question == TUNED and outcome.name in FLATTERED:
                    continue
                found = [
                    _compare(mine, base, outcome, level) | {"arm": arm}
                    for arm, mine, base in members
                ]
                found = [row for row in found if row["pairs"] or row["broken_pairs"]]
                for row, p in zip(found, adjust_holm([r["p"] for r in found]), strict=True):
                    row |= {"p_holm": float(p), "question": question}
                    row |= dict(zip(GROUP, group, strict=True))
                    row["judgement"] = judge(row, outcome, 1 - level)
                    row["verdict"] = _describe(row, outcome, 1 - level)
                rows += found
    return pd.DataFrame(rows)


@once_per_study
def confirmed(study: Study) -> pd.DataFrame:
    """The confirmed cells that have ended, each with its last row and its time to the target.

    The target of a task is the highest, over the baseline's converged trials, of each one's lowest
    dev loss, so that all of them reach it; none where `set_target` has none.
    """
    cells = study.cells[study.cells["phase"] == "confirm"]
    ended = cells[cells["status"].isin(["finished", "diverged"])]
    ends = ended.merge(study.last_rows, on=["sweep", "trial_id"], how="left")
    ends["device_hours"] = (ends["device_time_s"] + ends["eval_time_s"]) / 3600
    ends["lost"] = ends["diverged"].eq(True) | (ends["status"] == "diverged")
    ends["data_seed"] = [((c or {}).get("task") or {}).get("data_seed") for c in ends["config"]]
    ends["data_seed"] = ends["data_seed"].fillna(-1)
    is_base = ends["arm"].isin(study.baselines[:1]) & ~ends["lost"]
    keys = [*GROUP, "task"]
    base = ends[is_base].merge(lowest_losses(study), on=["sweep", "trial_id"])
    starts = ends.groupby(keys)["dev_loss_start"]
    targets = {
        key: set_target(mine["lowest_loss"], starts.get_group(key))
        for key, mine in base.groupby(keys)
    }
    ends["target"] = [targets.get(key, math.nan) for key in ends[keys].itertuples(False, None)]
    rows = study.evaluations[["sweep", "trial_id", "step", "forward_passes", "device_time_s"]]
    rows = rows.assign(loss=study.evaluations["dev_loss"]).drop_duplicates(
        ["sweep", "trial_id", "step"]
    )
    rows = rows.merge(ends[["sweep", "trial_id", "target"]].drop_duplicates(), how="inner")
    there = rows[(rows["loss"] <= rows["target"]) & (rows["step"] > 0)].sort_values("step")
    first = there.groupby(["sweep", "trial_id"])[["forward_passes", "device_time_s"]].first()
    first.columns = pd.Index(["passes_to_target", "seconds_to_target"])
    return ends.merge(first.reset_index(), on=["sweep", "trial_id"], how="left")


Members = list[tuple[str, pd.DataFrame, pd.DataFrame]]


def _questions(ends: pd.DataFrame, study: Study) -> Iterator[tuple[str, Members]]:
    """(question, [(arm, its trials, the baseline's trials)])."""
    baseline = study.baselines[0]
    arms = {arm: ends[ends["arm"] == arm] for arm in study.arms if (ends["arm"] == arm).any()}
    base = arms.pop(baseline, None)
    if base is None:
        return
    single = {arm: mine for arm, mine in arms.items() if _has_one_cell(mine)}
    if _has_one_cell(base) and single:
        yield OWN, [(arm, mine, base) for arm, mine in single.items()]
    if arms and not (_has_one_cell(base) and len(single) == len(arms)):
        chosen = _choose_by_dev(base)
        yield TUNED, [(arm, _choose_by_dev(mine), chosen) for arm, mine in arms.items()]
    for key, theirs in base.groupby(SETTING, sort=False, dropna=False):
        label = f"{EQUAL} (lr {key[1]:g}, ε {key[0]:g}{', ' + key[2] if key[2] else ''})"
        same = [(arm, _at(mine, key), theirs) for arm, mine in arms.items()]
        if members := [member for member in same if len(member[1])]:
            yield label, members


def _choose_by_dev(trials: pd.DataFrame) -> pd.DataFrame:
    """Of each task the cell of lowest mean final dev loss, among those with fewest divergences."""
    kept = []
    for _, mine in trials.groupby("task", sort=False):
        cells = mine.groupby("setting", sort=True)
        lost, losses = cells["lost"].sum(), cells["dev_loss"].mean()
        best = losses[lost == lost.min()].fillna(math.inf).idxmin()
        kept.append(mine[mine["setting"] == best])
    return pd.concat(kept)


def _has_one_cell(trials: pd.DataFrame) -> bool:
    return bool((trials.groupby("task")["setting"].nunique() == 1).all())


def _at(trials: pd.DataFrame, key: tuple[Any, ...]) -> pd.DataFrame:
    same = pd.Series(True, index=trials.index)
    for name, value in zip(SETTING, key, strict=True):
        same &= trials[name].isna() if pd.isna(value) else trials[name] == value
    return trials[same]


def _compare(
    mine: pd.DataFrame, base: pd.DataFrame, outcome: Outcome, level: float
) -> dict[str, Any]:
    columns = [*PAIR, "lost", outcome.name]
    pairs = mine[columns].merge(base[columns], on=PAIR, suffixes=("", "_base"))
    broken = pairs["lost"] | pairs["lost_base"]
    values = pairs.loc[~broken, ["task", outcome.name, f"{outcome.name}_base"]].dropna()
    ours, theirs = (values[name].to_numpy(float) for name in values.columns[1:])
    values["d"] = np.log(ours / theirs) if outcome.is_ratio else ours - theirs
    groups = [np.asarray(d, dtype=float) for _, d in values.groupby("task")["d"]]
    found = stratified([*groups], level) if groups else _nothing()
    shown = np.exp if outcome.is_ratio else np.asarray
    is_same = len(values) > 0 and bool((values["d"] == 0).all())
    return {
        "outcome": outcome.label,
        "difference": float(shown(found.mean)),
        "low": float(shown(found.low)),
        "high": float(shown(found.high)),
        "sd": float(found.sd),
        "p": float(found.p),
        "p_sign_flip": float(sign_flip_p(values["d"].to_numpy(float))),
        "p_equivalence": float(equivalence(found, outcome.margin, 1 - level).p),
        "pairs": len(values),
        "broken_pairs": int(broken.sum()),
        "unmeasured_pairs": len(pairs) - int(broken.sum()) - len(values),
        "tasks": len(groups),
        "effect": float(found.mean),
        "is_same": is_same,
        "more_seeds": _more_seeds(found, groups, outcome.margin, 1 - level),
    }


def _nothing() -> PairedMean:
    return PairedMean(*(np.array(np.nan) for _ in range(7)))


def _more_seeds(found: PairedMean, groups: list[Any], margin: float, alpha: float) -> float:
    """Further seeds of each task that would probably decide; NaN where nothing can be said."""
    if not found.sd > 0:
        return math.nan
    seeds = min(len(group) for group in groups)
    sd = float(found.error) * math.sqrt(seeds)  # of the mean over tasks of one seed
    needed = seeds_needed(float(found.mean), sd, margin, alpha=alpha)
    return math.inf if needed is None else float(max(1, needed - seeds))


def judge(row: dict[str, Any], outcome: Outcome, alpha: float) -> Judgement:
    """The verdict in one word: Holm's p decides a difference, two one-sided tests equivalence."""
    if row["is_same"]:
        return "identical"
    if row["p_holm"] <= alpha:
        return "better" if (row["effect"] > 0) == outcome.higher_is_better else "worse"
    return "equivalent" if row["p_equivalence"] <= alpha else "undecided"


def _describe(row: dict[str, Any], outcome: Outcome, alpha: float) -> str:
    """The verdict in words."""
    margin = math.exp(outcome.margin) - 1 if outcome.is_ratio else outcome.margin
    within = f"within ±{100 * margin:.3g} %" if outcome.is_ratio else f"within ±{margin:.3g}"
    word = row["judgement"]
    if word == "identical":
        return "identical in every pair"
    if word in ("better", "worse"):
        return f"{word}, but {within}" if row["p_equivalence"] <= alpha else str(word)
    if word == "equivalent":
        return f"equivalent {within}"
    if math.isnan(row["more_seeds"]):
        return "undecided: too few pairs that vary"
    if math.isinf(row["more_seeds"]):
        return "undecided: more than 10,000 seeds would be needed"
    return f"undecided: about {row['more_seeds']:,.0f} more seeds would probably decide"


@table("best")
def confirmed_comparison(study: Study) -> Table | None:
    """Each arm against the baseline, confirmed on fresh seeds."""
    frame = compare_arms(study)
    if frame.empty:
        return None
    estimates, tests = (
        [Column(name, label, format_number, numeric=True) for name, label in shown]
        for shown in (
            (("difference", "Difference or ratio"), ("low", "95 % from"), ("high", "to")),
            (
                ("p", "p"),
                ("p_holm", "p, Holm"),
                ("p_sign_flip", "p, sign flips"),
                ("p_equivalence", "p, equivalence"),
            ),
        )
    )
    counted = [
        Column(name, label, format_count, numeric=True)
        for name, label in (
            ("pairs", "Pairs"),
            ("broken_pairs", "Pairs with a divergence"),
            ("unmeasured_pairs", "Pairs without a value"),
            ("tasks", "Tasks"),
        )
    ]
    named = [
        Column(name, name.capitalize())
        for name in (*GROUP, "question", "outcome", "arm")
        if name not in (*GROUP, "question") or frame[name].nunique() > 1
    ]
    verdict = Column("verdict", "Verdict")
    note = (
        f"Against {study.baselines[0]}; pairs share their seed, and tasks count alike. Costs are "
        "ratios, scores and losses differences. Intervals and p are Student's, given that both "
        "of a pair converged; Holm's p is over the arms of one outcome and decides the verdict. "
        "Five pairs cannot bring the p of sign flips below .0625. The target is the dev loss "
        "that each of the baseline's converged trials reached; a pair that never reached it has no "
        "value."
    )
    return Table(frame, (*named, *estimates, verdict, *tests, *counted), note)


@table("rungs")
def divergence_rates(study: Study) -> Table | None:
    """How often each arm diverged."""
    cells = study.cells[study.cells["status"].isin(["finished", "diverged", "stopped"])]
    if cells.empty:
        return None
    rows = []
    for (phase, arm), mine in cells.groupby(["phase", "arm"], sort=False):
        trials = mine.drop_duplicates(["sweep", "trial_id"])
        count = int((trials["status"] == "diverged").sum())
        interval = wilson_interval(count, len(trials))._asdict()
        rows.append(
            {"phase": phase, "arm": arm, "diverged": count, "ended": len(trials)} | interval
        )
    columns = (
        Column("phase", "Phase", format_text),
        Column("arm", "Arm"),
        Column("diverged", "Diverged", format_count, numeric=True),
        Column("ended", "Of trials that ended", format_count, numeric=True),
        Column("rate", "Rate", format_score, numeric=True),
        Column("low", "95 % from", format_score, numeric=True),
        Column("high", "to", format_score, numeric=True),
    )
    return Table(pd.DataFrame(rows), columns, "Intervals are Wilson's.")
