"""Bandwidth: the half-width d of the interval that r is drawn from, as a function of the step.

With a kernel K for ρ on [−1, 1], a step at half-width d draws r = d·ρ and weighs it by

    rescaled:    K_d(r) = K(r / d) / d     E[r·K_d] = 1; bias ∝ (ε·d)^m, V_s as it was, V_n / d²
    unrescaled:  K(r)                      E[r·K] = m(d), a hidden factor on the learning rate

A kernel without a bandwidth (`Kernel.has_bandwidth` false: MeZO) ignores it.
"""

from __future__ import annotations

import abc
import dataclasses
import math

DEFAULT_FLOOR = 0.05


class Bandwidth(abc.ABC):
    """The contract: a half-width in (0, 1] for every step, and whether the kernel is rescaled."""

    rescale: bool

    @abc.abstractmethod
    def half_width_at(self, step: int, num_steps: int) -> float:
        """d at a step.

        Args:
            step: 0 for the first update.
            num_steps: The length of the whole schedule, in steps.
        """


@dataclasses.dataclass(frozen=True)
class ConstantBandwidth(Bandwidth):
    """The same half-width throughout.

    Args:
        half_width: d in (0, 1].
        rescale: Whether the kernel is rescaled to the interval.
    """

    half_width: float
    rescale: bool = True

    def __post_init__(self) -> None:
        _check_half_width("half_width", self.half_width)

    def half_width_at(self, step: int, num_steps: int) -> float:
        """`half_width`."""
        return self.half_width


@dataclasses.dataclass(frozen=True)
class LinearBandwidth(Bandwidth):
    """d falls linearly from `half_width` at the first step towards 0, but not below `floor`.

    d_t = max(half_width · (1 − t / T), floor). The floor keeps ε·d·u above what the weights'
    precision resolves.

    Args:
        half_width: d at the first step, in (0, 1].
        floor: The least d, in (0, half_width].
        rescale: Whether the kernel is rescaled to the interval.
    """

    half_width: float = 1.0
    floor: float = DEFAULT_FLOOR
    rescale: bool = True

    def __post_init__(self) -> None:
        _check_half_width("half_width", self.half_width)
        _check_half_width("floor", self.floor)
        if self.floor > self.half_width:
            raise ValueError(
                f"floor must not exceed half_width, got floor={self.floor} and "
                f"half_width={self.half_width}"
            )

    def half_width_at(self, step: int, num_steps: int) -> float:
        """max(half_width · (1 − step / num_steps), floor)."""
        return max(self.half_width * (1.0 - step / num_steps), self.floor)


def _check_half_width(name: str, value: float) -> None:
    if not (math.isfinite(value) and 0.0 < value <= 1.0):
        raise ValueError(f"{name} must lie in (0, 1], got {value}")
