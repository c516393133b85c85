"""What the kernels' exact figures foretell, beside what was measured.

The plan holds each trial's figures (`theory`), the rows the root mean square of its projected
gradients (`projected_gradient_rms`). Where losses have no noise, E|g|² is |∇L|² times the second
moment E[(Σ rK)²]; up to the first evaluation, at the same setting and seed, the gradients of two
arms have hardly parted, so that the ratio of their mean squares should be that of their second
moments. A few steps give that mean square with a large error: a kernel's (rK)² scatters, and so
does the slope along a random direction. What theory allows is therefore a range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from analysis.load import Study, sweep_labels
from analysis.memory import once_per_study
from analysis.selection import compared_rung
from analysis.sensitivity.effects import effects_at_rungs, units_of
from analysis.sensitivity.robustness import settings_at_first_rung
from analysis.statistics import kendall, paired_mean

FIGURES = (
    "order",
    "lead",
    "signal_variance",
    "noise_amplification",
    "gain",
    "second_moment",
)
PREDICTORS = {
    "signal_variance": "V_s",
    "noise_amplification": "V_n",
    "order": "bias order",
    "predicted_ratio": "predicted ratio",
}
OUTCOMES = {
    "measured_ratio": "measured ratio",
    "difference": "difference of dev loss",
    "best": "best dev loss",
}
SAID = {("bias order", OUTCOMES[name]): -1 for name in ("difference", "best")}
"""(Predictor, outcome) → the sign that τ has where theory explains the ranking, if not 1."""

Reading = Literal[
    "as theory says", "against theory", "not told from chance", "too few arms to tell"
]
RATIOS = ("predicted_ratio", "measured_ratio", "low", "high", "expected_low", "expected_high")
MIN_ARMS = 4
"""Of which a rank correlation is made."""
MIN_TELLING = 5
"""Arms from which on the exact p of a perfect ranking, 2 / arms!, is below .05."""


@once_per_study
def theory_beside_measurement(study: Study, level: float = 0.95) -> pd.DataFrame:
    """Every arm's predicted figures and measured ones, for each context at its first rung.

    Trials of one seed draw the same r and u at every setting: they are one observation of the
    ratio, their geometric mean over settings. Over seeds the mean is arithmetic, for it is means
    that theory foretells; its interval is Student's, from two seeds on.

    Returns:
        One row per context, arm and distinct kernel: FIGURES; `predicted_ratio` and
        `measured_ratio` of the mean squared projected gradient to that of the baseline's trials
        at the same setting and seed, `low, high` (over seeds), `seeds`, and `expected_low,
        expected_high`, where theory has the measured ratio with at least probability `level`;
        `difference` of the dev loss from the baseline at equal settings, with
        `difference_low, difference_high`; `best`, the lowest mean loss of a setting.
    """
    if not study.baselines or not any(sweep.plan.get("theory") for sweep in study.sweeps):
        return pd.DataFrame()
    effects = effects_at_rungs(study, level)
    rows = []
    for context in study.contexts:
        trials = _measured(study, context)
        base = trials[trials["arm"] == study.baselines[0]]
        settings = settings_at_first_rung(study, context)
        for (arm, _), mine in trials.groupby(["arm", "figures"], sort=False):
            row = {"context": context, "arm": arm} | mine["theory"].iloc[0]
            row |= dict.fromkeys(RATIOS, float("nan")) | _compare(mine, base, level)
            whole = settings[
                settings["setting"].isin(mine["setting"]) & (settings["diverged"] == 0)
            ]
            row["best"] = whole["loss"].min()
            row |= _effect(effects, context, arm)
            rows.append(row)
    frame = pd.DataFrame(rows)
    return frame if frame.empty else study.sort_by_arm(frame, "context")


def _measured(study: Study, context: str) -> pd.DataFrame:
    """The trials of a context that have figures, with their mean square up to the first rung."""
    cells = study.cells[study.cells["context"] == context]
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    for label, sweep in zip(sweep_labels(study.sweeps), study.sweeps, strict=True):
        theory = sweep.plan.get("theory") or {}
        for trial, place in (theory.get("trials") or {}).items():
            known[label, trial] = theory["figures"][place]
    found = [known.get(pair) for pair in zip(cells["sweep"], cells["trial_id"], strict=True)]
    trials = cells.assign(theory=found, unit=units_of(cells) if len(cells) else [])
    trials = trials[[figures is not None for figures in found]]
    rung = compared_rung(study, context, "first")
    rows = study.evaluations[
        (study.evaluations["context"] == context)
        & (study.evaluations["rung"] == rung)
        & (study.evaluations["step"] > 0)
    ].drop_duplicates("trial_id")
    rows = rows.set_index("trial_id")
    trials = trials.assign(
        square=trials["trial_id"].map(rows["projected_gradient_rms"]).astype(float) ** 2,
        draws=trials["trial_id"].map(rows["step"]).astype(float)
        * pd.to_numeric(trials["num_directions"], errors="coerce").fillna(1),
    )
    return trials.assign(figures=[repr(sorted(f.items())) for f in trials["theory"]])


def _compare(mine: pd.DataFrame, base: pd.DataFrame, level: float) -> dict[str, Any]:
    """An arm's ratios to the baseline: predicted, where theory has it, and measured."""
    if base.empty:
        return {}
    ours, theirs = (side["theory"].iloc[0] for side in (mine, base))
    predicted = ours["second_moment"] / theirs["second_moment"]
    if mine["arm"].iloc[0] == base["arm"].iloc[0]:
        return {"predicted_ratio": predicted}
    columns = ["unit", "seed", "square", "draws"]
    pairs = mine[columns].merge(base[columns], on=["unit", "seed"], suffixes=("", "_base"))
    pairs = pairs[(pairs["square"] > 0) & (pairs["square_base"] > 0)]
    logs = np.log(pairs["square"] / pairs["square_base"])
    ratios = np.exp(logs.groupby(pairs["seed"]).mean().to_numpy(float))
    found = paired_mean(ratios, level)
    row = {"predicted_ratio": predicted, "measured_ratio": float(found.mean), "seeds": len(ratios)}
    row |= {"low": float(found.low), "high": float(found.high)}
    draws = (pairs["draws"].mean(), pairs["draws_base"].mean())
    spreads = (ours.get("spread"), theirs.get("spread"))
    if len(ratios) and None not in spreads:
        sd = ratio_sd((float(spreads[0]), float(spreads[1])), draws) / np.sqrt(len(ratios))
        low, high = log_range(predicted, sd, level)
        row |= {"expected_low": low, "expected_high": high}
    return row


