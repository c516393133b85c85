"""The laws of a direction u."""

from __future__ import annotations

import abc
import dataclasses
import math

import torch


class Perturbation(abc.ABC):
    """The law of a direction u in R^d, with E[u] = 0 and E[u·uᵀ] = I.

    Attributes:
        on_sphere: Whether u is scaled to the norm √d after its values were drawn.
    """

    on_sphere = False

    @abc.abstractmethod
    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Fill a flat fp32 chunk with values of u, drawing from the generator alone."""

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

    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Standard normal values."""
        chunk.normal_(generator=generator)

    def from_bits(self, bits: torch.Tensor) -> torch.Tensor:
        """By Box and Muller."""
        return normal_from_bits(bits)


@dataclasses.dataclass(frozen=True)
class Sphere(Perturbation):
    """u uniform on the sphere of radius √d: a Gaussian direction scaled to that norm.

    For a linear loss E|g|² is V_s·d·|∇L|², against V_s·(d + 2)·|∇L|² with a Gaussian u.
    """

    on_sphere = True

    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Standard normal values, yet to be scaled."""
        chunk.normal_(generator=generator)

    def from_bits(self, bits: torch.Tensor) -> torch.Tensor:
        """By Box and Muller, yet to be scaled."""
        return normal_from_bits(bits)


@dataclasses.dataclass(frozen=True)
class Rademacher(Perturbation):
    """Coordinates ±1 with equal probability; |u|² = d exactly."""

    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Signs."""
        chunk.random_(0, 2, generator=generator).mul_(2.0).sub_(1.0)

    def from_bits(self, bits: torch.Tensor) -> torch.Tensor:
        """The highest bit is the sign."""
        return (bits >> 31).float().mul_(-2.0).add_(1.0)


def normal_from_bits(bits: torch.Tensor) -> torch.Tensor:
    """Box and Muller: √(−2 log u)·cos(2πv) and √(−2 log u)·sin(2πv), |z| < 6.8.

    Args:
        bits: As for `Perturbation.from_bits`; (0, 1) and (2, 3) make a pair each.

    Returns:
        Standard normal values. Shape: [4, n], fp32.
    """
    radius = torch.sqrt(-2.0 * torch.log(bits[0::2].float() * 2.0**-32 + 2.0**-33))
    angle = bits[1::2].float() * 2.0**-32 * (2.0 * math.pi)
    pairs = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return pairs.reshape(4, -1)
