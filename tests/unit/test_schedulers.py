"""Early stopping: who goes on, that it follows from events.jsonl alone, and after a restart."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import pytest
from decisions import read_events, recompute
from hypothesis import given
from hypothesis import strategies as st

from kerzoo.build import build
from sweeps.compose import CONF, compose
from sweeps.events import EventLog
from sweeps.halving import HalvingRule, is_among_best
from sweeps.schedulers import (
    FIFO,
    Entrant,
    HyperBand,
    MedianStopping,
    Race,
    Scheduler,
    StratifiedASHA,
    SynchronousHalving,
)
from sweeps.schedulers.base import nth_best
from sweeps.schedulers.tune import RungScheduler

RUNGS = (36, 72, 144)
Row = dict[str, Any]

LOSSES = st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = LOSSES | st.just(math.inf) | st.just(math.nan)
OPTIONS = sorted(path.name.removesuffix(".yaml") for path in (CONF / "scheduler").glob("*.yaml"))


def scheduler_named(option: str) -> Scheduler:
    scheduler: Scheduler = compose([f"scheduler={option}"]).sweep.scheduler
    return scheduler


def row_of(rung: int, loss: float | None, diverged: bool = False) -> Row:
    return {"rung": rung, "dev_loss": loss, "diverged": diverged}


def asha(factor: float = 2.0, quota: int = 0) -> StratifiedASHA:
    return StratifiedASHA("asha", reduction_factor=factor, survivors_per_arm=quota)


def halving(factor: float = 2.0, quota: int = 0) -> SynchronousHalving:
    return SynchronousHalving("halving", reduction_factor=factor, survivors_per_arm=quota)


def race_of(
    scheduler: Scheduler,
    arms: dict[str, str],
    folder: Path | None = None,
    exempt: str = "",
    recorded: dict[str, list[Row]] | None = None,
) -> Race:
    entrants = [
        Entrant(t, a, RUNGS, scheduler.decided_rungs(RUNGS, 0), exempt=t in exempt.split())
        for t, a in arms.items()
    ]
    race = Race(scheduler, entrants, EventLog(folder / "events.jsonl") if folder else None)
    race.resume(recorded or {})
    return race


def decide(race: Race, trial: str, row: Row) -> str:
    race.arrive(trial, row)
    return race.standing(trial)


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


@given(LOSSES, st.lists(LOSSES, max_size=20), st.integers(0, 20))
def test_the_cutoff_is_the_largest_value_among_the_best(
    value: float, others: list[float], kept: int
) -> None:
    assert is_among_best(value, others, kept) == (value <= nth_best(others, kept))


ARRIVALS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.none() | LOSSES), min_size=1, max_size=25
)


@given(ARRIVALS, st.sampled_from([1.5, 2.0, 3.0]), st.integers(0, 2), st.booleans())
def test_every_decision_can_be_recomputed_from_its_event(
    tmp_path_factory: pytest.TempPathFactory,
    arrivals: list[tuple[str, float | None]],
    factor: float,
    quota: int,
    waits: bool,
) -> None:
    folder = tmp_path_factory.mktemp("events")
    arms = {f"{i}{arm}": arm for i, (arm, _) in enumerate(arrivals)}
    race = race_of((halving if waits else asha)(factor, quota), arms, folder)
    seen: dict[str, float | None] = {}
    for trial, (_, loss) in zip(arms, arrivals, strict=True):
        race.arrive(trial, row_of(RUNGS[0], loss, loss is None))
        if not waits:
            assert read_events(folder)[-1]["compared"] == seen
        seen[trial] = loss
    events = read_events(folder)
    assert {event["trial_id"] for event in events} == set(arms)
    for event in events:
        assert event["value"] == seen[event["trial_id"]]
        assert event["decision"] == recompute(event, arms, factor, quota)
        assert race.standing(event["trial_id"]) == event["decision"]
        if waits:
            assert event["compared"] == {t: v for t, v in seen.items() if t != event["trial_id"]}


def simulate(
    scheduler: Scheduler, folder: Path, restarts: frozenset[int], seed: int = 5
) -> dict[str, tuple[int, str]]:
    """40 trials over three rungs in random order; a new race is made from the rows at `restarts`.

    Returns:
        Each trial's rows and standing in the end.
    """
    generator = random.Random(seed)
    values = random.Random(9)
    losses = {f"t{i}": [values.random() for _ in RUNGS] for i in range(40)}
    arms = {trial: "ab"[int(trial[1:]) % 2] for trial in losses}
    recorded: dict[str, list[Row]] = {trial: [row_of(0, 0.7)] for trial in losses}
    race = race_of(scheduler, arms, folder, "t3 t8", recorded)
    arrived = 0
    while running := [
        trial
        for trial in losses
        if race.standing(trial) == "continue" and len(recorded[trial]) <= len(RUNGS)
    ]:
        trial = generator.choice(running)
        reached = len(recorded[trial]) - 1
        recorded[trial].append(row_of(RUNGS[reached], losses[trial][reached]))
        if arrived in restarts:  # the row is on disk, the decision was lost with the driver
            race = race_of(scheduler, arms, folder, "t3 t8", recorded)
        else:
            race.arrive(trial, recorded[trial][-1])
        arrived += 1
    return {trial: (len(recorded[trial]), race.standing(trial)) for trial in losses}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("restarts", [{0}, {7, 8, 9}, {20, 45}, set(range(100))])
def test_rebuilt_from_the_rows_it_decides_as_if_never_interrupted(
    tmp_path: Path, restarts: set[int], option: str
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    scheduler = scheduler_named(option)
    undisturbed = simulate(scheduler, tmp_path / "a", frozenset())
    assert simulate(scheduler, tmp_path / "b", frozenset(restarts)) == undisturbed

    def without_time(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in e.items() if k != "time"} for e in read_events(folder)]

    assert without_time(tmp_path / "a") == without_time(tmp_path / "b")


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_keeps_the_contract(tmp_path: Path, option: str) -> None:
    """Each trial ends, in any order of arrival; controls and nobody else run on against a verdict;
    each verdict is made once."""
    scheduler = scheduler_named(option)
    assert build(scheduler.describe(), "scheduler", "sweeps.schedulers") == scheduler
    ends = simulate(scheduler, tmp_path, frozenset())
    assert {standing for _, standing in ends.values()} <= {"continue", "stop"}
    assert all((rows == len(RUNGS) + 1) == (state == "continue") for rows, state in ends.values())
    assert {ends[trial] for trial in ("t3", "t8")} == {(len(RUNGS) + 1, "continue")}
    events = read_events(tmp_path)
    keys = [(event["trial_id"], event["rung"]) for event in events]
    assert len(keys) == len(set(keys))
    for event in events:
        stops = not event["survives"] and event["trial_id"] not in ("t3", "t8")
        assert event["decision"] == ("stop" if stops else "continue")


@pytest.mark.parametrize("scheduler", [halving(3.0, 1), HyperBand("hyperband")])
def test_survivors_of_a_synchronous_rung_depend_on_no_order(
    tmp_path: Path, scheduler: Scheduler
) -> None:
    ends = []
    for seed in range(5):
        (tmp_path / str(seed)).mkdir()
        ends.append(simulate(scheduler, tmp_path / str(seed), frozenset({seed, 30}), seed))
    assert all(end == ends[0] for end in ends)
    assert {state for _, state in ends[0].values()} == {"continue", "stop"}


def test_a_rung_waits_for_all_and_for_nobody_who_cannot_come() -> None:
    arms = dict.fromkeys("abcdef", "mezo")
    race = race_of(halving(2.0), arms)
    assert decide(race, "a", row_of(36, 0.5)) == "pause"
    assert decide(race, "b", row_of(36, 0.2)) == "pause"
    assert decide(race, "c", row_of(0, None, diverged=True)) == "stop"
    assert decide(race, "d", row_of(36, None, diverged=True)) == "stop"
    assert decide(race, "e", row_of(36, 0.3)) == "pause"
    verdicts = race.lose("f")
    assert {v.entrant.trial: v.survives for v in verdicts} == {
        **dict.fromkeys("cdf", False),
        **dict.fromkeys("abe", True),
    }
    race.arrive("a", row_of(72, 0.5))
    race.lose("b")
    assert [race.standing(t) for t in "abe"] == ["pause", "stop", "continue"]
    assert decide(race, "e", row_of(72, 0.4)) == "continue"
    assert race.standing("a") == "stop"


def test_a_control_neither_waits_nor_stops_nor_changes_anothers_fate() -> None:
    arms = dict.fromkeys("abcd", "mezo")
    race = race_of(halving(2.0), arms, exempt="d")
    assert decide(race, "d", row_of(36, 0.9)) == "continue"
    for trial, loss in {"a": 0.1, "b": 0.2, "c": 0.3}.items():
        race.arrive(trial, row_of(36, loss))
    assert [race.standing(t) for t in "abcd"] == ["continue", "continue", "stop", "continue"]
    race.arrive("d", row_of(72, 0.0))
    race.arrive("a", row_of(72, 0.1))
    assert decide(race, "b", row_of(72, 0.2)) == "stop"
    assert race.standing("a") == race.standing("d") == "continue"


def test_a_decision_once_made_stands_whatever_is_reported_again(tmp_path: Path) -> None:
    arms = {"one": "a", "two": "a"}
    rows = {"one": [row_of(36, 0.5)], "two": [row_of(36, 0.6)]}
    race = race_of(asha(), arms, tmp_path, recorded=rows)
    assert [event["compared"] for event in read_events(tmp_path)] == [{"two": 0.6}, {"one": 0.5}]
    for _ in range(2):
        assert decide(race, "one", row_of(36, 0.5)) == "continue"
        assert decide(race, "two", row_of(36, 0.6)) == "stop"
        race = race_of(halving(), arms, tmp_path, recorded=rows)
    assert len(read_events(tmp_path)) == 2


def test_nothing_is_decided_at_step_0_or_at_the_last_rung(tmp_path: Path) -> None:
    race = race_of(asha(9.0), {f"t{i}": "a" for i in range(9)}, tmp_path)
    for rung in (0, RUNGS[-1]):
        for i in range(9):
            assert decide(race, f"t{i}", row_of(rung, float(i))) == "continue"
    assert not (tmp_path / "events.jsonl").exists()


def test_trials_of_other_rungs_are_not_compared() -> None:
    entrants = [
        Entrant("short", "a", (36, 72), (36,)),
        Entrant("long", "a", RUNGS, RUNGS[:-1]),
        Entrant("other", "a", RUNGS, RUNGS[:-1]),
    ]
    race = Race(asha(), entrants)
    assert decide(race, "long", row_of(36, 0.1)) == "continue"
    assert decide(race, "short", row_of(36, 0.9)) == "continue"
    assert decide(race, "other", row_of(36, 0.9)) == "stop"


@pytest.mark.parametrize(
    "worst", [row_of(36, None, True), row_of(36, 0.1, True), row_of(36, None), row_of(36, math.nan)]
)
def test_a_diverged_trial_counts_as_the_worst_and_stops(tmp_path: Path, worst: Row) -> None:
    race = race_of(asha(2.0, 1), {"diverged": "a", "fine": "b", "better": "b"}, tmp_path)
    assert decide(race, "diverged", worst) == "stop"
    assert decide(race, "fine", row_of(36, 1e6)) == "continue"
    assert decide(race, "better", row_of(36, 1.0)) == "continue"
    first, second, _ = read_events(tmp_path)
    assert first["value"] is None
    assert second["compared"] == {"diverged": None}


@pytest.mark.parametrize("make", [asha, halving])
def test_each_arms_own_best_goes_on_whatever_the_others_do(make: Any) -> None:
    losses = {f"a{i}": 0.1 + i / 100 for i in range(6)} | {"b0": 5.0, "b1": 6.0, "b2": 4.0}
    race = race_of(make(3.0, 1), {trial: trial[0] for trial in losses})
    for trial, loss in losses.items():
        race.arrive(trial, row_of(36, loss))
    assert race.standing("b2") == "continue"
    assert race.standing("b1") == "stop"
    assert race.standing("b0") == ("continue" if make is asha else "stop")


def test_the_median_rule_compares_the_best_so_far_with_running_means() -> None:
    rule = MedianStopping("median", survivors_per_arm=0)
    race = race_of(rule, dict.fromkeys("abcde", "mezo"))
    for trial, first, second in (("a", 1.0, 0.2), ("b", 1.0, 0.4), ("c", 1.0, 0.6)):
        assert decide(race, trial, row_of(36, first)) == "continue"
        assert decide(race, trial, row_of(72, second)) == "continue"
    assert decide(race, "d", row_of(36, 1.1)) == "stop"
    assert decide(race, "e", row_of(36, 0.65)) == "continue"
    assert decide(race, "e", row_of(72, 0.9)) == "continue"  # .65 against .6, .7 and .8
    assert race.standings.is_judged("e", 72)


def test_hyperbands_brackets_begin_to_stop_at_different_rungs() -> None:
    band = HyperBand("hyperband", reduction_factor=3.0)
    assert [band.decided_rungs(RUNGS, b) for b in range(3)] == [(36, 72), (72,), ()]
    assert band.bracket_weights(3) == [9.0, 5.0, 3.0]  # ⌈3/3 · 9⌉, ⌈3/2 · 3⌉, ⌈3/1⌉


def test_fifo_never_stops_and_writes_nothing(tmp_path: Path) -> None:
    race = race_of(FIFO("fifo"), {f"t{i}": "a" for i in range(9)}, tmp_path)
    for i in range(9):
        for rung in RUNGS:
            assert decide(race, f"t{i}", row_of(rung, [0.1, None][i % 2])) == "continue"
    assert not (tmp_path / "events.jsonl").exists()


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (StratifiedASHA, {"reduction_factor": 1.0}, "reduction_factor must be > 1, got 1.0"),
        (SynchronousHalving, {"survivors_per_arm": -1}, "survivors_per_arm must be ≥ 0, got -1"),
        (HyperBand, {"control_fraction": 1.0}, r"control_fraction must be in \[0, 1\), got 1.0"),
        (MedianStopping, {"min_trials": 0}, "min_trials must be ≥ 1, got 0"),
        (FIFO, {"metric": "loss"}, "metric must be one of dev_loss; got 'loss'"),
    ],
)
def test_values_out_of_range_are_refused(cls: Any, values: Row, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls("name", **values)


def test_the_adapter_says_to_tune_what_the_race_says() -> None:
    @dataclasses.dataclass
    class Trial:
        config: dict[str, str]
        status: str = "RUNNING"

    paused: list[str] = []
    race = race_of(halving(), {"one": "a", "two": "a"})
    scheduler = RungScheduler(race, paused.append)
    one, two = Trial({"trial_id": "one"}), Trial({"trial_id": "two"})

    class Controller:
        stopped: list[Trial] = []  # noqa: RUF012

        def get_trials(self) -> list[Trial]:
            return [one, two]

        def stop_trial(self, trial: Trial) -> None:
            self.stopped.append(trial)

    controller = Controller()
    scheduler.on_trial_add(controller, one)  # type: ignore[arg-type]
    assert scheduler.on_trial_result(controller, one, {"rung": None}) == "CONTINUE"  # type: ignore[arg-type]
    assert scheduler.on_trial_result(controller, one, row_of(36, 0.9)) == "PAUSE"  # type: ignore[arg-type]
    assert scheduler.on_trial_result(controller, one, {"rung": None}) == "PAUSE"  # type: ignore[arg-type]
    one.status = "PAUSED"
    assert scheduler.choose_trial_to_run(controller) is None
    assert scheduler.on_trial_result(controller, two, row_of(36, 0.1)) == "CONTINUE"  # type: ignore[arg-type]
    assert controller.stopped == [one]
    assert paused == ["one", "one"]
    assert scheduler.on_trial_result(controller, one, {"rung": None}) == "STOP"  # type: ignore[arg-type]
