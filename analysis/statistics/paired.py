"""The mean of paired differences: Student's interval and test, and equivalence to zero."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


class PairedMean(NamedTuple):
    """A mean with its two-sided interval and p-value.

    Attributes:
        mean: Of the differences.
        low: Lower end of the interval.
        high: Upper end of the interval.
        p: Two-sided, of a mean of zero.
        sd: Standard deviation of the differences.
        error: Standard error of the mean.
        freedom: Degrees of freedom.
    """

    mean: Floats
    low: Floats
    high: Floats
    p: Floats
    sd: Floats
    error: Floats
    freedom: Floats


class Equivalence(NamedTuple):
    """Whether a mean lies within ±margin, by two one-sided tests.

    Attributes:
        p: The larger of the two one-sided p-values.
        low: Lower end of the interval of level 1 − 2α, which lies inside the margin iff p < α.
        high: Its upper end.
    """

    p: Floats
    low: Floats
    high: Floats


def paired_mean(differences: ArrayLike, level: float = 0.95) -> PairedMean:
    """Student's interval: mean ± t(n − 1) · sd / √n.

    With fewer than two pairs, or differences that do not vary at all, there is no interval and no
    p-value: they are NaN, never zero.

    Args:
        differences: Finite; shape (…, pairs).
        level: Of the interval, between 0 and 1.

    Returns:
        Fields of shape (…).

    Raises:
        ValueError: If a difference is not finite, or the level is no probability.
    """
    values = _check(differences, level)
    pairs = values.shape[-1]
    if pairs == 0:
        nothing = np.full(values.shape[:-1], np.nan)
        return _with_interval(nothing, nothing, nothing, nothing, level)
    mean = values.mean(axis=-1)
    sd = _spread(values)
    freedom = np.full(mean.shape, pairs - 1.0)
    return _with_interval(mean, sd, sd / np.sqrt(pairs), freedom, level)


def stratified(groups: list[ArrayLike], level: float = 0.95) -> PairedMean:
    """The unweighted mean over strata (tasks) of their mean differences.

    The strata are fixed and their pairs independent; the error is √Σ(sd²ₖ / nₖ) / K, with the
    degrees of freedom of Welch and Satterthwaite. One stratum gives Student's interval. The sd is
    the pooled one, within strata.

    Args:
        groups: Differences of each stratum, of two or more pairs each.
        level: Of the interval.

    Raises:
        ValueError: If there is no stratum, or as `paired_mean`.
    """
    if not groups:
        raise ValueError("groups must hold at least one stratum, got none")
    values = [_check(group, level) for group in groups]
    means = np.array([group.mean() for group in values])
    sizes = np.array([group.size for group in values], dtype=float)
    if (sizes < 2).any():
        nothing = np.array(np.nan)
        return _with_interval(np.asarray(means.mean()), nothing, nothing, nothing, level)
    variances = np.array([_spread(group) ** 2 for group in values])
    parts = variances / sizes
    error = np.sqrt(parts.sum()) / len(values)
    below = (parts**2 / (sizes - 1)).sum()
    freedom = parts.sum() ** 2 / below if below > 0 else sizes.sum() - len(values)
    sd = np.sqrt((variances * (sizes - 1)).sum() / (sizes - 1).sum())
    return _with_interval(
        np.asarray(means.mean()), np.asarray(sd), np.asarray(error), np.asarray(freedom), level
    )


def equivalence(found: PairedMean, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided tests of |mean| ≥ margin.

    Args:
        found: The mean, its error and degrees of freedom.
        margin: In the unit of the differences, > 0.
        alpha: Level of each one-sided test.

    Raises:
        ValueError: If the margin is not positive.

    Source:
        Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987).
    """
    if not margin > 0:
        raise ValueError(f"margin must be > 0, got {margin}")
    error = np.where(found.error > 0, found.error, np.nan)
    below = stats.t.sf((found.mean + margin) / error, found.freedom)
    above = stats.t.cdf((found.mean - margin) / error, found.freedom)
    reach = stats.t.ppf(1 - alpha, found.freedom) * error
    return Equivalence(np.maximum(below, above), found.mean - reach, found.mean + reach)


def _spread(values: Floats) -> Floats:
    """The standard deviation over the last axis; zero where only rounding makes them differ."""
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], np.nan)
    sd = values.std(axis=-1, ddof=1)
    return np.where(sd > 1e-12 * np.abs(values).max(axis=-1), sd, 0.0)


def _with_interval(
    mean: Floats, sd: Floats, error: Floats, freedom: Floats, level: float
) -> PairedMean:
    spread = np.where(error > 0, error, np.nan)
    reach = stats.t.ppf((1 + level) / 2, freedom) * spread
    p = 2 * stats.t.sf(np.abs(mean) / spread, freedom)
    return PairedMean(mean, mean - reach, mean + reach, p, sd, error, freedom)


def _check(differences: ArrayLike, level: float) -> Floats:
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite; leave out the pairs that diverged")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return values
