"""Kernels of finitely many radii: the central difference, and Richardson extrapolation of it."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import math
from fractions import Fraction

from kerzoo.kernels.base import Kernel, Node, OneNodeKernel, check_order


@dataclasses.dataclass(frozen=True)
class ConstantKernel(OneNodeKernel):
    """MeZO: r ≡ 1 and K ≡ 1, the central difference along u. Its bias is O(ε²).

    Source: Malladi et al. 2023, arXiv 2305.17333.
    """

    order = 2
    has_bandwidth = False
    family = "constant (MeZO)"
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
class DiscreteKernel(OneNodeKernel):
    """Randomised Richardson extrapolation: one of its nodes at random, at the price of MeZO.

    With the nodes r_i and weights w_i of `richardson_weights` and S = Σ_i |w_i|,

        P(r_i) = |w_i| / S,    K(r_i) = w_i / (P(r_i)·r_i),    r_i·K(r_i) = ±S.

    These probabilities give the least V_s that the nodes allow, S². There is no bandwidth: the
    nodes are no interval, and shrinking them is a schedule of ε.

    Args:
        order: m, even and ≥ 4.

    Raises:
        ValueError: For an order that is odd or below 4.
    """

    order: int

    has_bandwidth = False
    family = "discrete"

    def __post_init__(self) -> None:
        check_order(self.order, smallest=4)

    @functools.cached_property
    def probabilities(self) -> dict[Fraction, Fraction]:
        """P(r_i) by r_i, exactly; smallest radius first. Length: m/2."""
        weights = richardson_weights(self.order)
        total = sum(map(abs, weights.values()), Fraction(0))
        return {r: abs(w) / total for r, w in weights.items()}

    @functools.cached_property
    def values(self) -> dict[Fraction, Fraction]:
        """K(r_i) by r_i, exactly. Length: m/2."""
        weights = richardson_weights(self.order)
        return {r: weights[r] / (p * r) for r, p in self.probabilities.items()}

    @functools.cached_property
    def _floats(self) -> tuple[list[float], list[float], dict[float, float]]:
        """The radii, the probability of that radius or a smaller one, K by radius."""
        cumulative = itertools.accumulate(self.probabilities.values())
        weights = {float(r): float(value) for r, value in self.values.items()}
        return list(weights), [float(p) for p in cumulative], weights

    def radius(self, u: float) -> float:
        """The least node whose cumulative probability exceeds u."""
        radii, cumulative, _ = self._floats
        return radii[bisect.bisect_right(cumulative, u)]

    def weight(self, r: float) -> float:
        """K(r) at one of the nodes.

        Raises:
            ValueError: If r is none of them.
        """
        radii, _, weights = self._floats
        if r not in weights:
            raise ValueError(f"r must be one of {radii}, got {r}")
        return weights[r]

    def expectation(self, power: int, kernel_power: int = 1) -> Fraction:
        """Σ_i P(r_i)·r_i^power·K(r_i)^kernel_power."""
        terms = (
            p * r**power * self.values[r] ** kernel_power for r, p in self.probabilities.items()
        )
        return sum(terms, Fraction(0))

    @property
    def density_formula(self) -> str:
        """The nodes and their probabilities."""
        return ", ".join(f"{r}: {p}" for r, p in self.probabilities.items())

    @property
    def formula(self) -> str:
        """K at each node."""
        return ", ".join(f"{value} at {r}" for r, value in self.values.items())


@dataclasses.dataclass(frozen=True)
class RichardsonKernel(Kernel):
    """Richardson extrapolation: all nodes on the same direction, at m forward passes.

    With the nodes r_i and weights w_i of `richardson_weights`, K_i = w_i / r_i. Nothing is random:
    V_s = (Σ_i w_i)² = 1, V_n = Σ_i K_i². There is no bandwidth, as in `DiscreteKernel`.

    Args:
        order: m, even and ≥ 4.

    Raises:
        ValueError: For an order that is odd or below 4.
    """

    order: int

    has_bandwidth = False
    family = "Richardson"

    def __post_init__(self) -> None:
        check_order(self.order, smallest=4)

    @property
    def num_nodes(self) -> int:
        """m/2."""
        return self.order // 2

    @functools.cached_property
    def values(self) -> dict[Fraction, Fraction]:
        """K_i by r_i, exactly; smallest radius first. Length: m/2."""
        return {r: w / r for r, w in richardson_weights(self.order).items()}

    @functools.cached_property
    def _nodes(self) -> tuple[Node, ...]:
        return tuple(Node(float(r), float(value)) for r, value in self.values.items())

    def draw(self, u: float, half_width: float = 1.0, rescale: bool = True) -> tuple[Node, ...]:
        """All nodes, whatever u."""
        return self._nodes

    def expectation(self, power: int, kernel_power: int = 1) -> Fraction:
        """Σ_i r_i^power·K_i^kernel_power."""
        terms = (r**power * value**kernel_power for r, value in self.values.items())
        return sum(terms, Fraction(0))

    @property
    def signal_variance(self) -> Fraction:
        """V_s = (Σ_i r_i K_i)² = 1."""
        return self.expectation(1) ** 2

    @property
    def density_formula(self) -> str:
        """The nodes."""
        return "all of " + ", ".join(map(str, self.values))

    @property
    def formula(self) -> str:
        """K at each node."""
        return ", ".join(f"{value} at {r}" for r, value in self.values.items())


def richardson_weights(order: int) -> dict[Fraction, Fraction]:
    """The weights that extrapolate central differences at the nodes r_i = i/k, k = m/2, to r = 0.

    They solve Σ_i w_i = 1 and Σ_i w_i r_i^(2j) = 0 for j = 1 … k − 1; by Lagrange's formula
    w_i = Π_{j≠i} j² / (j² − i²).

    >>> [str(w) for w in richardson_weights(4).values()]
    ['4/3', '-1/3']

    Args:
        order: m, even.

    Returns:
        w_i by r_i, smallest radius first. Length: m/2.
    """
    nodes = range(1, order // 2 + 1)
    return {
        Fraction(i, len(nodes)): math.prod(
            (Fraction(j * j, j * j - i * i) for j in nodes if j != i), start=Fraction(1)
        )
        for i in nodes
    }
