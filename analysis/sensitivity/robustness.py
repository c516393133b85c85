"""How wide each arm's good region is, where it diverges, and what dev and train hide.

Everything here is at a context's first rung, where nothing has been stopped yet, and over
settings: the seeds of one are averaged first. A setting with a diverged seed is never within δ of
anything; means are given convergence, with the divergences beside them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.formats import format_level
from analysis.load import Study
from analysis.margins import margins_of
from analysis.memory import once_per_study
from analysis.selection import compared_rung
from analysis.sensitivity.effects import SEEDS, fates_of, values_at
from analysis.statistics import interquartile_interval, paired_mean, wilson_interval

MAX_LEVELS = 10
"""Of a numeric factor; more are put into five equally full bins."""
NUM_BINS = 5


@once_per_study
def settings_at_first_rung(study: Study, context: str) -> pd.DataFrame:
    """Each setting of a context: mean loss over its converged seeds, and how many diverged.

    Columns `arm, setting, factors, loss, seeds, diverged, open`; settings without any ended trial
    at that rung have `open` true.
    """
    cells = study.cells[(study.cells["context"] == context) & study.cells["trains"]]
    rung = compared_rung(study, context, "first")
    if cells.empty or rung is None:
        return pd.DataFrame(columns=["arm", "setting", "factors", "loss", "diverged", "open"])
    trials = values_at(study, cells, rung, fates_of(study, cells))
    trials["setting"] = cells["setting"]
    groups = trials.groupby("setting", sort=True)
    frame = groups[["arm", "factors"]].first()
    frame["loss"] = groups["loss"].mean()
    frame["seeds"] = groups["loss"].count()
    frame["diverged"] = groups["lost"].sum().astype(int)
    frame["open"] = (frame["seeds"] + frame["diverged"]) == 0
    return frame.reset_index()


def robustness(study: Study, level: float = 0.95) -> pd.DataFrame:
    """For each context and arm: how much of what was searched is nearly as good as its best.

    Returns:
        Columns `context, arm, best` (the lowest mean loss of a setting), `within` and `settings`
        (how many are within δ = the loss margin of it, of all with a result), `share, low, high`
        (Wilson's interval, as if the settings were drawn at random), `near_all` (the share within
        δ of the best of all arms), `iqm, iqm_low, iqm_high` of the losses, `diverged`, `delta`.
    """
    delta = margins_of(study).loss
    rows = []
    for context in study.contexts:
        frame = settings_at_first_rung(study, context)
        frame = frame[~frame["open"].astype(bool)]
        whole = frame[frame["diverged"] == 0]
        overall = whole["loss"].min()
        for arm in [a for a in study.arms if (frame["arm"] == a).any()]:
            mine = frame[frame["arm"] == arm]
            good = mine.loc[mine["diverged"] == 0, "loss"]
            within = int((good <= good.min() + delta).sum())
            middle = interquartile_interval(mine["loss"].dropna().to_numpy(float), level)
            rows.append(
                {
                    "context": context,
                    "arm": arm,
                    "best": good.min(),
                    "within": within,
                    "settings": len(mine),
                    "near_all": float((good <= overall + delta).sum() / len(mine)),
                    "iqm": middle.mean,
                    "iqm_low": middle.low,
                    "iqm_high": middle.high,
                    "diverged": int((mine["diverged"] > 0).sum()),
                    "delta": delta,
                }
                | dict(
                    zip(("share", "low", "high"), wilson_interval(within, len(mine)), strict=True)
                )
            )
    return pd.DataFrame(rows)


@once_per_study
def levels(study: Study, level: float = 0.95) -> pd.DataFrame:
    """The response to each swept factor, arm by arm, over all settings at that level.

    Returns:
        One row per context, factor, level and arm: `position` (of the level in its order),
        `value` (the middle of a bin; NaN for words), `settings`, `loss, low, high` (the mean over
        converged settings with Student's interval), `diverged` and `trials`, `rate, rate_low,
        rate_high` (Wilson's, over trials).
    """
    rows = [
        {"context": context, "factor": name} | row
        for context in study.contexts
        for name, frame in _by_factor(settings_at_first_rung(study, context))
        for row in _summarise_levels(study, frame, level)
    ]
    return pd.DataFrame(rows)


def _by_factor(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each swept factor with several levels: its name, and the settings that have it.

    Adds `level` (as text), `position` and `value`.
    """
    frame = frame[~frame["open"].astype(bool)]
    keys = dict.fromkeys(key for values in frame["factors"] for key in values)
    for key in [k for k in keys if k not in ("arm", *SEEDS)]:
        mine = frame[[key in values for values in frame["factors"]]].copy()
        found = [values[key] for values in mine["factors"]]
        if len({repr(value) for value in found}) < 2:
            continue
        mine["level"], mine["position"], mine["value"] = _arrange(found)
        yield key.removeprefix("training."), mine


def _arrange(found: list[Any]) -> tuple[list[str], list[int], list[float]]:
    """Levels as text, their order, and their place on an axis."""
    is_numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in found)
    if not is_numeric:
        names = list(dict.fromkeys(map(str, found)))
        places = [names.index(str(value)) for value in found]
        return list(map(str, found)), places, [float("nan")] * len(found)
    x = np.asarray(found, dtype=np.float64)
    distinct = np.unique(x)
    if len(distinct) <= MAX_LEVELS:
        position = np.searchsorted(distinct, x)
        return [format_level(v) for v in x], position.tolist(), x.tolist()
    edges = np.quantile(x, np.arange(NUM_BINS + 1) / NUM_BINS)
    position = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, NUM_BINS - 1)
    names = [f"{format_level(a)} … {format_level(b)}" for a, b in itertools.pairwise(edges)]
    middles = [float(np.median(x[position == place])) for place in range(NUM_BINS)]
    return [names[p] for p in position], position.tolist(), [middles[p] for p in position]


def _summarise_levels(study: Study, frame: pd.DataFrame, level: float) -> Iterator[dict[str, Any]]:
    for arm in [a for a in study.arms if (frame["arm"] == a).any()]:
        mine = frame[frame["arm"] == arm]
        for position, here in mine.groupby("position", sort=True):
            losses = here["loss"].dropna().to_numpy(float)
            mean = paired_mean(losses, level)
            diverged = int(here["diverged"].sum())
            trials = diverged + int(here["seeds"].sum())
            rate = wilson_interval(diverged, trials, level)
            yield {
                "level": here["level"].iloc[0],
                "position": int(position),
                "value": float(here["value"].iloc[0]),
                "arm": arm,
                "settings": len(here),
                "loss": float(mean.mean),
                "low": float(mean.low),
                "high": float(mean.high),
                "diverged": diverged,
                "trials": trials,
                "rate": rate.rate,
                "rate_low": rate.low,
                "rate_high": rate.high,
            }


def gaps(study: Study, level: float = 0.95) -> pd.DataFrame:
    """For each context and arm: dev less train, and test less dev, of its finished trials.

    Train is the mean perturbed loss of the mini-batches since the evaluation before; test and dev
    are at the checkpoint that dev chose.

    Returns:
        Columns `context, phase, arm, trials`, and `NAME, NAME_low, NAME_high` for `dev_train`
        and `test_dev` (losses) and `test_dev_score`; NaN where there is nothing.
    """
    frame = study.evaluations[(study.evaluations["status"] == "finished")]
    frame = frame[frame["trains"].astype(bool) & (frame["step"] > 0)]
    rows = []
    for (context, phase, arm), mine in frame.groupby(["context", "phase", "arm"], sort=False):
        last = mine.sort_values("step").groupby("trial_id", sort=False).tail(1)
        chosen = last[["trial_id", "test_step", "test_loss", "test_score"]].merge(
            mine[["trial_id", "step", "dev_loss", "score"]],
            left_on=["trial_id", "test_step"],
            right_on=["trial_id", "step"],
        )
        found = {
            "dev_train": last["dev_loss"] - last["train_loss"],
            "test_dev": chosen["test_loss"] - chosen["dev_loss"],
            "test_dev_score": chosen["test_score"] - chosen["score"],
        }
        row: dict[str, Any] = {"context": context, "phase": phase, "arm": arm, "trials": len(last)}
        for name, differences in found.items():
            mean = paired_mean(differences.dropna().to_numpy(float), level)
            row |= {name: float(mean.mean)}
            row |= {f"{name}_low": float(mean.low), f"{name}_high": float(mean.high)}
        rows.append(row)
    columns = None if rows else ["arm", "dev_train", "test_dev"]
    return study.sort_by_arm(pd.DataFrame(rows, columns=columns))
