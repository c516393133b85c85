"""Effects at a rung that only some trials reached, weighted by their chance to get there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


class WeightedMean(NamedTuple):
    """A difference of two weighted means with its interval.

    Attributes:
        mean: The difference.
        low: Lower end of the interval.
        high: Upper end.
        effective: Kish's effective number of trials, the smaller of the two arms'.
    """

    mean: Floats
    low: Floats
    high: Floats
    effective: Floats


def weighted_difference(
    ours: tuple[ArrayLike, ArrayLike], theirs: tuple[ArrayLike, ArrayLike], level: float = 0.95
) -> WeightedMean:
    """The difference of two arms' means over all their trials, from those that were seen.

    A trial that survived a rule may have done so because it was good; only a trial that was
    exempt by lot stands for those that were stopped. With `e` the chance of exemption, a
    survivor weighs 1 and an exempt trial that the rule would have stopped 1 / e, whatever else
    it met. Each arm's mean is Σwx / Σw (Hájek), its error that of the linearised sum over all its
    trials, seen or not, with Satterthwaite's degrees of freedom from the effective numbers.

    Args:
        ours: Values (NaN where not seen) and weights (0 where not seen); shape (…, trials).
        theirs: The same of the other arm.
        level: Of the interval.
    """
    first, second = _hajek(*ours), _hajek(*theirs)
    mean = first[0] - second[0]
    variance = first[1] + second[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        below = first[1] ** 2 / (first[2] - 1) + second[1] ** 2 / (second[2] - 1)
        freedom = np.maximum(variance**2 / below, 1.0)
        reach = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)
    enough = (first[2] > 1) & (second[2] > 1) & (variance > 0)
    reach = np.where(enough, reach, np.nan)
    return WeightedMean(mean, mean - reach, mean + reach, np.minimum(first[2], second[2]))


def _hajek(values: ArrayLike, weights: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Mean, variance of the mean, effective number."""
    w = np.asarray(weights, dtype=np.float64)
    x = np.where(w > 0, np.asarray(values, dtype=np.float64), 0.0)
    trials = (w >= 0).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = w.sum(axis=-1)
        mean = (w * x).sum(axis=-1) / total
        scores = w * (x - mean[..., None]) / total[..., None]
        variance = (scores**2).sum(axis=-1) * trials / (trials - 1)
        effective = total**2 / (w**2).sum(axis=-1)
    return mean, variance, effective