def ratio_sd(spreads: tuple[float, float], draws: tuple[float, float]) -> float:
    """Relative standard deviation of the ratio of two mean squared projected gradients, at most.

    A squared projected gradient is s·(Σ rK)²·z² with z standard normal, the slope along u, and
    E[z⁴] = 3. Arms of one seed share their directions, as long as they take the same number a
    step, so that a part of the error cancels until their weights have parted; how large a part
    is not known, and the error is that of independent slopes, which is larger.

    Args:
        spreads: Standard deviation of (Σ rK)² over its mean, of the arm and of the baseline.
        draws: Steps times directions of either.

    Returns:
        To first order in 1 / draws, for a gradient whose norm stays the same.
    """
    terms = [(3 * (1 + s**2) - 1) / n for s, n in zip(spreads, draws, strict=True)]
    return float(np.sqrt(sum(terms)))


def log_range(mean: float, sd: float, level: float = 0.95) -> tuple[float, float]:
    """Where a log-normal value of that mean and relative standard deviation lies, both sides alike.

    Mean squares of few draws are skewed to the right, as it is.
    """
    width = np.sqrt(np.log1p(sd**2))
    ends = width * stats.norm.ppf([(1 - level) / 2, (1 + level) / 2]) - width**2 / 2
    low, high = mean * np.exp(ends)
    return float(low), float(high)


def _effect(effects: pd.DataFrame, context: str, arm: str) -> dict[str, Any]:
    nothing = float("nan")
    row = {"difference": nothing, "difference_low": nothing, "difference_high": nothing}
    if effects.empty:
        return row
    here = effects[(effects["context"] == context) & (effects["arm"] == arm)]
    if here.empty:
        return row
    first = here.iloc[0]
    return {
        "difference": first["difference"],
        "difference_low": first["low"],
        "difference_high": first["high"],
    }


def theory_and_ranking(study: Study) -> pd.DataFrame:
    """Whether what theory says of the arms ranks them as the measurements do.

    Returns:
        One row per context, predictor and outcome: Kendall's `tau` over arms, its exact p-value
        where no ranks are tied, the number of `arms`, and `reading`, what that comes to; the
        baseline takes part with ratio 1 and difference 0. Empty with fewer than MIN_ARMS arms.
    """
    frame = theory_beside_measurement(study)
    if frame.empty:
        return frame
    is_base = frame["arm"] == study.baselines[0]
    frame = frame.assign(
        measured_ratio=frame["measured_ratio"].mask(is_base, 1.0),
        difference=frame["difference"].mask(is_base, 0.0),
    )
    rows = []
    for context, here in frame.groupby("context", sort=False):
        for predictor, said in PREDICTORS.items():
            for outcome, measured in OUTCOMES.items():
                known = here[[predictor, outcome]].dropna().astype(float)
                if len(known) < MIN_ARMS or (predictor, outcome) == ("order", "measured_ratio"):
                    continue
                found = kendall(known[predictor], known[outcome])
                p = stats.kendalltau(known[predictor], known[outcome]).pvalue
                row = {"context": context, "predictor": said, "outcome": measured}
                row |= {"tau": found.value, "p": float(p), "arms": len(known)}
                rows.append(row | {"reading": _read(row)})
    return pd.DataFrame(rows)


def _read(row: Mapping[str, Any]) -> Reading:
    """What a rank correlation says of theory, at the level .05."""
    if row["arms"] < MIN_TELLING:
        return "too few arms to tell"
    if not row["p"] <= 0.05:
        return "not told from chance"
    sign = SAID.get((row["predictor"], row["outcome"]), 1)
    return "as theory says" if row["tau"] * sign > 0 else "against theory"
