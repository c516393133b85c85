"""Rank correlations with intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class RankCorrelation(NamedTuple):
    """A rank correlation with its interval.

    Attributes:
        value: Between −1 and 1.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def spearman(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> RankCorrelation:
    """Spearman's ρ; the interval on Fisher's scale with variance (1 + ρ²/2) / (n − 3).

    NaN with fewer than three pairs or where all are tied; no interval with fewer than five pairs.

    Source:
        Bonett and Wright, Psychometrika 65 (2000).

    >>> spearman([1, 2, 3], [1, 3, 2]).value
    0.5
    """
    x, y = _check(first, second)
    value = _value(stats.spearmanr, x, y)
    return _with_interval(value, (1 + value**2 / 2) / max(x.size - 3, 1), x.size, level)


def kendall(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> RankCorrelation:
    """Kendall's τ-b; the interval on Fisher's scale with variance 0.437 / (n − 4).

    NaN with fewer than three pairs or where all are tied; no interval with fewer than five pairs.

    Source:
        Fieller, Hartley and Pearson, Biometrika 44 (1957).
    """
    x, y = _check(first, second)
    value = _value(stats.kendalltau, x, y)
    return _with_interval(value, 0.437 / max(x.size - 4, 1), x.size, level)


def _check(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"first and second must be as long, got {x.shape}, {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("values must be finite; leave out the trials that diverged")
    return x, y


def _value(function: object, x: np.ndarray, y: np.ndarray) -> float:
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(function(x, y).statistic)  # type: ignore[operator]


def _with_interval(value: float, variance: float, pairs: int, level: float) -> RankCorrelation:
    if pairs < 5 or np.isnan(value):
        return RankCorrelation(value, float("nan"), float("nan"))
    if abs(value) > 1 - 1e-12:  # Fisher's scale ends there: the interval is what n pairs allow
        value = float(np.sign(value)) * (1 - 1e-12)
    reach = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance)
    if abs(value) > 1 - 1e-9:
        return RankCorrelation(round(value), float("nan"), float("nan"))
    low, high = np.tanh(np.arctanh(value) + np.array([-reach, reach]))
    return RankCorrelation(value, float(low), float(high))
