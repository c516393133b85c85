"""The contract of the trainable parameters as one vector θ, wherever its parts lie."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from kerzoo.weights.flat import FlatWeights

Factors = tuple[float, ...]
"""One number for all tensors, or one for each tensor in order."""


class Weights(abc.ABC):
    """The contract: θ ∈ R^d under one numbering of its elements, kept in one or more shards.

    The numbering is that of the parameters in their order. Noise is a function of the offset in
    it, so that nothing that is added to θ depends on how many shards there are.

    Attributes:
        parameters: The trainable parameters.
        sizes: Number of elements of each.
    """

    parameters: tuple[nn.Parameter, ...]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    @abc.abstractmethod
    def shards(self) -> tuple[FlatWeights, ...]:
        """What θ is made of, in order: a flat vector each, on one device."""

    @abc.abstractmethod
    def perturb_(self, key: int, scales: Factors) -> None:
        """Let the model compute with θ + scales·u(key)."""

    @abc.abstractmethod
    def restore_(self) -> None:
        """Let the model compute with θ."""

    @abc.abstractmethod
    def move_(self, key: int, factors: Factors) -> None:
        """θ ← θ + factors·u(key). The model computes with it once `restore_` was called."""

    @abc.abstractmethod
    def retrace_(self, key: int, points: Sequence[Factors]) -> None:
        """Leave θ with the bits that perturbing to each point in turn would."""

    @abc.abstractmethod
    def adopt_(self) -> None:
        """Take over parameters that somebody wrote to from outside."""

    @abc.abstractmethod
    def squared_norms(self, keys: Sequence[int], factors: Sequence[Factors]) -> list[float]:
        """|Σ_i factors_i·u_i|² of each tensor. Takes one fp32 vector of length d for the time.

        Args:
            keys: Of the directions. Length: n.
            factors: Of each direction. Length: n.

        Returns:
            Length: number of tensors.
        """

    @property
    def tensors(self) -> list[torch.Tensor]:
        """θ tensor by tensor, to be changed by whoever calls `restore_` afterwards."""
        return [tensor for shard in self.shards for tensor in shard.split(shard.theta)]

    def share(self, factors: Factors) -> list[Factors]:
        """The factors that concern each shard's tensors."""
        if len(factors) == 1:
            return [factors] * len(self.shards)
        left = iter(factors)
        return [tuple(itertools.islice(left, len(shard.sizes))) for shard in self.shards]

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """A copy of a vector that is kept in shards, as one; on the CPU where there are several.

        Args:
            parts: One for each shard.

        Returns:
            Shape: [d].
        """
        return parts[0].clone() if len(parts) == 1 else torch.cat([part.cpu() for part in parts])

    def cut(self, vector: torch.Tensor) -> Sequence[torch.Tensor]:
        """What of a vector each shard has. Shape: [d]."""
        return torch.split(vector, [len(shard) for shard in self.shards])


def pair(a: Factors, b: Factors) -> Iterator[tuple[float, float]]:
    """Factors of two kinds tensor by tensor; a single one stands for all tensors."""
    length = max(len(a), len(b))
    return zip(a * (length // len(a)), b * (length // len(b)), strict=True)
