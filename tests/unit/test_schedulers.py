"""Early stopping: who goes on, that it can be recomputed from events.jsonl, and after a restart."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from decisions import read_events, recompute
from hypothesis import given
from hypothesis import strategies as st

from sweeps.halving import HalvingRule, is_among_best
from sweeps.schedulers import RungScheduler, cutoff

RUNGS = (36, 72, 144)
CONTINUE, STOP = "CONTINUE", "STOP"
Row = dict[str, Any]

LOSSES = st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = LOSSES | st.just(math.inf) | st.just(math.nan)


def row_of(rung: int, loss: float | None, diverged: bool = False) -> Row:
    return {"rung": rung, "dev_loss": loss, "diverged": diverged}


def scheduler_of(
    folder: Path,
    arms: dict[str, str],
    recorded: dict[str, list[Row]] | None = None,
    reduction_factor: float | None = 2,
    survivors_per_arm: int = 0,
) -> RungScheduler:
    return RungScheduler(
        "dev_loss",
        HalvingRule(reduction_factor, survivors_per_arm),
        arms,
        recorded or {},
        dict.fromkeys(arms, RUNGS[-1]),
        folder / "events.jsonl",
    )


RULES = st.builds(HalvingRule, st.floats(1.01, 10), st.integers(0, 2))


@given(RULES, LOSSES)
def test_the_first_arrival_at_a_rung_goes_on(rule: HalvingRule, value: float) -> None:
    assert rule.goes_on(value, [], [])


@given(RULES, st.sampled_from([math.nan, math.inf, -math.inf]), st.lists(VALUES), st.lists(VALUES))
def test_a_value_that_is_not_finite_never_goes_on(
    rule: HalvingRule, value: float, own: list[float], foreign: list[float]
) -> None:
    assert not rule.goes_on(value, own + foreign, own)


@given(RULES, st.lists(VALUES, max_size=20), LOSSES)
def test_the_best_so_far_goes_on_and_so_do_ties_with_it(
    rule: HalvingRule, others: list[float], value: float
) -> None:
    best = min([value, *(other for other in others if math.isfinite(other))])
    assert rule.goes_on(best, others, [])
    assert rule.goes_on(best, [*others, best, best], [])


@given(st.lists(LOSSES, min_size=1, max_size=30, unique=True), st.floats(1.01, 10))
def test_of_all_trials_at_a_rung_exactly_the_best_share_would_go_on(
    values: list[float], factor: float
) -> None:
    rule = HalvingRule(factor)
    going_on = [
        v for i, v in enumerate(values) if rule.goes_on(v, values[:i] + values[i + 1 :], [])
    ]
    assert sorted(going_on) == sorted(values)[: max(1, math.floor(len(values) / factor))]


@given(RULES, LOSSES, LOSSES, st.lists(VALUES, max_size=20), st.lists(VALUES, max_size=9))
def test_a_better_value_never_loses_where_a_worse_one_goes_on(
    rule: HalvingRule, one: float, two: float, foreign: list[float], own: list[float]
) -> None:
    better, worse = sorted([one, two])
    others = own + foreign
    assert rule.goes_on(better, others, own) >= rule.goes_on(worse, others, own)


@given(LOSSES, st.lists(LOSSES, max_size=20), st.integers(0, 20))
def test_the_cutoff_is_the_largest_value_among_the_best(
    value: float, others: list[float], kept: int
) -> None:
    assert is_among_best(value, others, kept) == (value <= cutoff(others, kept))


ARRIVALS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.none() | LOSSES), min_size=1, max_size=25
)


@given(ARRIVALS, st.sampled_from([1.5, 2.0, 3.0]), st.integers(0, 2))
def test_every_decision_can_be_recomputed_from_its_event(
    tmp_path_factory: pytest.TempPathFactory,
    arrivals: list[tuple[str, float | None]],
    factor: float,
    quota: int,
) -> None:
    folder = tmp_path_factory.mktemp("events")
    arms = {f"{i}{arm}": arm for i, (arm, _) in enumerate(arrivals)}
    scheduler = scheduler_of(folder, arms, None, factor, quota)
    answers = [
        scheduler.decide(trial, row_of(RUNGS[0], loss, loss is None))
        for trial, (_, loss) in zip(arms, arrivals, strict=True)
    ]
    events = read_events(folder)
    assert len(events) == len(arrivals)
    seen: dict[str, float | None] = {}
    for event, answer, (trial, (_, loss)) in zip(
        events, answers, zip(arms, arrivals, strict=True), strict=True
    ):
        assert (event["trial_id"], event["rung"], event["value"]) == (trial, RUNGS[0], loss)
        assert event["compared"] == seen
        assert event["decision"] == recompute(event, arms, factor, quota)
        assert answer == (CONTINUE if event["decision"] == "continue" else STOP)
        seen[trial] = loss


def simulate(folder: Path, restarts: frozenset[int], factor: float = 2) -> list[tuple[str, str]]:
    """40 trials in turn over three rungs; a new scheduler is made from the rows at `restarts`."""
    generator = random.Random(5)
    losses = {f"t{i}": [generator.random() for _ in RUNGS] for i in range(40)}
    arms = {trial: "ab"[int(trial[1:]) % 2] for trial in losses}
    recorded: dict[str, list[Row]] = {trial: [row_of(0, 0.7)] for trial in losses}
    scheduler = scheduler_of(folder, arms, recorded, factor)
    decisions, arrived = [], 0
    waiting = list(losses)
    while waiting:
        trial = waiting.pop(generator.randrange(len(waiting)))
        reached = len(recorded[trial]) - 1
        row = row_of(RUNGS[reached], losses[trial][reached])
        recorded[trial].append(row)
        if arrived in restarts:  # the row is on disk, the decision was lost with the driver
            scheduler = scheduler_of(folder, arms, recorded, factor)
        arrived += 1
        decision = scheduler.decide(trial, row)
        decisions.append((trial, decision))
        if decision == CONTINUE and reached + 1 < len(RUNGS):
            waiting.append(trial)
    return decisions


@pytest.mark.parametrize("restarts", [{0}, {1}, {7, 8, 9}, {20, 45}, set(range(100))])
def test_rebuilt_from_the_rows_it_decides_as_if_never_interrupted(
    tmp_path: Path, restarts: set[int]
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    undisturbed = simulate(tmp_path / "a", frozenset())
    assert simulate(tmp_path / "b", frozenset(restarts)) == undisturbed
    assert {decision for _, decision in undisturbed} == {CONTINUE, STOP}

    def without_time(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in e.items() if k != "time"} for e in read_events(folder)]

    assert without_time(tmp_path / "a") == without_time(tmp_path / "b")


def test_a_row_that_is_reported_again_is_not_compared_with_itself(tmp_path: Path) -> None:
    arms = {"one": "a", "two": "a"}
    scheduler = scheduler_of(tmp_path, arms, {"one": [row_of(36, 0.5)], "two": [row_of(36, 0.6)]})
    assert scheduler.decide("one", row_of(36, 0.5)) == CONTINUE
    assert scheduler.decide("one", row_of(36, 0.5)) == CONTINUE
    assert [event["compared"] for event in read_events(tmp_path)] == [{"two": 0.6}] * 2


def test_nothing_is_decided_at_step_0_or_at_the_last_rung(tmp_path: Path) -> None:
    arms = {f"t{i}": "a" for i in range(9)}
    scheduler = scheduler_of(tmp_path, arms, None, 9)
    for rung in (0, RUNGS[-1]):
        for loss, trial in enumerate(arms):
            assert scheduler.decide(trial, row_of(rung, float(loss))) == CONTINUE
    assert read_events(tmp_path) == []


def test_the_last_rung_is_each_trials_own(tmp_path: Path) -> None:
    scheduler = RungScheduler(
        "dev_loss",
        HalvingRule(2),
        {"short": "a", "long": "a", "other": "a"},
        {"long": [row_of(72, 0.1)]},
        {"short": 72, "long": 144, "other": 144},
        tmp_path / "events.jsonl",
    )
    assert scheduler.decide("short", row_of(72, 0.9)) == CONTINUE
    assert scheduler.decide("other", row_of(72, 0.9)) == STOP


@pytest.mark.parametrize(
    "worst", [row_of(36, None, True), row_of(36, 0.1, True), row_of(36, None), row_of(36, math.nan)]
)
def test_a_diverged_trial_counts_as_the_worst_and_stops(tmp_path: Path, worst: Row) -> None:
    arms = {"diverged": "a", "fine": "b", "better": "b"}
    scheduler = scheduler_of(tmp_path, arms, None, 2, survivors_per_arm=1)
    assert scheduler.decide("diverged", worst) == STOP
    assert scheduler.decide("fine", row_of(36, 1e6)) == CONTINUE
    assert scheduler.decide("better", row_of(36, 1.0)) == CONTINUE
    first, second, _ = read_events(tmp_path)
    assert first["value"] is None
    assert second["compared"] == {"diverged": None}


def test_each_arms_own_best_goes_on_whatever_the_others_do(tmp_path: Path) -> None:
    arms = {f"a{i}": "a" for i in range(6)} | {f"b{i}": "b" for i in range(3)}
    scheduler = scheduler_of(tmp_path, arms, None, 3, survivors_per_arm=1)
    for i in range(6):
        scheduler.decide(f"a{i}", row_of(36, 0.1 + i / 100))
    assert scheduler.decide("b0", row_of(36, 5.0)) == CONTINUE
    assert scheduler.decide("b1", row_of(36, 6.0)) == STOP
    assert scheduler.decide("b2", row_of(36, 4.0)) == CONTINUE


@given(st.lists(VALUES, min_size=1, max_size=20))
def test_fifo_never_stops_and_writes_nothing(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("fifo")
    arms = {f"t{i}": "a" for i in range(len(losses))}
    scheduler = scheduler_of(folder, arms, None, None)
    for trial, loss in zip(arms, losses, strict=True):
        for rung in RUNGS:
            assert scheduler.decide(trial, row_of(rung, loss)) == CONTINUE
    assert read_events(folder) == []


def test_tunes_own_reports_without_a_rung_are_passed_over(tmp_path: Path) -> None:
    class Trial:
        config = {"trial_id": "one"}  # noqa: RUF012 - as Tune's trials have it

    scheduler = scheduler_of(tmp_path, {"one": "a"}, None)
    assert scheduler.on_trial_result(None, Trial(), {"rung": None}) == CONTINUE
    assert scheduler.on_trial_result(None, Trial(), row_of(36, None, True)) == STOP
