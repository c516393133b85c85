"""Early stopping on thousands of simulated trials: the quota, the order, what it costs."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

import pytest
from bench.halving import SCHEDULERS, STUDY, compare, make_curves, read_curves, regrets, resample
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.schedulers import Scheduler, StratifiedASHA, SynchronousHalving, Verdict
from sweeps.schedulers.simulation import Curve, simulate

each_scheduler = pytest.mark.parametrize("name", SCHEDULERS)
VALUES = st.floats(0, 10) | st.just(math.inf)
TRIALS = st.lists(
    st.tuples(st.sampled_from("abc"), st.tuples(VALUES, VALUES, VALUES)), min_size=1, max_size=30
)


def curves_of(trials: list[tuple[str, tuple[float, float, float]]]) -> list[Curve]:
    return [
        Curve(f"t{i}", arm, "one", (36, 72, 144), values) for i, (arm, values) in enumerate(trials)
    ]


def check_run(scheduler: Scheduler, curves: list[Curve], seed: int, num_slots: int) -> None:
    """No decision rests on a missing rung, and each arm keeps its quota at each rung."""
    by_trial = {curve.trial: curve for curve in curves}
    judged: dict[tuple[object, ...], list[Verdict]] = defaultdict(list)

    def watch(verdict: Verdict, arrived: Mapping[str, int]) -> None:
        index = by_trial[verdict.entrant.trial].rungs.index(verdict.rung)
        for trial, value in verdict.compared.items():
            known = by_trial[trial].values[: arrived[trial]]
            assert len(known) > index or math.inf in known
            assert math.isinf(value) == (math.inf in known[: index + 1])
            if isinstance(scheduler, StratifiedASHA) and math.isfinite(value):
                assert value == known[index]
        judged[verdict.entrant.group, verdict.rung, verdict.entrant.arm].append(verdict)

    outcome = simulate(scheduler, curves, num_slots, seed, watch)
    for trial, passes in outcome.forward_passes.items():
        assert passes > 0
        assert (passes == by_trial[trial].rungs[-1]) == (trial in outcome.finished)
    for trial in outcome.controls:
        assert trial in outcome.finished or math.inf in by_trial[trial].values
    quota = getattr(scheduler, "survivors_per_arm", 0)
    for verdicts in judged.values():
        finite = sum(math.isfinite(verdict.value) for verdict in verdicts)
        assert sum(verdict.survives for verdict in verdicts) >= min(quota, finite)


@settings(deadline=None)
@given(TRIALS, st.integers(0, 99), st.integers(1, 8), st.sampled_from(sorted(SCHEDULERS)))
def test_the_quota_holds_and_no_decision_rests_on_a_missing_rung(
    trials: list[tuple[str, tuple[float, float, float]]], seed: int, num_slots: int, name: str
) -> None:
    check_run(SCHEDULERS[name], curves_of(trials), seed, num_slots)


@each_scheduler
def test_it_holds_for_hundreds_of_trials(name: str) -> None:
    check_run(SCHEDULERS[name], make_curves(400, seed=1), seed=1, num_slots=16)


@pytest.mark.slow
@each_scheduler
def test_it_holds_for_thousands_of_trials(name: str) -> None:
    check_run(SCHEDULERS[name], make_curves(3000, seed=2), seed=2, num_slots=32)


@pytest.fixture(scope="module")
def recorded() -> list[Curve]:
    """The screened trials of the study of kernels on SmolLM2; none was stopped."""
    return read_curves(STUDY)


def test_the_published_study_has_whole_curves_of_every_arm(recorded: list[Curve]) -> None:
    assert Counter(Counter(curve.arm for curve in recorded).values()) == {36: 11}
    assert {curve.rungs for curve in recorded} == {(300, 600, 1200)}
    assert len({curve.stratum for curve in recorded}) == 1
    drawn = resample(recorded, 1000, seed=0)
    assert len({curve.trial for curve in drawn}) == 1000
    assert {curve.values for curve in drawn} <= {curve.values for curve in recorded}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["StratifiedASHA", "synchronous halving"])
def test_it_holds_on_recorded_curves_in_many_orders_of_arrival(
    recorded: list[Curve], name: str
) -> None:
    for seed in range(8):
        check_run(SCHEDULERS[name], recorded, seed, num_slots=1 + 4 * seed)
    check_run(SCHEDULERS[name], resample(recorded, 2000, seed=6), seed=6, num_slots=32)


@pytest.mark.slow
def test_on_recorded_curves_the_quota_keeps_every_arm_and_plain_asha_does_not(
    recorded: list[Curve],
) -> None:
    table = {row[0]: row[1:] for row in compare([recorded], 32)}
    for name in ("StratifiedASHA", "synchronous halving"):
        saved, _, regret, _, _, lost = table[name]
        assert float(saved.rstrip("%")) > 30
        assert float(regret) == 0
        assert float(lost) == 0
    assert float(table["ASHA, plain"][-1]) > 0


def test_synchronous_survivors_are_the_same_on_any_number_of_slots() -> None:
    scheduler = SynchronousHalving("halving")
    curves = make_curves(300, seed=3)
    outcomes = [simulate(scheduler, curves, slots, seed=0) for slots in (1, 7, 300)]
    assert all(o.forward_passes == outcomes[0].forward_passes for o in outcomes)


def test_the_control_share_is_that_of_each_arm_within_chance() -> None:
    """Binomial, 600 trials of 6 arms at .1: within 4 standard errors, false alarm < 1e-3."""
    curves = make_curves(600, seed=4)
    outcome = simulate(StratifiedASHA("asha"), curves, 16, seed=5)
    counts = Counter(curve.arm for curve in curves if curve.trial in outcome.controls)
    for arm in {curve.arm for curve in curves}:
        assert abs(counts[arm] - 10) <= 4 * math.sqrt(100 * 0.1 * 0.9)


def test_strata_and_quota_keep_every_arm_where_plain_asha_loses_the_hard_task() -> None:
    table = {row[0]: row[1:] for row in compare([make_curves(600, seed) for seed in range(2)], 16)}
    assert float(table["FIFO"][0].rstrip("%")) < 5  # diverged trials alone
    for name, (saved, *_, lost) in table.items():
        assert (float(lost) > 0) == (name == "ASHA, plain"), name
        assert name == "FIFO" or float(saved.rstrip("%")) > 15
    curves = make_curves(600, seed=0)
    whole, arms, lost_arms = regrets(curves, simulate(SCHEDULERS["FIFO"], curves, 16))
    assert set(whole) | set(arms) == {0.0}
    assert lost_arms == 0
