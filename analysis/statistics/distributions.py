"""Whole distributions in place of their means."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def interquartile_mean(values: ArrayLike) -> float:
    """The mean of the middle half: a quarter of the values is cut off at either end.

    The cut is floor(n / 4) values; NaN without any.

    >>> interquartile_mean([0.0, 1.0, 2.0, 100.0])
    1.5
    """
    found = np.asarray(values, dtype=np.float64)
    return float(stats.trim_mean(found, 0.25)) if found.size else math.nan


def performance_profile(values: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """The share of values at or above each threshold.

    Args:
        values: Larger is better; those that diverged as −inf, so that they count as never there.
        thresholds: Any.

    Returns:
        The shape of `thresholds`; NaN without values.

    >>> performance_profile([0.5, 0.7, float("-inf")], [0.4, 0.6]).round(2).tolist()
    [0.67, 0.33]
    """
    found = np.sort(np.asarray(values, dtype=np.float64))
    levels = np.asarray(thresholds, dtype=np.float64)
    if found.size == 0:
        return np.full(levels.shape, np.nan)
    return np.asarray(1 - np.searchsorted(found, levels, side="left") / found.size)
