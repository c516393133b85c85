"""Parameters of one device as a flat vector θ, and how the model comes to compute with θ + a·u.

The model's parameters become views of one flat working buffer in the model's own dtype. Two
policies say where θ is kept:

    master    θ apart, in fp32. Perturbing writes working = cast(θ + a·u) and never touches θ: no
              drift in any dtype, one rounding a pass, and a forward that raises leaves θ exactly
              as it was. Costs one more copy of the trainable parameters.
    inplace   θ is the working buffer. Perturbing adds a·u to it and restoring subtracts it again,
              which rounds: in 1000 steps a drift of some 2e-6 of the weights' spread in fp32, and
              of 2 to 13 % of it in half precision (`measure_drift`).

Factors of u are given one for all tensors, or one for each: a radius per tensor, a learning rate
per parameter group and a clipped tensor are all factors.
"""

from __future__ import annotations

import abc
import bisect
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from kerzoo.noise import Perturbation, noise_engine
from kerzoo.noise.engine import Stretches
from kerzoo.weights.base import Factors, Weights, pair


class FlatWeights(Weights):
    """Flat view of the trainable parameters of one device: the whole of θ, or a shard of it.

    Args:
        parameters: The trainable parameters, in a fixed order: offsets, and with them the noise,
            follow from it. One device, one floating dtype. They become views of one buffer.
        perturbation: The law of the directions.
        num_threads: Threads for the noise (CPU only); changes no bit of the result.
        start: Offset of the first element in the whole of θ.
        total: Length of the whole of θ; None where this is all of it.

    Attributes:
        working: What the model computes with. Shape: [d], the parameters' dtype.

    Raises:
        ValueError: Without parameters, or with several devices or dtypes.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        perturbation: Perturbation,
        num_threads: int = 1,
        start: int = 0,
        total: int | None = None,
    ) -> None:
        self.parameters = tuple(parameters)
        if not self.parameters:
            raise ValueError("parameters must not be empty: nothing is trainable")
        kinds = {(p.device, p.dtype) for p in self.parameters}
        if len(kinds) > 1:
            raise ValueError(
                f"parameters must share one device and dtype, got {sorted(map(str, kinds))}"
            )
        device, dtype = kinds.pop()
        if not dtype.is_floating_point:
            raise ValueError(f"parameters must be floating point, got {dtype}")
        self.sizes = tuple(p.numel() for p in self.parameters)
        self._ends = list(itertools.accumulate(self.sizes))
        self.working = torch.empty(self._ends[-1], dtype=dtype, device=device)
        for parameter, view in zip(self.parameters, self.split(self.working), strict=True):
            view.copy_(parameter.data)
            parameter.data = view
        part = slice(start, start + len(self))
        total = len(self) if total is None else total
        self.noise = noise_engine(total, perturbation, device, num_threads, part)

    def __len__(self) -> int:
        return self.working.numel()

    @property
    def shards(self) -> tuple[FlatWeights, ...]:
        """One."""
        return (self,)

    @property
    @abc.abstractmethod
    def theta(self) -> torch.Tensor:
        """θ, to be changed by whoever calls `restore_` afterwards. Shape: [d]."""

    @abc.abstractmethod
    def write_(self, target: torch.Tensor, key: int, scales: Factors) -> None:
        """target ← cast(θ + scales·u(key)); θ and the model stay. Shape of target: [d]."""

    def check_attached(self) -> None:
        """See that the model still computes with the working buffer.

        Raises:
            ValueError: If its parameters were moved or cast, and are views of it no more.
        """
        for parameter, view in zip(self.parameters, self.split(self.working), strict=True):
            if parameter.data_ptr() != view.data_ptr():
                raise ValueError(
                    "parameters must stay where they are: the model was moved or cast (.to, .half, "
                    ".double) after the optimizer was made; do that before"
                )

    def split(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Views of a flat vector, of the tensors' shapes."""
        pieces = torch.split(flat, list(self.sizes))
        return [v.view(p.shape) for v, p in zip(pieces, self.parameters, strict=True)]

    def add_(self, target: torch.Tensor, key: int, factors: Factors) -> None:
        """target ← target + factors·u(key).

        Args:
            target: Shape: [d].
            key: Of the direction.
            factors: One for all tensors, or one for each.
        """
        self.noise.add(key, self._stretches(factors), target, target)

    def squared_norms(self, keys: Sequence[int], factors: Sequence[Factors]) -> list[float]:
        """Summed chunk by chunk."""
        total = torch.zeros(len(self), device=self.working.device)
        for key, factor in zip(keys, factors, strict=True):
            self.add_(total, key, factor)
        return [
            self.noise.sum_of_squares(tensor) for tensor in torch.split(total, list(self.sizes))
        ]

    def _stretches(self, factors: Factors) -> Stretches:
        return functools.partial(self.pieces, factors=factors)

    def _tensors(self, where: slice) -> Iterator[tuple[int, slice]]:
        """The tensors that a range touches, and their parts of it."""
        index = bisect.bisect_right(self._ends, where.start)
        start = where.start
        while start < where.stop:
            stop = min(self._ends[index], where.stop)
            if stop > start:
                yield index, slice(start, stop)
            start = stop
            index += 1

    def pieces(self, where: slice, factors: Factors) -> Iterator[tuple[slice, float]]:
        """The stretches of a range that have one factor."""
        if len(factors) == 1:
            yield where, factors[0]
            return
        parts = self._tensors(where)
        for factor, group in itertools.groupby(parts, key=lambda part: factors[part[0]]):
            stretch = [piece for _, piece in group]
            yield slice(stretch[0].start, stretch[-1].stop), factor


