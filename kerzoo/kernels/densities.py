"""Symmetric laws of r: exact moments for building kernels, quantiles for drawing from them."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
import statistics
from fractions import Fraction

HALF = Fraction(1, 2)

BISECTIONS = 64
"""Halvings of [0, 1]: more than float64 resolves."""

TINY = 2.0**-54
"""Half of the least step between uniform numbers of 53 bits; stands for u = 0."""


class Density(abc.ABC):
    """The contract: a law of r that is symmetric about 0."""

    @abc.abstractmethod
    def moment(self, power: int) -> Fraction:
        """E[r^power], exactly; zero for odd powers."""

    @abc.abstractmethod
    def cdf(self, r: float) -> float:
        """P(ρ ≤ r)."""

    @abc.abstractmethod
    def quantile(self, u: float) -> float:
        """Q(u), the inverse of the distribution function at u in [0, 1); Q(1 − u) = −Q(u)."""

    @property
    @abc.abstractmethod
    def formula(self) -> str:
        """The density as text."""


@dataclasses.dataclass(frozen=True)
class GegenbauerDensity(Density):
    """The density (1 − r²)^a / (2·I_a(1)) on [−1, 1], for a = −1/2, 0, 1/2, 1 and so on.

    Here I_a(r) = ∫_0^r (1 − t²)^a dt, with

        I_a(r) = (r·(1 − r²)^a + 2a·I_{a−1}(r)) / (2a + 1),   I_0(r) = r,   I_{−1/2}(r) = asin r.

    a = 0 is the uniform law, 1/2 the semicircle, −1/2 the arcsine law, 1 Epanechnikov's.

    >>> GegenbauerDensity(Fraction(1, 2)).formula
    '2/π·(1 - r^2)^(1/2)'

    Args:
        exponent: a, a multiple of 1/2, at least −1/2.

    Raises:
        ValueError: For another exponent.
    """

    exponent: Fraction

    def __post_init__(self) -> None:
        if self.exponent < -HALF or (2 * self.exponent) % 1:
            raise ValueError(f"exponent must be a multiple of 1/2 and ≥ -1/2, got {self.exponent}")

    def moment(self, power: int) -> Fraction:
        """E[r^(2k)] = Π_{i<k} (2i + 1) / (2i + 3 + 2a); the integrals' π cancels."""
        product = Fraction(1)
        for i in range(power // 2):
            product *= (2 * i + 1) / (2 * i + 3 + 2 * self.exponent)
        return Fraction(0) if power % 2 else product

    def cdf(self, r: float) -> float:
        """1/2 + I_a(r) / (2·I_a(1)), for r in [−1, 1]."""
        return 0.5 + self._share(r)

    def quantile(self, u: float) -> float:
        """2u − 1 for a = 0, sin(π(u − 1/2)) for a = −1/2, otherwise by bisection."""
        if self.exponent == 0:
            return 2.0 * u - 1.0
        if self.exponent == -HALF:
            return math.sin(math.pi * (u - 0.5))
        share = abs(u - 0.5)
        low, high = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2.0
            if self._share(middle) <= share:
                low = middle
            else:
                high = middle
        return math.copysign(low, u - 0.5)

    @property
    def formula(self) -> str:
        """1 / (2·I_a(1)) in closed form, times (1 − r²)^a."""
        a, factor = self.exponent, 1 / (2 * self._integral_at_1)
        constant = str(factor)
        if a.denominator == 2:
            top, bottom = factor.as_integer_ratio()
            constant = f"{top}/π" if bottom == 1 else f"{top}/({bottom}π)"
        if a == 0:
            return f"{constant} on [-1, 1]"
        power = "" if a == 1 else f"^{a}" if a.denominator == 1 else f"^({a})"
        return f"{constant}·(1 - r^2){power}"

    @functools.cached_property
    def _steps(self) -> tuple[Fraction, ...]:
        """The exponents that the recurrence goes through, its start left out."""
        start = -HALF if self.exponent.denominator == 2 else Fraction(0)
        return tuple(start + 1 + i for i in range(int(self.exponent - start)))

    @functools.cached_property
    def _integral_at_1(self) -> Fraction:
        """I_a(1), in units of π where a is not an integer."""
        start = Fraction(1, self.exponent.denominator)
        return math.prod((2 * a / (2 * a + 1) for a in self._steps), start=start)

    @functools.cached_property
    def _floats(self) -> tuple[tuple[float, ...], float]:
        """The recurrence's exponents, and 2·I_a(1)."""
        unit = math.pi if self.exponent.denominator == 2 else 1.0
        return tuple(map(float, self._steps)), 2.0 * unit * float(self._integral_at_1)

    def _share(self, r: float) -> float:
        """P(0 ≤ ρ ≤ r); odd in r."""
        steps, total = self._floats
        integral = math.asin(r) if self.exponent.denominator == 2 else r
        for a in steps:
            integral = (r * (1.0 - r * r) ** a + 2.0 * a * integral) / (2.0 * a + 1.0)
        return integral / total


@dataclasses.dataclass(frozen=True)
class GappedUniformDensity(Density):
    """The uniform density on c ≤ |r| ≤ 1.

    Args:
        floor: c in (0, 1).
    """

    floor: Fraction

    def moment(self, power: int) -> Fraction:
        """E[r^(2k)] = (1 − c^(2k+1)) / ((1 − c)(2k + 1)), for negative k too."""
        if power % 2:
            return Fraction(0)
        return (1 - self.floor ** (power + 1)) / ((1 - self.floor) * (power + 1))

    def cdf(self, r: float) -> float:
        """1/2 ± (|r| − c) / (2(1 − c)), and 1/2 inside the gap."""
        floor = float(self.floor)
        return 0.5 + math.copysign(max(abs(r) - floor, 0.0) / (2.0 * (1.0 - floor)), r)

    def quantile(self, u: float) -> float:
        """±(c + (1 − c)·|2u − 1|)."""
        v, floor = 2.0 * u - 1.0, float(self.floor)
        return math.copysign(floor + (1.0 - floor) * abs(v), v)

    @property
    def formula(self) -> str:
        """1 / (2(1 − c)) on c ≤ |r| ≤ 1."""
        return f"{1 / (2 * (1 - self.floor))} on {self.floor} <= |r| <= 1"


class NormalDensity(Density):
    """r ~ N(0, 1): the minimal-degree kernels are Hermite kernels."""

    formula = "N(0, 1)"

    def moment(self, power: int) -> Fraction:
        """E[r^(2k)] = (2k − 1)!! = 1·3·…·(2k − 1)."""
        return Fraction(0) if power % 2 else Fraction(math.prod(range(1, power, 2)))

    def cdf(self, r: float) -> float:
        """Φ(r)."""
        return statistics.NormalDist().cdf(r)

    def quantile(self, u: float) -> float:
        """Φ^{-1}(u); at u = 0 that of 2^-54, half of the smallest uniform number above 0."""
        inverse = statistics.NormalDist().inv_cdf
        return inverse(max(u, TINY)) if u <= 0.5 else -inverse(1.0 - u)


DENSITIES: dict[str, Density] = {
    "uniform": GegenbauerDensity(Fraction(0)),
    "epanechnikov": GegenbauerDensity(Fraction(1)),
    "biweight": GegenbauerDensity(Fraction(2)),
    "semicircle": GegenbauerDensity(HALF),
    "arcsine": GegenbauerDensity(-HALF),
    "normal": NormalDensity(),
}
"""The laws of r that a kernel can name."""
