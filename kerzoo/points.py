"""How the losses at the points of a step are found: one after another, or several together.

One after another the model itself is taken to each point. Together the points are written beside
θ, as rows of a buffer, and the closure computes with all of them in one forward pass: where what
is trained is small, as adapters are, their copies take turns along the batch and the rest of the
model is shared. That pays where a forward pass is bound by launches and not by arithmetic.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import torch

from kerzoo.weights import Factors, Weights

Visits = Sequence[tuple[int, Sequence[Factors]]]
"""For each direction its key, and the factors of u at the points on it, in order."""


class Evaluation(abc.ABC):
    """The contract: losses at points, and what finding them leaves in θ."""

    @abc.abstractmethod
    def losses(self, weights: Weights, closure: Callable[..., Any], visits: Visits) -> list[float]:
        """The loss at each point in turn.

        Args:
            weights: θ; whoever calls restores it.
            closure: The loss of one batch, the same at every call.
            visits: The points.
        """

    @abc.abstractmethod
    def retrace(self, weights: Weights, visits: Visits) -> None:
        """Leave θ with the bits that `losses` would."""


class Sequential(Evaluation):
    """The model computes with one point after another; `closure()` is the loss there."""

    def losses(self, weights: Weights, closure: Callable[..., Any], visits: Visits) -> list[float]:
        """The contract."""
        losses = []
        for key, points in visits:
            for point in points:
                weights.perturb_(key, point)
                losses.append(float(closure()))
        return losses

    def retrace(self, weights: Weights, visits: Visits) -> None:
        """In place, perturbing rounds."""
        for key, points in visits:
            weights.retrace_(key, points)


class Stacked(Evaluation):
    """Up to P points share a call; `closure(points)` returns the loss at each of them.

    `points` has a tensor for each parameter, in order: its values at the points, stacked along a
    first dimension. They are views of one buffer a device, which is overwritten by the next points
    and does not move. The last points of a step may be fewer than P. θ itself is never perturbed,
    under any precision policy, so that there is nothing to restore and nothing to retrace.

    Args:
        num_points: P ≥ 1.
    """

    def __init__(self, num_points: int) -> None:
        if num_points < 1:
            raise ValueError(f"points_per_forward must be at least 1, got {num_points}")
        self.num_points = num_points
        self._rows: list[torch.Tensor] = []
        self._views: dict[int, list[torch.Tensor]] = {}

    def losses(self, weights: Weights, closure: Callable[..., Any], visits: Visits) -> list[float]:
        """The contract.

        Raises:
            ValueError: If the closure does not return as many losses as there are points.
        """
        points = [(key, point) for key, own in visits for point in own]
        losses: list[float] = []
        for start in range(0, len(points), self.num_points):
            group = points[start : start + self.num_points]
            found = [float(loss) for loss in closure(self._write(weights, group))]
            if len(found) != len(group):
                raise ValueError(
                    f"closure must return a loss for each of {len(group)} points, got {len(found)}"
                )
            losses += found
        return losses

    def retrace(self, weights: Weights, visits: Visits) -> None:
        """Nothing."""

    def _write(self, weights: Weights, points: Sequence[tuple[int, Factors]]) -> list[torch.Tensor]:
        if not self._rows:
            size = self.num_points
            self._rows = [s.working.new_empty(size, len(s)) for s in weights.shards]
        for index, (key, factors) in enumerate(points):
            parts = zip(weights.shards, self._rows, weights.share(factors), strict=True)
            for shard, rows, own in parts:
                shard.write_(rows[index], key, own)
        count = len(points)
        if count not in self._views:
            self._views[count] = [
                piece.view(count, *parameter.shape)
                for shard, rows in zip(weights.shards, self._rows, strict=True)
                for piece, parameter in zip(
                    torch.split(rows[:count], list(shard.sizes), dim=1),
                    shard.parameters,
                    strict=True,
                )
            ]
        return self._views[count]


def evaluation_of(points_per_forward: int) -> Evaluation:
    """How so many points a forward pass are evaluated.

    Raises:
        ValueError: For less than one.
    """
    return Sequential() if points_per_forward == 1 else Stacked(points_per_forward)
