"""Schedules, and the bandwidth that follows one."""

from __future__ import annotations

import itertools

import pytest

from kerzoo.kernels import ConstantKernel, PolynomialKernel
from kerzoo.schedules import (
    Bandwidth,
    ConstantSchedule,
    CosineSchedule,
    KernelGain,
    LinearSchedule,
    Schedule,
    StepwiseSchedule,
)

FALLING = [LinearSchedule, CosineSchedule, StepwiseSchedule]
RELEASED = Bandwidth(1.0, LinearSchedule(1e-4), rescale=False)


def factors(schedule: Schedule, num_steps: int) -> list[float]:
    return [schedule.factor_at(step, num_steps) for step in range(num_steps)]


@pytest.mark.parametrize("kind", FALLING)
def test_a_falling_schedule_begins_at_one_never_rises_and_stays_above_its_floor(
    kind: type[LinearSchedule],
) -> None:
    values = factors(kind(floor=0.25), 100)
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert min(values) >= 0.25
    assert kind(floor=0.25).factor_at(1000, 100) == kind(floor=0.25).factor_at(100, 100)


def test_the_shapes_are_those_of_their_formulas() -> None:
    assert LinearSchedule(0.0).factor_at(25, 100) == pytest.approx(0.75)
    assert CosineSchedule(0.0).factor_at(50, 100) == pytest.approx(0.5)
    assert CosineSchedule(0.0).factor_at(25, 100) == pytest.approx((1 + 0.5**0.5) / 2)
    steps = factors(StepwiseSchedule(0.0, ratio=0.5, num_stages=4), 8)
    assert steps == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


@pytest.mark.parametrize("kind", FALLING)
def test_a_schedule_that_falls_needs_to_know_its_length(kind: type[LinearSchedule]) -> None:
    with pytest.raises(ValueError, match="num_steps is needed"):
        kind().factor_at(0, None)
    assert ConstantSchedule().factor_at(7, None) == 1.0


def test_a_bandwidth_shrinks_from_its_half_width_to_its_floor() -> None:
    bandwidth = Bandwidth(0.5, LinearSchedule(0.1))
    widths = [bandwidth.half_width_at(step, 100) for step in range(100)]
    assert widths[0] == 0.5
    assert widths[50] == pytest.approx(0.25)
    assert min(widths) == pytest.approx(0.05)


def test_the_gain_of_the_released_kernel_is_the_hidden_factor_of_theory() -> None:
    """m(d) = d²(25 − 21d²) for C = 4; d² for the linear kernel; 1 where it is rescaled."""
    released = KernelGain(PolynomialKernel("uniform", 4, first_moment=4), RELEASED)
    linear = KernelGain(PolynomialKernel("uniform", 2), RELEASED)
    rescaled = KernelGain(PolynomialKernel("uniform", 4), Bandwidth(1.0, LinearSchedule(0.05)))
    for step in range(0, 100, 7):
        d = max(1 - step / 100, 1e-4)
        assert released.factor_at(step, 100) == pytest.approx(d**2 * (25 - 21 * d**2))
        assert linear.factor_at(step, 100) == pytest.approx(d**2)
        assert rescaled.factor_at(step, 100) == pytest.approx(1.0)
    assert KernelGain(ConstantKernel(), RELEASED).factor_at(50, 100) == 1.0


def test_the_gain_peaks_where_the_interval_has_shrunk_to_three_quarters() -> None:
    gain = KernelGain(PolynomialKernel("uniform", 4, first_moment=4), RELEASED)
    values = factors(gain, 1000)
    peak = values.index(max(values))
    assert 1 - peak / 1000 == pytest.approx((25 / 42) ** 0.5, abs=0.01)
    rising, falling = values[: peak + 1], values[peak:]
    assert all(a <= b for a, b in itertools.pairwise(rising))
    assert all(a >= b for a, b in itertools.pairwise(falling))


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, float("nan")])
def test_a_half_width_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"half_width must lie in \(0, 1\]"):
        Bandwidth(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_floor_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"floor must lie in \[0, 1\]"):
        LinearSchedule(value)


@pytest.mark.parametrize("kind", [LinearSchedule, CosineSchedule])
def test_a_bandwidth_that_would_end_at_zero_is_refused(kind: type[LinearSchedule]) -> None:
    with pytest.raises(ValueError, match="floor > 0"):
        Bandwidth(1.0, kind(0.0))


@pytest.mark.parametrize(("ratio", "num_stages"), [(0.0, 4), (1.0, 4), (0.5, 0)])
def test_stages_outside_their_range_are_refused(ratio: float, num_stages: int) -> None:
    with pytest.raises(ValueError, match="must"):
        StepwiseSchedule(0.1, ratio, num_stages)
