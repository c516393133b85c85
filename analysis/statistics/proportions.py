"""Rates, such as that of divergence."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import stats


class Rate(NamedTuple):
    """A rate with its interval."""

    rate: float
    low: float
    high: float


def wilson_interval(count: int, total: int, level: float = 0.95) -> Rate:
    """Wilson's score interval of a binomial rate; it never leaves [0, 1].

    Args:
        count: Of those that did, between 0 and total.
        total: Of all; with none all is NaN.
        level: Of the interval.

    Raises:
        ValueError: If count does not lie between 0 and total.

    >>> [round(value, 3) for value in wilson_interval(1, 10)]
    [0.1, 0.018, 0.404]
    """
    if not 0 <= count <= total:
        raise ValueError(f"count must lie between 0 and {total}, got {count}")
    if total == 0:
        return Rate(math.nan, math.nan, math.nan)
    found = stats.binomtest(count, total).proportion_ci(level, method="wilson")
    return Rate(count / total, max(0.0, float(found.low)), min(1.0, float(found.high)))
