"""What a number of seeds can find, for normal paired differences."""

from __future__ import annotations

import math

from scipy import integrate, optimize, stats


def smallest_detectable_effect(num_seeds: int, sd: float, power: float = 0.8) -> float | None:
    """The paired mean difference that a two-sided t-test at 5 % finds with the given power.

    Exact for normal differences, by the noncentral t distribution.

    Args:
        num_seeds: Pairs.
        sd: Standard deviation of the paired differences, in the unit of the result.
        power: Probability of finding it.

    Returns:
        None with fewer than two pairs, which have no interval.
    """
    if num_seeds < 2:
        return None
    freedom = num_seeds - 1
    critical = stats.t.ppf(0.975, freedom)

    def shortfall(effect: float) -> float:
        shift = effect * math.sqrt(num_seeds)
        below = float(stats.nct.cdf(-critical, freedom, shift))
        if math.isnan(below):  # scipy's answer for some tails too thin to matter (< 1e-14)
            below = 0.0
        return 1.0 - float(stats.nct.cdf(critical, freedom, shift)) + below - power

    upper = 0.1
    while shortfall(upper) < 0:
        upper *= 2
    return float(optimize.brentq(shortfall, upper / 2, upper)) * sd


def equivalence_power(margin: float, sd: float, num_seeds: int) -> float:
    """The probability that two one-sided tests at 5 % call two equal arms equivalent.

    The mean must lie within margin − t·s / √n of zero; integrated over the law of s.

    Args:
        margin: Differences within ±margin are as good as none; > 0.
        sd: Standard deviation of the paired differences, in the unit of the margin.
        num_seeds: n, pairs; with fewer than two the power is 0.

    >>> [round(equivalence_power(1.0, 2.0, n), 2) for n in (5, 10, 20)]
    [0.02, 0.07, 0.39]
    """
    if num_seeds < 2:
        return 0.0
    freedom, error = num_seeds - 1, sd / math.sqrt(num_seeds)
    critical = float(stats.t.ppf(0.95, freedom))

    def density(ratio: float) -> float:
        """Of (n − 1)·s² / sd², times the chance that the mean is near enough to zero."""
        reach = (margin - critical * error * math.sqrt(ratio / freedom)) / error
        return float((2 * stats.norm.cdf(reach) - 1) * stats.chi2.pdf(ratio, freedom))

    widest = freedom * (margin / (critical * error)) ** 2
    upper = min(widest, float(stats.chi2.ppf(1 - 1e-12, freedom)))
    return float(integrate.quad(density, 0.0, upper, limit=200)[0])
