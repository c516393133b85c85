"""The laws of a direction u."""

from __future__ import annotations

import abc
import dataclasses

import torch

from kerzoo.noise.normal import normal_from_bits


class Perturbation(abc.ABC):
    """The law of a direction u in R^d, with E[u] = 0 and E[u·uᵀ] = I.

    Attributes:
        on_sphere: Whether u is scaled to the norm √d after its values were drawn.
    """

    on_sphere = False

    @abc.abstractmethod
    def from_bits(self, bits: torch.Tensor) -> torch.Tensor:
        """Values of u from random bits, four at a time.

        Args:
            bits: Uniform in [0, 2³²). Shape: [4, n], int64.

        Returns:
            Shape: [4, n], fp32.
        """


@dataclasses.dataclass(frozen=True)
class Gaussian(Perturbation):
    """u ~ N(0, I), as MeZO and KerZOO draw it."""

    def from_bits(self, bits: torch.Tensor) -> torch.Tensor:
        """By Box and Muller."""
        return normal_from_bits(bits)


@dataclasses.dataclass(frozen=True)
class Sphere(Perturbation):
    """u uniform on the sphere of radius √d: a Gaussian direction scaled to that norm.

    For a linear loss E|g|² is V_s·d·|∇L|², against V_s·(d + 2)·|∇L|² with a Gaussian u.
    """

    on_sphere = True

    def from_bits(self, bits: torch.Tensor) -> torch.Tensor:
        """By Box and Muller, yet to be scaled."""
        return normal_from_bits(bits)


@dataclasses.dataclass(frozen=True)
class Rademacher(Perturbation):
    """Coordinates ±1 with equal probability; |u|² = d exactly."""

    def from_bits(self, bits: torch.Tensor) -> torch.Tensor:
        """The highest bit is the sign."""
        return (bits >> 31).float().mul_(-2.0).add_(1.0)
