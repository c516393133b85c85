"""Bandwidths."""

from __future__ import annotations

import pytest

from kerzoo.schedules import ConstantBandwidth, LinearBandwidth


def test_a_linear_bandwidth_shrinks_to_its_floor_and_stays_there() -> None:
    bandwidth = LinearBandwidth(half_width=1.0, floor=0.05)
    widths = [bandwidth.half_width_at(step, 100) for step in range(100)]
    assert widths[0] == 1.0
    assert widths[50] == pytest.approx(0.5)
    assert widths == sorted(widths, reverse=True)
    assert min(widths) == 0.05


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, float("nan")])
def test_a_half_width_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"half_width must lie in \(0, 1\]"):
        ConstantBandwidth(value)


def test_a_floor_above_the_half_width_is_refused() -> None:
    with pytest.raises(ValueError, match="floor must not exceed half_width"):
        LinearBandwidth(half_width=0.1, floor=0.2)
