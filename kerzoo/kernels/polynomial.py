"""Kernels of a continuous r: odd polynomials in r and 1/r that solve exact moment equations."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from fractions import Fraction

from kerzoo.kernels.base import OneNodeKernel, check_order
from kerzoo.kernels.densities import DENSITIES, Density, GappedUniformDensity


class _MomentKernel(OneNodeKernel):
    """K(r) = Σ_i c_i r^(q+2i), i < m/2, under a symmetric law of r.

    The c_i solve Σ_i c_i E[r^(q+2i+j)] = C·[j = 1] for j = 1, 3, …, m − 1, exactly.
    """

    has_bandwidth = True
    first_moment: float = 1.0
    lowest_power: int

    @property
    @abc.abstractmethod
    def density_of_r(self) -> Density:
        """The law of r at d = 1."""

    @functools.cached_property
    def coefficients(self) -> tuple[Fraction, ...]:
        """c_i of r^(q+2i), lowest power first; exact. Shape: [m/2]."""
        powers = range(self.lowest_power, self.lowest_power + self.order, 2)
        moment = self.density_of_r.moment
        matrix = [[moment(p + j) for p in powers] for j in range(1, self.order, 2)]
        right = [Fraction(str(self.first_moment))] + [Fraction(0)] * (self.order // 2 - 1)
        return solve_exactly(matrix, right)

    @functools.cached_property
    def _floats(self) -> tuple[float, ...]:
        return tuple(float(c) for c in self.coefficients)

    @property
    def density_formula(self) -> str:
        """The law of r as text."""
        return self.density_of_r.formula

    def radius(self, u: float) -> float:
        """The density's quantile at u."""
        return self.density_of_r.quantile(u)

    def weight(self, r: float) -> float:
        """K(r) by Horner's rule in float64."""
        value = 0.0
        for coefficient in reversed(self._floats):
            value = value * r * r + coefficient
        return value * r if self.lowest_power == 1 else value / r

    def expectation(self, power: int, kernel_power: int = 1) -> Fraction:
        """E[r^power · K^kernel_power] from the density's moments, exactly."""
        assert kernel_power in (1, 2)
        terms = {self.lowest_power + 2 * i: c for i, c in enumerate(self.coefficients)}
        if kernel_power == 2:
            square: dict[int, Fraction] = {}
            for p, c in terms.items():
                for q, d in terms.items():
                    square[p + q] = square.get(p + q, Fraction(0)) + c * d
            terms = square
        moment = self.density_of_r.moment
        return sum((c * moment(p + power) for p, c in terms.items()), Fraction(0))

    def gain(self, half_width: float = 1.0, rescale: bool = True) -> float:
        """C rescaled; m(d) = E[dρ·K(dρ)] = Σ_i c_i d^(q+2i+1) E[ρ^(q+2i+1)] unrescaled."""
        if rescale:
            return float(self.expectation(1))
        gain = 0.0
        for i, coefficient in enumerate(self.coefficients):
            power = self.lowest_power + 1 + 2 * i
            gain += float(coefficient * self.density_of_r.moment(power)) * half_width**power
        return gain

    @property
    def formula(self) -> str:
        """K(r) as a common factor times r or 1/r times a primitive integer polynomial."""
        denominator = math.lcm(*(c.denominator for c in self.coefficients))
        integers = [int(c * denominator) for c in self.coefficients]
        divisor = math.gcd(*integers)
        factor = Fraction(divisor, denominator)
        first, *others = (integer // divisor for integer in integers)
        terms = [str(first)]
        for i, integer in enumerate(others, start=1):
            size = "" if abs(integer) == 1 else f"{abs(integer)}·"
            terms.append(f"{'-' if integer < 0 else '+'} {size}r^{2 * i}")
        polynomial = f"({' '.join(terms)})" if others else ""
        if self.lowest_power == -1:
            return f"{factor}{polynomial and '·' + polynomial}/r"
        return "·".join(filter(None, ("" if factor == 1 else str(factor), "r", polynomial)))


@dataclasses.dataclass(frozen=True)
class PolynomialKernel(_MomentKernel):
    """The odd polynomial of least degree that is unbiased to its order under its density.

    K(r) = Σ_i c_i r^(2i+1), i < m/2, with the c_i that solve
    Σ_i c_i E[r^(2i+1+j)] = C·[j = 1] for j = 1, 3, …, m − 1.

    >>> PolynomialKernel("uniform", 4).formula
    '15/4·r·(5 - 7·r^2)'

    Args:
        density: The law of r; a key of `DENSITIES`.
        order: m, even and ≥ 2.
        first_moment: C = E[r·K(r)] > 0. It multiplies the learning rate and, unless clipping or
            weight decay is active, nothing else. The released code of KerZOO has C = 4.

    Raises:
        ValueError: For an unknown density, an order that is odd or below 2, or a first moment
            that is no positive number.
    """

    density: str
    order: int
    first_moment: float = 1.0

    lowest_power = 1

    def __post_init__(self) -> None:
        if self.density not in DENSITIES:
            allowed = ", ".join(sorted(DENSITIES))
            raise ValueError(f"density must be one of {allowed}, got {self.density!r}")
        check_order(self.order)
        if not (math.isfinite(self.first_moment) and self.first_moment > 0):
            raise ValueError(f"first_moment must be finite and > 0, got {self.first_moment}")

    @property
    def family(self) -> str:
        """The name of the density."""
        return self.density

    @property
    def density_of_r(self) -> Density:
        """The density that the kernel names."""
        return DENSITIES[self.density]


@dataclasses.dataclass(frozen=True)
class MinVarianceKernel(_MomentKernel):
    """The kernel of least V_s = E[(rK)²] for r uniform on c ≤ |r| ≤ 1.

    Minimising E[(rK)²] under E[rK] = 1 and E[r^j K] = 0, j = 3, 5, …, m − 1, gives multipliers b_k:

        r·K(r) = Σ_k b_k r^(2k), k < m/2,    V_s = b_0,    V_n finite because c > 0.

    At order 4 and c → 0 this is K = 9/(4r) − 15r/4.

    >>> MinVarianceKernel(order=2).formula
    '1/r'

    Args:
        order: m, even and ≥ 2.
        floor: c in (0, 1), taken as the decimal number that it is written as.

    Raises:
        ValueError: For an order that is odd or below 2, or a floor outside (0, 1).
    """

    order: int = 4
    floor: float = 0.25

    lowest_power = -1
    family = "min-variance"

    def __post_init__(self) -> None:
        check_order(self.order)
        if not 0.0 < self.floor < 1.0:
            raise ValueError(f"floor must lie in (0, 1), got {self.floor}")

    @functools.cached_property
    def density_of_r(self) -> Density:
        """Uniform on c ≤ |r| ≤ 1."""
        return GappedUniformDensity(Fraction(str(self.floor)))


@dataclasses.dataclass(frozen=True)
class SignKernel(OneNodeKernel):
    """K(r) = sgn(r) / E|r| = 2·sgn(r) for r ~ U[−1, 1]: the constant weight under a random r.

    A control for what the randomness of r does alone. K ≡ 1 itself has E[rK] = 0 under a
    symmetric law: the sign makes the difference the same for r and −r, as MeZO's is for u and −u.
    """

    order = 2
    has_bandwidth = True
    family = "sign"
    formula = "2·sgn(r)"

    @property
    def density_formula(self) -> str:
        """The uniform law."""
        return DENSITIES["uniform"].formula

    def radius(self, u: float) -> float:
        """2u − 1."""
        return DENSITIES["uniform"].quantile(u)

    def weight(self, r: float) -> float:
        """±2."""
        return math.copysign(2.0, r)

    def expectation(self, power: int, kernel_power: int = 1) -> Fraction:
        """2^k·E[r^p sgn(r)^k] = 2^k / (p + 1) where p + k is even, and otherwise zero."""
        if (power + kernel_power) % 2:
            return Fraction(0)
        return Fraction(2**kernel_power, power + 1)

    def gain(self, half_width: float = 1.0, rescale: bool = True) -> float:
        """1 rescaled, m(d) = 2·E|dρ| = d unrescaled."""
        return 1.0 if rescale else half_width


def solve_exactly(matrix: list[list[Fraction]], right: list[Fraction]) -> tuple[Fraction, ...]:
    """Solve a regular linear system in exact rational arithmetic by Gauss–Jordan elimination.

    Args:
        matrix: Square and regular. Shape: [n, n].
        right: Right-hand side. Shape: [n].

    Returns:
        The solution. Shape: [n].
    """
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = next(i for i in range(column, size) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        lead = rows[column][column]
        rows[column] = [value / lead for value in rows[column]]
        for i in range(size):
            if i != column and rows[i][column]:
                factor = rows[i][column]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[column], strict=True)]
    return tuple(row[-1] for row in rows)
