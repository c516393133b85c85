"""The trainable parameters as one flat vector θ, and how the model comes to compute with θ + a·u.

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
from typing import Literal

import torch
from torch import nn

from kerzoo.noise import Gaussian, Perturbation, derive_key, noise_engine, num_stored_directions
from kerzoo.noise.engine import Stretches

Factors = tuple[float, ...]
"""One number for all tensors, or one for each tensor in order."""

Precision = Literal["master", "inplace", "inplace_half"]
PRECISIONS: tuple[Precision, ...] = ("master", "inplace", "inplace_half")


class FlatWeights(abc.ABC):
    """Flat view of the trainable parameters, with keyed perturbations and updates.

    Args:
        parameters: The trainable parameters, in a fixed order: offsets, and with them the noise,
            follow from it. One device, one floating dtype. They become views of one buffer.
        perturbation: The law of the directions.
        num_threads: Threads for the noise (CPU only); changes no bit of the result.
        num_stored: Directions kept in memory (CPU only); changes no bit of the result.

    Attributes:
        working: What the model computes with. Shape: [d], the parameters' dtype.
        sizes: Number of elements of each tensor.

    Raises:
        ValueError: Without parameters, or with several devices or dtypes.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        perturbation: Perturbation,
        num_threads: int = 1,
        num_stored: int = 0,
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
        self.noise = noise_engine(len(self), perturbation, device, num_threads, num_stored)

    def __len__(self) -> int:
        return self.working.numel()

    @property
    @abc.abstractmethod
    def theta(self) -> torch.Tensor:
        """θ, to be changed by whoever calls `restore_` afterwards. Shape: [d]."""

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
        """|Σ_i factors_i·u_i|² of each tensor. Takes one fp32 vector of length d for the time.

        Args:
            keys: Of the directions. Length: n.
            factors: Of each direction. Length: n.

        Returns:
            Length: number of tensors.
        """
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
        num_stored: int = 0,
    ) -> None:
        super().__init__(parameters, perturbation, num_threads, num_stored)
        self.master = self.working.to(
            torch.promote_types(self.working.dtype, torch.float32)
        ).clone()

    @property
    def theta(self) -> torch.Tensor:
        """The master copy."""
        return self.master

    def perturb_(self, key: int, scales: Factors) -> None:
        """working ← cast(θ + scales·u(key)); θ stays."""
        self.noise.add(key, self._stretches(scales), self.master, self.working)

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

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        perturbation: Perturbation,
        num_threads: int = 1,
        num_stored: int = 0,
    ) -> None:
        super().__init__(parameters, perturbation, num_threads, num_stored)
        self._displaced: tuple[int, Factors] | None = None

    @property
    def theta(self) -> torch.Tensor:
        """The working buffer, restored."""
        self.restore_()
        return self.working

    def perturb_(self, key: int, scales: Factors) -> None:
        """Add what leads from the present point to θ + scales·u(key)."""
        self._go(key, scales)

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
        """Nothing: what was written is θ."""
        self.check_attached()

    def _go(self, key: int, scales: Factors) -> None:
        """From the present point to θ + scales·u(key)."""
        if self._displaced is not None and self._displaced[0] != key:
            self.restore_()
        present = self._displaced[1] if self._displaced else (0.0,)
        self._displaced = (key, scales)  # before moving: after an exception the way back is known
        self.add_(self.working, key, tuple(a - b for a, b in pair(scales, present)))


def flatten(
    parameters: Iterable[nn.Parameter],
    perturbation: Perturbation,
    precision: Precision = "master",
    num_threads: int = 1,
    noise_memory_gib: float = 0.0,
    num_directions: int = 1,
) -> FlatWeights:
    """The weights under a precision policy that `check_precision` passed.

    Args:
        parameters: As for `FlatWeights`.
        perturbation: The law of the directions.
        precision: "master"; "inplace" for fp32; "inplace_half" for half precision in place.
        num_threads: For the noise.
        noise_memory_gib: For directions that are kept during a step (CPU only).
        num_directions: Directions of a step.
    """
    parameters = tuple(parameters)
    size = sum(p.numel() for p in parameters)
    num_stored = num_stored_directions(noise_memory_gib, size, num_directions) if size else 0
    policies: dict[str, type[FlatWeights]] = {
        "master": MasterWeights,
        "inplace": InPlaceWeights,
        "inplace_half": InPlaceWeights,
    }
    return policies[precision](parameters, perturbation, num_threads, num_stored)


def check_precision(precision: str, dtype: torch.dtype, perturbation_scale: float = 1e-3) -> None:
    """Refuse half precision in place, unless it is asked for by name.

    Raises:
        ValueError: With the drift that was measured for the dtype and ε.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    half = dtype in (torch.float16, torch.bfloat16)
    name = str(dtype).removeprefix("torch.")
    if precision == "inplace" and half:
        drift = measure_drift(dtype, perturbation_scale)
        raise ValueError(
            f"precision=inplace with {name} weights: perturbing and restoring rounds, and "
            f"{DRIFT_STEPS} steps without any update move weights of spread {DRIFT_SPREAD} by "
            f"{drift:.1%} of that spread at perturbation_scale={perturbation_scale:g} (just "
            "measured). Choose precision=master, which keeps θ in fp32 and does not drift, or "
            "ask for the drift by name with precision=inplace_half"
        )
    if precision == "inplace_half" and not half:
        raise ValueError(f"precision=inplace_half is for half precision, got {name} weights")


DRIFT_STEPS = 1000
DRIFT_SPREAD = 0.03
"""Standard deviation of a language model's weights, roughly."""


def measure_drift(
    dtype: torch.dtype, perturbation_scale: float, num_steps: int = DRIFT_STEPS
) -> float:
    """How far perturbing in place, without any update, moves weights.

    Args:
        dtype: Of 4096 weights drawn from N(0, .03²).
        perturbation_scale: ε of MeZO's steps: +ε·u, −2ε·u, +ε·u.
        num_steps: How many of them.

    Returns:
        Root mean square of the movement, relative to that of the weights.
    """
    generator = torch.Generator().manual_seed(0)
    start = (DRIFT_SPREAD * torch.randn(4096, generator=generator)).to(dtype)
    weights = InPlaceWeights([nn.Parameter(start.clone())], Gaussian())
    for step in range(num_steps):
        key = derive_key(0, "directions", step)
        weights.retrace_(key, [(perturbation_scale,), (-perturbation_scale,)])
        weights.restore_()
    moved = weights.working.double() - start.double()
    return float(moved.norm() / start.double().norm())


def pair(a: Factors, b: Factors) -> Iterator[tuple[float, float]]:
    """Factors of two kinds tensor by tensor; a single one stands for all tensors."""
    length = max(len(a), len(b))
    return zip(a * (length // len(a)), b * (length // len(b)), strict=True)