class MasterWeights(FlatWeights):
    """θ in fp32 beside the working copy: exact, in any dtype.

    Attributes:
        master: θ. Shape: [d], fp32; float64 where the parameters are.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        perturbation: Perturbation,
        num_threads: int = 1,
        start: int = 0,
        total: int | None = None,
    ) -> None:
        super().__init__(parameters, perturbation, num_threads, start, total)
        dtype = torch.promote_types(self.working.dtype, torch.float32)
        self.master = self.working.to(dtype, copy=True)

    @property
    def theta(self) -> torch.Tensor:
        """The master copy."""
        return self.master

    def perturb_(self, key: int, scales: Factors) -> None:
        """working ← cast(θ + scales·u(key)); θ stays."""
        self.write_(self.working, key, scales)

    def write_(self, target: torch.Tensor, key: int, scales: Factors) -> None:
        """The contract, from the master copy."""
        self.noise.add(key, self._stretches(scales), self.master, target)

    def restore_(self) -> None:
        """working ← cast(θ)."""
        self.working.copy_(self.master)

    def move_(self, key: int, factors: Factors) -> None:
        """The contract; the working copy stays."""
        self.add_(self.master, key, factors)

    def retrace_(self, key: int, points: Sequence[Factors]) -> None:
        """Nothing: perturbing leaves no trace in θ."""

    def adopt_(self) -> None:
        """θ ← working; in half precision only where working differs from cast(θ).

        θ holds more than the working copy does, and keeps it where nobody wrote.
        """
        self.check_attached()
        if self.working.dtype == self.master.dtype:
            self.master.copy_(self.working)
            return
        for where in self.noise.chunks:
            theta, working = self.master[where], self.working[where]
            kept = working == theta.to(working.dtype)
            theta.copy_(torch.where(kept, theta, working.to(theta.dtype)))


class InPlaceWeights(FlatWeights):
    """θ is the working buffer; every perturbation and its undoing round."""

    _displaced: tuple[int, Factors] | None = None

    @property
    def theta(self) -> torch.Tensor:
        """The working buffer, restored."""
        self.restore_()
        return self.working

    def perturb_(self, key: int, scales: Factors) -> None:
        """Add what leads from the present point to θ + scales·u(key)."""
        self._go(key, scales)

    def write_(self, target: torch.Tensor, key: int, scales: Factors) -> None:
        """The contract, which leaves no trace in θ."""
        self.noise.add(key, self._stretches(scales), self.theta, target)

    def restore_(self) -> None:
        """Subtract what was added."""
        if self._displaced is not None:
            self._go(self._displaced[0], (0.0,))
            self._displaced = None

    def move_(self, key: int, factors: Factors) -> None:
        """Restoring and moving are one addition where both are along the same direction."""
        self._go(key, factors)
        self._displaced = None

    def retrace_(self, key: int, points: Sequence[Factors]) -> None:
        """Perturb to each of them."""
        for point in points:
            self._go(key, point)

    def adopt_(self) -> None:
        """What was written is θ."""
        self.check_attached()
        self._displaced = None

    def _go(self, key: int, scales: Factors) -> None:
        """From the present point to θ + scales·u(key)."""
        if self._displaced is not None and self._displaced[0] != key:
            self.restore_()
        present = self._displaced[1] if self._displaced else (0.0,)
        self._displaced = (key, scales)  # before moving: after an exception the way back is known
        self.add_(self.working, key, tuple(a - b for a, b in pair(scales, present)))
