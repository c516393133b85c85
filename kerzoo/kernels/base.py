"""The contract of a kernel: what it draws, and its exact figures."""

from __future__ import annotations

import abc
from fractions import Fraction
from typing import NamedTuple


class Node(NamedTuple):
    """One loss difference on a direction.

    Attributes:
        radius: r, in units of ε.
        weight: K(r), what the difference is multiplied by.
    """

    radius: float
    weight: float


class Kernel(abc.ABC):
    """A weight K(r) together with the law of r.

    Attributes:
        order: m, the order of the bias: O(ε^m). Even.
        has_bandwidth: Whether r comes from a continuous law, whose half-width d can shrink.
    """

    order: int
    has_bandwidth: bool

    @property
    def num_nodes(self) -> int:
        """Loss differences measured on each direction; each costs two forward passes."""
        return 1

    @abc.abstractmethod
    def draw(self, u: float, half_width: float = 1.0, rescale: bool = True) -> tuple[Node, ...]:
        """The differences to measure on one direction.

        Args:
            u: Uniform in [0, 1): all the randomness of the draw.
            half_width: d in (0, 1]; ignored by a kernel without a bandwidth.
            rescale: Whether K_d(r) = K(r / d) / d is used in place of K(r).

        Returns:
            Length: `num_nodes`.
        """

    @abc.abstractmethod
    def expectation(self, power: int, kernel_power: int = 1) -> Fraction:
        """E[Σ r^power · K(r)^kernel_power] over the nodes of a draw at d = 1, exactly.

        Args:
            power: Of r, ≥ 0.
            kernel_power: Of K, 1 or 2.
        """

    @property
    @abc.abstractmethod
    def family(self) -> str:
        """What kernels that differ in their order alone have in common, in a word or two."""

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
        """V_n = E[Σ K²]: amplification of independent loss noise, relative to MeZO."""
        return self.expectation(0, kernel_power=2)

    @property
    def signal_variance(self) -> Fraction:
        """V_s = E[(Σ rK)²]: variance for noiseless losses, relative to MeZO."""
        return self.expectation(2, kernel_power=2)

    @property
    def lead(self) -> Fraction:
        """E[Σ r^(m+1)·K]: the factor of the first bias term that is left."""
        return self.expectation(self.order + 1)

    def gain(self, half_width: float = 1.0, rescale: bool = True) -> float:
        """m(d) = E[Σ rK] of what `draw` returns: what the mean of the estimate is multiplied by.

        Rescaled, or without a bandwidth, it is E[rK] at d = 1; unrescaled it depends on d.

        Args:
            half_width: d in (0, 1].
            rescale: As in `draw`.
        """
        return float(self.expectation(1))


class OneNodeKernel(Kernel):
    """A kernel that measures one difference on a direction, at a random radius or a fixed one."""

    @abc.abstractmethod
    def radius(self, u: float) -> float:
        """ρ for a uniform u in [0, 1), by inversion of the law of r at d = 1."""

    @abc.abstractmethod
    def weight(self, r: float) -> float:
        """K(r)."""

    def draw(self, u: float, half_width: float = 1.0, rescale: bool = True) -> tuple[Node, ...]:
        """(dρ, K(ρ) / d) rescaled, (dρ, K(dρ)) unrescaled, (ρ, K(ρ)) without a bandwidth."""
        rho = self.radius(u)
        if not self.has_bandwidth:
            return (Node(rho, self.weight(rho)),)
        if rescale:
            return (Node(half_width * rho, self.weight(rho) / half_width),)
        return (Node(half_width * rho, self.weight(half_width * rho)),)


def check_order(order: int, smallest: int = 2) -> None:
    """See that an order is an even integer.

    Args:
        order: m.
        smallest: The least order that the family has.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(order, bool) or not isinstance(order, int):
        raise ValueError(f"order must be an integer, got {order!r}")
    if order < smallest or order % 2:
        raise ValueError(f"order must be even and ≥ {smallest}, got {order}")
