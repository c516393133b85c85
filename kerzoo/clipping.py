"""Clipping: bounds on what one estimate may move.

Kernels of order 4 and more have draws with r·K(r) < 0 and several times MeZO's size; a bound on
them is a choice of method, so it is named. All clip the estimate before momentum and learning
rate.
"""

from __future__ import annotations

import abc
import dataclasses
import math

from kerzoo.estimator import Estimate
from kerzoo.weights import Factors, Weights, pair


class Clipping(abc.ABC):
    """The contract: the coefficients of an estimate in, clipped ones out."""

    is_active: bool = True

    @abc.abstractmethod
    def clip(self, estimate: Estimate, weights: Weights) -> tuple[Factors, ...]:
        """The estimate's coefficients, clipped; one for all tensors or one for each."""


@dataclasses.dataclass(frozen=True)
class NoClipping(Clipping):
    """The estimate as it is."""

    is_active = False

    def clip(self, estimate: Estimate, weights: Weights) -> tuple[Factors, ...]:
        """Unchanged."""
        return estimate.coefficients


@dataclasses.dataclass(frozen=True)
class _BoundedClipping(Clipping):
    """A clipping with a bound.

    Args:
        bound: > 0.
    """

    bound: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise ValueError(f"bound must be > 0, got {self.bound}")


@dataclasses.dataclass(frozen=True)
class ProjectedGradientClipping(_BoundedClipping):
    """|pg·K(r)| ≤ bound on each direction, pg = ΔL / (2ε): does not depend on the dimension."""

    def clip(self, estimate: Estimate, weights: Weights) -> tuple[Factors, ...]:
        """Each coefficient c_i = pg_i·K / n, held within ±bound / n."""
        bound = self.bound / len(estimate.coefficients)
        return tuple(
            tuple(max(-bound, min(bound, c)) for c in factors) for factors in estimate.coefficients
        )


@dataclasses.dataclass(frozen=True)
class TensorNormClipping(_BoundedClipping):
    """|g_b| ≤ bound for each parameter tensor b, as KerZOO's released code clips (4e5).

    On a tensor of N elements it binds when |pg·K| exceeds about bound / √N.
    """

    def clip(self, estimate: Estimate, weights: Weights) -> tuple[Factors, ...]:
        """g_b scaled down to the bound where it is longer."""
        squares = weights.squared_norms(estimate.keys, estimate.coefficients)
        shrink = tuple(_shrink(square, self.bound) for square in squares)
        return tuple(tuple(a * b for a, b in pair(c, shrink)) for c in estimate.coefficients)


@dataclasses.dataclass(frozen=True)
class GlobalNormClipping(_BoundedClipping):
    """|g| ≤ bound for the whole estimate."""

    def clip(self, estimate: Estimate, weights: Weights) -> tuple[Factors, ...]:
        """g scaled down to the bound where it is longer."""
        squares = weights.squared_norms(estimate.keys, estimate.coefficients)
        shrink = _shrink(math.fsum(squares), self.bound)
        return tuple(tuple(c * shrink for c in factors) for factors in estimate.coefficients)


def _shrink(square: float, bound: float) -> float:
    return min(1.0, bound / math.sqrt(square)) if square > 0 else 1.0
