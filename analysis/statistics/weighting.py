"""Effects at a rung that only some trials reached, weighted by their chance to get there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class WeightedMean(NamedTuple):
    """A difference of two weighted means with its interval.

    Attributes:
        mean: The difference; NaN where an arm has stopped trials and no control among them.
        low: Lower end of the interval.
        high: Upper end.
        controls: Control trials that stand for stopped ones, in the arm that has fewer of them
            (of the arms that have stopped trials).
    """

    mean: Floats
    low: Floats
    high: Floats
    controls: Floats


class _Arm(NamedTuple):
    mean: Floats
    scores: Floats
    within: Floats
    controls: Floats


def weighted_difference(
    values: ArrayLike,
    dropped: ArrayLike,
    seen: ArrayLike,
    ours: ArrayLike,
    units: ArrayLike,
    level: float = 0.95,
) -> WeightedMean:
    """The difference of two arms' means over all their trials, from those that were seen.

    A trial that survived a rule may have done so because it was good; only a trial that was exempt
    by lot stands for those that were dropped. A survivor weighs 1 and a dropped trial that was
    exempt D / k, where D trials of its arm were dropped and k of them exempt: the inverse of the
    realised probability, which has less variance than that of the planned one. Each arm's mean is
    Σwx / Σw over trials that converged; one that diverged counts for nothing, whatever its weight.

    The error is that of the linearised difference, as in two-phase sampling: the residuals of the
    dropped are inflated by D / k, the strata's means enter once for every trial. Scores are summed
    within units: trials of a unit, as those of two arms at one setting, may depend on each other.
    The degrees of freedom are Satterthwaite's, with k − 1 for the part that the controls carry.

    Args:
        values: NaN where not seen or diverged; shape (…, trials).
        dropped: Whether the rule dropped the trial before; shape (…, trials).
        seen: Whether it arrived (or diverged) all the same; shape (…, trials).
        ours: Whether a trial is of the first arm; shape (trials,).
        units: The unit of each trial, an integer; shape (trials,).
        level: Of the interval.

    Returns:
        Fields of shape (…). No interval with a single control, or without any spread.

    Source:
        Särndal, Swensson and Wretman, Model Assisted Survey Sampling (1992), chapter 9.
    """
    x = np.asarray(values, dtype=np.float64)
    out, there = np.asarray(dropped, dtype=bool), np.asarray(seen, dtype=bool)
    mask = np.asarray(ours, dtype=bool)
    membership = np.equal.outer(np.asarray(units), np.unique(units)).astype(np.float64)
    num_units = membership.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        first = _describe_arm(x, out, there, mask)
        second = _describe_arm(x, out, there, ~mask)
        summed = (first.scores - second.scores) @ membership
        variance = (summed**2).sum(axis=-1) * num_units / (num_units - 1)
        variance = np.maximum(variance + first.within + second.within, 0.0)
        carried = sum(
            np.where(arm.within > 0, arm.within**2 / np.maximum(arm.controls - 1, 1e-9), 0.0)
            for arm in (first, second)
        )
        rest = np.maximum(variance - first.within - second.within, 0.0)
        freedom = variance**2 / (carried + rest**2 / (num_units - 1))
    controls = np.minimum(first.controls, second.controls)
    is_enough = (controls > 1) & (variance > 0) & (num_units > 1)
    reach = stats.t.ppf((1 + level) / 2, np.where(is_enough, freedom, 1.0)) * np.sqrt(variance)
    reach = np.where(is_enough, reach, np.nan)
    difference = first.mean - second.mean
    return WeightedMean(difference, difference - reach, difference + reach, controls)


def control_share_needed(dropped: int, controls: int = 2, chance: float = 0.95) -> float:
    """The share of controls that leaves enough of them among an arm's dropped trials.

    Each trial is a control with that probability, independently; their number among the dropped
    is binomial, for the rule judges a control as it judges all others.

    Args:
        dropped: Trials that the rule drops.
        controls: Wanted among them.
        chance: With which there are to be as many.

    Returns:
        A probability; NaN where fewer were dropped than are wanted.

    >>> round(control_share_needed(8), 2)
    0.47
    """
    if dropped < controls:
        return float("nan")
    # P(K ≥ k) of a binomial K is the distribution function of Beta(k, n − k + 1).
    return float(stats.beta.ppf(chance, controls, dropped - controls + 1))


def _describe_arm(x: Floats, dropped: Bools, seen: Bools, arm: Bools) -> _Arm:
    """Mean, linearised scores of all trials, the variance that only controls tell of, and k.

    k is infinite where nothing was dropped. With D dropped trials whose residuals have variance
    s², sampling k of them adds D·s²·(D/k − 1), and the D − k unseen ones deviate from their
    stratum's mean, which their scores lack, by (D − k)·s²: together D·s²·(D/k − k/D).
    """
    out, kept = dropped & arm, ~dropped & arm
    controls = out & seen
    num_dropped, k = out.sum(axis=-1), controls.sum(axis=-1).astype(np.float64)
    ratio = np.where(num_dropped > 0, num_dropped / k, 1.0)
    weights = np.where(kept, 1.0, np.where(controls, ratio[..., None], 0.0))
    converged = ~np.isnan(x) & (kept | controls)
    total = np.where((num_dropped > 0) & (k == 0), np.nan, (weights * converged).sum(axis=-1))
    mean = np.where(converged, weights * np.nan_to_num(x), 0.0).sum(axis=-1) / total
    residuals = np.where(converged, np.nan_to_num(x) - mean[..., None], 0.0) / total[..., None]
    of_controls = np.where(controls, residuals, 0.0)
    centre = np.where(k > 0, of_controls.sum(axis=-1) / np.maximum(k, 1), 0.0)
    deviations = np.where(controls, residuals - centre[..., None], 0.0)
    spread = (deviations**2).sum(axis=-1) / np.maximum(k - 1, 1)
    within = np.where(num_dropped > 0, num_dropped * spread * (ratio - 1 / ratio), 0.0)
    scores = np.where(kept, residuals, 0.0) + np.where(
        controls, residuals, np.where(out, centre[..., None], 0.0)
    )
    return _Arm(mean, scores, within, np.where(num_dropped > 0, k, np.inf))
