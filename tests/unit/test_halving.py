"""The halving rule: who goes on, and how many that will be."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.halving import HalvingRule

values = st.lists(st.floats(0, 10), max_size=30)


@given(values)
def test_a_first_arrival_and_the_best_of_all_always_go_on(others: list[float]) -> None:
    assert HalvingRule(3.0).goes_on(min([*others, 0.0]), others, [])


@given(values, st.floats(1.01, 10))
def test_a_value_that_is_not_finite_never_goes_on(others: list[float], factor: float) -> None:
    rule = HalvingRule(factor, survivors_per_arm=2)
    assert not rule.goes_on(math.inf, others, [])
    assert not rule.goes_on(math.nan, others, [])


@given(values.filter(len), st.floats(0, 10), st.integers(0, 3))
def test_a_better_value_never_does_worse(others: list[float], value: float, quota: int) -> None:
    rule = HalvingRule(2.0, quota)
    if rule.goes_on(value, others, others[:3]):
        assert rule.goes_on(value - 1, others, others[:3])


def test_ties_go_on() -> None:
    assert HalvingRule(3.0).goes_on(1.0, [1.0] * 8, [])


def test_an_arms_own_best_goes_on_among_better_trials_of_other_arms() -> None:
    others = [0.1] * 20
    assert not HalvingRule(3.0, 0).goes_on(0.9, others, [])
    assert HalvingRule(3.0, 1).goes_on(0.9, [*others, 0.95], [0.95])
    assert not HalvingRule(3.0, 1).goes_on(0.9, [*others, 0.85], [0.85])


def test_nothing_is_stopped_without_a_factor() -> None:
    assert HalvingRule(None).goes_on(9.0, [0.1] * 20, [])
    assert HalvingRule(None).fractions_running(3, 12, 3) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("factor", "quota"), [(3.0, 0), (3.0, 1), (2.0, 1), (4.0, 0)])
def test_the_expected_survivors_agree_with_simulated_arrivals(factor: float, quota: int) -> None:
    """2000 simulated rungs of 12 trials of 3 arms: within 15 % (the estimate takes the larger of
    two chances, their union is a little more)."""
    rule = HalvingRule(factor, quota)
    generator = random.Random(7)
    counts = []
    for _ in range(2000):
        seen: list[tuple[int, float]] = []
        survived = 0
        arrivals = [arm for arm in range(3) for _ in range(4)]
        generator.shuffle(arrivals)
        for arm in arrivals:
            value = generator.random()
            own = [v for a, v in seen if a == arm]
            survived += rule.goes_on(value, [v for _, v in seen], own)
            seen.append((arm, value))
        counts.append(survived)
    expected = rule.fractions_running(2, 12, 3)[1] * 12
    assert statistics.fmean(counts) == pytest.approx(expected, rel=0.15)


@given(st.floats(1.01, 10), st.integers(1, 5), st.integers(1, 60), st.integers(1, 6))
def test_fractions_fall_from_one(factor: float, rungs: int, trials: int, arms: int) -> None:
    fractions = HalvingRule(factor, 1).fractions_running(rungs, trials, arms)
    assert fractions[0] == 1.0
    assert fractions == sorted(fractions, reverse=True)
    assert len(fractions) == rungs
