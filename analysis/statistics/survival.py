"""How long until a target is reached, where some never reached it while they were watched."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


class Survival(NamedTuple):
    """The share that has reached the target by each time.

    Attributes:
        times: At which the share changes.
        share: Kaplan and Meier's: those that were stopped are taken to have been like the others.
        low: Lower end of its pointwise interval (log-log).
        high: Upper end.
        worst: The share if whoever was stopped would never have reached it: a lower bound.
        median: When half have reached it; NaN if they have not.
        worst_median: The same by the bound.
    """

    times: Floats
    share: Floats
    low: Floats
    high: Floats
    worst: Floats
    median: float
    worst_median: float


def kaplan_meier(times: ArrayLike, reached: ArrayLike, level: float = 0.95) -> Survival:
    """Kaplan and Meier's curve of reaching, with the bound that needs no assumption.

    The curve assumes that being stopped says nothing about the time one would have needed. A
    scheduler that stops the bad breaks it; the truth then lies between `worst` and `share`.

    Args:
        times: When the target was reached, or when watching ended; ≥ 0.
        reached: Whether it was reached.
        level: Of the interval.

    Raises:
        ValueError: If lengths differ or nothing is given.
    """
    ends, events = np.asarray(times, dtype=np.float64), np.asarray(reached, dtype=bool)
    if ends.shape != events.shape or ends.ndim != 1 or ends.size == 0:
        raise ValueError(f"times and reached must be as long, got {ends.shape}, {events.shape}")
    if not events.any():
        nothing = np.array([])
        return Survival(nothing, nothing, nothing, nothing, nothing, np.nan, np.nan)
    sample = stats.CensoredData(uncensored=ends[events], right=ends[~events])
    curve = stats.ecdf(sample).sf
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN where all have reached it
        band = curve.confidence_interval(level, method="log-log")
    is_event = np.isin(curve.quantiles, ends[events])
    grid = curve.quantiles[is_event]
    share = 1 - curve.probabilities[is_event]
    low = 1 - band.high.probabilities[is_event]
    high = 1 - band.low.probabilities[is_event]
    worst = np.array([(events & (ends <= t)).sum() / ends.size for t in grid])
    return Survival(grid, share, low, high, worst, _half(grid, share), _half(grid, worst))


def _half(grid: Floats, share: Floats) -> float:
    arrived = np.flatnonzero(share >= 0.5 - 1e-12)
    return float(grid[arrived[0]]) if arrived.size else float("nan")
