"""Kernels K(r): what a loss difference at radius r counts for, built from exact moments.

A zeroth-order step perturbs the weights by ±ε·r·u and steps along

    g = (L(θ + ε·r·u) − L(θ − ε·r·u)) / (2ε) · K(r) · u.

Expanding the difference in odd powers of ε·r, the estimate is unbiased up to O(ε^m) when

    E[r·K(r)] = 1   and   E[r^j·K(r)] = 0   for odd j with 1 < j < m + 1.

m is the kernel's order. No coefficient is typed in: each kernel is the solution of these
equations in exact rational arithmetic for the moments of its density.

Sources: Polyak & Tsybakov 1990; Bach & Perchet 2016 (arXiv 1605.08165); Mi et al. 2025
(KerZOO, arXiv 2505.18886); Malladi et al. 2023 (MeZO, arXiv 2305.17333). The literature prints
the uniform order-6 kernel with the constant 195/64; the moments give 105/64.

`python -m kerzoo.kernels` prints them all.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from fractions import Fraction

ORDERS_SHOWN = (2, 4, 6, 8)


class Density(abc.ABC):
    """A symmetric density of r on [−1, 1]."""

    @abc.abstractmethod
    def moment(self, power: int) -> Fraction:
        """E[r^power], exactly; zero for odd powers."""

    @abc.abstractmethod
    def quantile(self, u: float) -> float:
        """The inverse of the distribution function at u in [0, 1)."""

    @property
    @abc.abstractmethod
    def formula(self) -> str:
        """The density as text."""


class UniformDensity(Density):
    """r ~ U[−1, 1]: the minimal-degree kernels are Legendre kernels."""

    formula = "1/2 on [-1, 1]"

    def moment(self, power: int) -> Fraction:
        """E[r^power] = 1/(power + 1) for even powers."""
        return Fraction(0) if power % 2 else Fraction(1, power + 1)

    def quantile(self, u: float) -> float:
        """2u − 1."""
        return 2.0 * u - 1.0


DENSITIES: dict[str, Density] = {"uniform": UniformDensity()}


class Kernel(abc.ABC):
    """A weight K(r) together with the law of r.

    Attributes:
        order: m, the order of the bias: O(ε^m). Even.
        has_bandwidth: Whether r is drawn from an interval whose half-width can shrink.
    """

    order: int
    has_bandwidth: bool

    @abc.abstractmethod
    def radius(self, u: float) -> float:
        """r for a uniform u in [0, 1), by inversion of the law of r."""

    @abc.abstractmethod
    def weight(self, r: float) -> float:
        """K(r)."""

    @abc.abstractmethod
    def expectation(self, power: int, kernel_power: int = 1) -> Fraction:
        """E[r^power · K(r)^kernel_power], exactly, for a kernel power of 1 or 2."""

    @property
    @abc.abstractmethod
    def density_formula(self) -> str:
        """The law of r as text."""

    @property
    @abc.abstractmethod
    def formula(self) -> str:
        """K(r) as text, in exact fractions."""

    @property
    def noise_amplification(self) -> Fraction:
        """V_n = E[K²]: amplification of independent loss noise, relative to MeZO."""
        return self.expectation(0, kernel_power=2)

    @property
    def signal_variance(self) -> Fraction:
        """V_s = E[(rK)²]: variance for noiseless losses, relative to MeZO."""
        return self.expectation(2, kernel_power=2)

    @property
    def lead(self) -> Fraction:
        """E[r^(m+1)·K]: the factor of the first bias term that is left."""
        return self.expectation(self.order + 1)


@dataclasses.dataclass(frozen=True)
class ConstantKernel(Kernel):
    """MeZO: r ≡ 1 and K ≡ 1, the central difference along u. Its bias is O(ε²)."""

    order = 2
    has_bandwidth = False
    density_formula = "r = 1"
    formula = "1"

    def radius(self, u: float) -> float:
        """Always 1."""
        return 1.0

    def weight(self, r: float) -> float:
        """Always 1."""
        return 1.0

    def expectation(self, power: int, kernel_power: int = 1) -> Fraction:
        """Always 1."""
        return Fraction(1)


@dataclasses.dataclass(frozen=True)
class PolynomialKernel(Kernel):
    """The odd polynomial of least degree that is unbiased to its order under its density.

    K(r) = Σ_i c_i r^(2i+1), i < m/2, with the c_i that solve
    Σ_i c_i E[r^(2i+1+j)] = [j = 1] for j = 1, 3, …, m − 1.

    >>> PolynomialKernel("uniform", 4).formula
    '15/4·r·(5 - 7·r^2)'

    Args:
        density: The law of r; a key of `DENSITIES`.
        order: m, even and ≥ 2.

    Raises:
        ValueError: For an unknown density or an order that is odd or below 2.
    """

    density: str
    order: int

    has_bandwidth = True

    def __post_init__(self) -> None:
        if self.density not in DENSITIES:
            allowed = ", ".join(sorted(DENSITIES))
            raise ValueError(f"density must be one of {allowed}, got {self.density!r}")
        if isinstance(self.order, bool) or not isinstance(self.order, int):
            raise ValueError(f"order must be an integer, got {self.order!r}")
        if self.order < 2 or self.order % 2:
            raise ValueError(f"order must be even and ≥ 2, got {self.order}")

    @functools.cached_property
    def coefficients(self) -> tuple[Fraction, ...]:
        """c_i of r^(2i+1), lowest power first; exact. Shape: [m/2]."""
        size = self.order // 2
        moment = DENSITIES[self.density].moment
        matrix = [[moment(2 * i + 1 + j) for i in range(size)] for j in range(1, self.order, 2)]
        return solve_exactly(matrix, [Fraction(1)] + [Fraction(0)] * (size - 1))

    @functools.cached_property
    def _floats(self) -> tuple[float, ...]:
        return tuple(float(c) for c in self.coefficients)

    @property
    def density_formula(self) -> str:
        """The law of r as text."""
        return DENSITIES[self.density].formula

    def radius(self, u: float) -> float:
        """The density's quantile at u."""
        return DENSITIES[self.density].quantile(u)

    def weight(self, r: float) -> float:
        """K(r) by Horner's rule in float64."""
        value = 0.0
        for coefficient in reversed(self._floats):
            value = value * r * r + coefficient
        return value * r

    def expectation(self, power: int, kernel_power: int = 1) -> Fraction:
        """E[r^power · K^kernel_power] from the density's moments, exactly."""
        assert kernel_power in (1, 2)
        terms = {2 * i + 1: c for i, c in enumerate(self.coefficients)}
        if kernel_power == 2:
            square: dict[int, Fraction] = {}
            for p, c in terms.items():
                for q, d in terms.items():
                    square[p + q] = square.get(p + q, Fraction(0)) + c * d
            terms = square
        moment = DENSITIES[self.density].moment
        return sum((c * moment(p + power) for p, c in terms.items()), Fraction(0))

    @property
    def formula(self) -> str:
        """K(r) as a common factor times r times a primitive integer polynomial."""
        denominator = math.lcm(*(c.denominator for c in self.coefficients))
        integers = [int(c * denominator) for c in self.coefficients]
        divisor = math.gcd(*integers)
        factor = Fraction(divisor, denominator)
        if len(integers) == 1:
            return f"{factor * (integers[0] // divisor)}·r"
        terms = [str(integers[0] // divisor)]
        for i, integer in enumerate(integers[1:], start=1):
            sign = "-" if integer < 0 else "+"
            terms.append(f"{sign} {abs(integer // divisor)}·r^{2 * i}")
        return f"{factor}·r·({' '.join(terms)})"


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


def format_table(orders: tuple[int, ...] = ORDERS_SHOWN) -> str:
    """Every kernel family and order with its exact figures, as an aligned table."""
    kernels: list[tuple[str, Kernel]] = [("constant (MeZO)", ConstantKernel())]
    kernels += [
        (density, PolynomialKernel(density, order)) for density in DENSITIES for order in orders
    ]
    header = ("family", "density of r", "order", "K(r)", "E[rK]", "V_n", "V_s", "lead")
    rows = [header] + [
        (
            family,
            kernel.density_formula,
            str(kernel.order),
            kernel.formula,
            str(kernel.expectation(1)),
            str(kernel.noise_amplification),
            str(kernel.signal_variance),
            str(kernel.lead),
        )
        for family, kernel in kernels
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    """Print the table and what its columns mean."""
    print(format_table())
    print(
        "\nK(r) weights a loss difference at radius r; the bias of the estimate is O(eps^order)."
        "\nV_n = E[K^2] amplifies loss noise, V_s = E[(rK)^2] is the variance without it (MeZO: 1);"
        "\nlead = E[r^(order+1) K] is the factor of the first bias term that is left."
    )


if __name__ == "__main__":
    main()
