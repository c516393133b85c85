"""Schedules: factors over the steps of a run, for the bandwidth, the learning rate and ε.

A schedule is a factor f(t) of a value's start, for step t of T. The bandwidth is the half-width
d_t of the interval that r is drawn from. With a kernel K for ρ on [−1, 1], a step at half-width d
draws r = d·ρ and weighs it by

    rescaled:    K_d(r) = K(r / d) / d     E[r·K_d] = E[ρ·K]; bias ∝ (ε·d)^m, V_s kept, V_n / d²
    unrescaled:  K(r)                      E[r·K] = m(d), a hidden factor on the learning rate

A kernel without a bandwidth (`Kernel.has_bandwidth` false: MeZO) ignores it.
"""

from __future__ import annotations

import abc
import dataclasses
import math

from kerzoo.kernels import Kernel

DEFAULT_FLOOR = 0.05


class Schedule(abc.ABC):
    """The contract: a factor for every step of a run."""

    @abc.abstractmethod
    def factor_at(self, step: int, num_steps: int | None) -> float:
        """f(t).

        Args:
            step: t, 0 for the first update. From T on the factor stays as it is at T.
            num_steps: T, the length of the whole schedule in steps; None where nobody knows.

        Raises:
            ValueError: If the factor changes with time and `num_steps` is None.
        """


@dataclasses.dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """f(t) = 1."""

    def factor_at(self, step: int, num_steps: int | None) -> float:
        """Always 1."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class _FallingSchedule(Schedule):
    """A factor that falls from 1 towards 0, but not below a floor.

    Args:
        floor: The least factor, in [0, 1].
    """

    floor: float = DEFAULT_FLOOR

    def __post_init__(self) -> None:
        if not 0.0 <= self.floor <= 1.0:
            raise ValueError(f"floor must lie in [0, 1], got {self.floor}")

    def factor_at(self, step: int, num_steps: int | None) -> float:
        """max(shape(t / T), floor)."""
        if num_steps is None:
            raise ValueError(f"num_steps is needed by {type(self).__name__}, got None")
        return max(self._shape(min(step / num_steps, 1.0)), self.floor)

    @abc.abstractmethod
    def _shape(self, progress: float) -> float:
        """The factor without a floor; `progress` is t / T in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class LinearSchedule(_FallingSchedule):
    """f(t) = max(1 − t / T, floor)."""

    def _shape(self, progress: float) -> float:
        return 1.0 - progress


@dataclasses.dataclass(frozen=True)
class CosineSchedule(_FallingSchedule):
    """f(t) = max((1 + cos(π·t / T)) / 2, floor)."""

    def _shape(self, progress: float) -> float:
        return (1.0 + math.cos(math.pi * progress)) / 2.0


@dataclasses.dataclass(frozen=True)
class StepwiseSchedule(_FallingSchedule):
    """f(t) = max(ratio^⌊stages · t / T⌋, floor): equal stretches, each at a fraction of the last.

    Args:
        floor: The least factor, in [0, 1].
        ratio: Of one stretch to the one before, in (0, 1).
        num_stages: How many stretches, ≥ 1.
    """

    ratio: float = 0.5
    num_stages: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.ratio < 1.0:
            raise ValueError(f"ratio must lie in (0, 1), got {self.ratio}")
        if self.num_stages < 1:
            raise ValueError(f"num_stages must be at least 1, got {self.num_stages}")

    def _shape(self, progress: float) -> float:
        return self.ratio ** min(math.floor(progress * self.num_stages), self.num_stages - 1)


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """The half-width d_t = half_width · f(t), and whether the kernel is rescaled to it.

    The schedule's floor keeps ε·d·u above what the weights' precision resolves: of fp16 weights
    of spread .03, half do not move at all at ε = 1e-3 and r = .01.

    Args:
        half_width: d at the first step, in (0, 1].
        schedule: f.
        rescale: Whether K_d(r) = K(r / d) / d is used in place of K(r).

    Raises:
        ValueError: For a half-width outside (0, 1].
    """

    half_width: float = 1.0
    schedule: Schedule = dataclasses.field(default_factory=ConstantSchedule)
    rescale: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.half_width) and 0.0 < self.half_width <= 1.0):
            raise ValueError(f"half_width must lie in (0, 1], got {self.half_width}")
        if not self.schedule.factor_at(1, 1) > 0.0:
            raise ValueError("schedule must have a floor > 0: r would be 0 at the end")

    def half_width_at(self, step: int, num_steps: int | None) -> float:
        """d_t, in (0, 1]."""
        return self.half_width * self.schedule.factor_at(step, num_steps)


@dataclasses.dataclass(frozen=True)
class KernelGain(Schedule):
    """f(t) = m(d_t) = E[r·K(r)]: the factor that an unrescaled kernel hides in the learning rate.

    As the learning rate's schedule of MeZO it makes the control arm that takes steps of the same
    mean length as the kernel's, without its randomness of r.

    Args:
        kernel: K.
        bandwidth: d_t, and whether K is rescaled.
    """

    kernel: Kernel
    bandwidth: Bandwidth

    def factor_at(self, step: int, num_steps: int | None) -> float:
        """m(d_t)."""
        return gain_at(self.kernel, self.bandwidth, step, num_steps)


def gain_at(kernel: Kernel, bandwidth: Bandwidth, step: int, num_steps: int | None) -> float:
    """m(d_t) = E[r·K_d(r)] at a step: what the mean of the estimate is multiplied by."""
    if not kernel.has_bandwidth:
        return kernel.gain()
    return kernel.gain(bandwidth.half_width_at(step, num_steps), bandwidth.rescale)
