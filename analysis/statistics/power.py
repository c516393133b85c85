"""What a number of seeds can find: for normal paired differences, exactly."""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, optimize, stats

MAX_SEEDS = 10_000


def student_power(effect: float, sd: float, pairs: int, alpha: float = 0.05) -> float:
    """The probability that the two-sided Student test rejects.

    By the noncentral t distribution with n − 1 degrees of freedom and noncentrality
    effect · √n / sd.

    Args:
        effect: The true mean difference.
        sd: Standard deviation of the differences, > 0.
        pairs: n ≥ 2; with fewer the power is 0.
        alpha: Level of the test.

    >>> round(student_power(1.0, 1.0, 10), 2)
    0.8
    """
    _check_sd(sd)
    if pairs < 2:
        return 0.0
    shift, critical = abs(effect) * math.sqrt(pairs) / sd, stats.t.ppf(1 - alpha / 2, pairs - 1)
    if shift > critical + 12:  # where scipy's nct loses itself; the power is one
        return 1.0
    freedom = pairs - 1
    return float(stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift))


def smallest_detectable_effect(
    sd: float, pairs: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The mean difference that is found with the given power; infinite below two pairs."""
    _check_sd(sd)
    if pairs < 2:
        return math.inf
    high = 1.0
    while student_power(high, 1.0, pairs, alpha) < power:
        high *= 2
    root = optimize.brentq(lambda d: student_power(d, 1.0, pairs, alpha) - power, 0.0, high)
    return sd * float(root)


def equivalence_power(
    margin: float, sd: float, pairs: int, effect: float = 0.0, alpha: float = 0.05
) -> float:
    """The probability that two one-sided tests call a true effect equivalent within ±margin.

    The mean lies in ±(margin − t·s/√n); integrated over the law of s.

    Args:
        margin: > 0, in the unit of sd.
        sd: Standard deviation of the differences, > 0.
        pairs: n ≥ 2; with fewer the power is 0.
        effect: The true mean difference.
        alpha: Level of each one-sided test.

    >>> [round(equivalence_power(1.0, 2.0, n), 2) for n in (5, 10)]
    [0.02, 0.07]
    """
    _check_sd(sd)
    if not margin > 0:
        raise ValueError(f"margin must be > 0, got {margin}")
    if pairs < 2:
        return 0.0
    freedom, error = pairs - 1, sd / math.sqrt(pairs)
    critical = stats.t.ppf(1 - alpha, freedom)
    widest = (margin / (critical * error)) ** 2 * freedom  # of s²·(n − 1) / sd²

    def density(chi: float) -> float:
        reach = margin - critical * error * math.sqrt(chi / freedom)
        inside = stats.norm.cdf((reach - effect) / error) - stats.norm.cdf(
            (-reach - effect) / error
        )
        return float(inside * stats.chi2.pdf(chi, freedom))

    upper = min(widest, float(stats.chi2.ppf(1 - 1e-12, freedom)))
    return float(integrate.quad(density, 0.0, upper, limit=200)[0])


def seeds_needed(
    effect: float, sd: float, margin: float, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Pairs with which the comparison would probably be decided, one way or the other.

    The fewer of two numbers: those with which Student's test finds the effect, and those with
    which it is called equivalent within ±margin, both with the given power, if effect and sd are
    what they seem. None beyond 10 000.

    Args:
        effect: The difference seen.
        sd: Standard deviation of the differences, > 0.
        margin: Of equivalence, > 0.
        power: Wanted.
        alpha: Level of the tests.
    """
    _check_sd(sd)

    def decided(pairs: int) -> bool:
        return (
            student_power(effect, sd, pairs, alpha) >= power
            or equivalence_power(margin, sd, pairs, effect, alpha) >= power
        )

    if not decided(MAX_SEEDS):
        return None
    low, high = 1, MAX_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def _check_sd(sd: float) -> None:
    if not (np.isfinite(sd) and sd > 0):
        raise ValueError(f"sd must be > 0, got {sd}")
