"""What a person is told while a sweep runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kerzoo.records import TrialSpec
from sweeps import progress
from sweeps.halving import HalvingRule
from sweeps.progress import Display, format_duration, label_cell

RUNGS = [36, 72, 144]
TRIALS = ("one", "two", "three", "four")


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def row_of(passes: int, loss: float | None = 0.7) -> dict[str, Any]:
    return {
        "step": passes // 2,
        "rung": passes,
        "forward_passes": passes,
        "dev_loss": loss,
        "diverged": loss is None,
    }


def spec_of(trial: str) -> TrialSpec:
    return TrialSpec(trial, "mezo", "screen", [], {}, {}, RUNGS, "command")


def display_of(
    factor: float | None = None, rows: dict[str, list[dict[str, Any]]] | None = None, **status: str
) -> Display:
    return Display(
        Console(file=io.StringIO(), width=200, highlight=False),
        [spec_of(trial) for trial in TRIALS],
        {trial: f"cell {trial}" for trial in TRIALS},
        {trial: status.get(trial, "planned") for trial in TRIALS},
        {trial: (rows or {}).get(trial, []) for trial in TRIALS},
        HalvingRule(factor),
    )


def said(display: Display) -> str:
    assert isinstance(display.console.file, io.StringIO)
    return display.console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (42.4, "42 s"),
        (99.4, "99 s"),
        (99.6, "1:40 min"),
        (185, "3:05 min"),
        (5999, "99:59 min"),
        (6000, "1:40 h"),
        (8100, "2:15 h"),
        (360_000, "100:00 h"),
    ],
)
def test_a_duration_is_written_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(0, 1e6))
def test_a_duration_is_never_off_by_more_than_its_last_digit(seconds: float) -> None:
    number, unit = format_duration(seconds).split()
    parts = [int(part) for part in number.split(":")]
    scale = {"s": [1], "min": [60, 1], "h": [3600, 60]}[unit]
    read = sum(part * factor for part, factor in zip(parts, scale, strict=True))
    assert abs(read - seconds) <= (60 if unit == "h" else 0.5)


def test_a_label_names_the_arm_and_the_last_part_of_each_swept_key() -> None:
    cell = {"arm": "mezo", "training.learning_rate": 0.01, "tuning": "lora"}
    assert label_cell(cell) == "mezo  learning_rate=0.01  tuning=lora"


def test_an_arrival_says_how_far_it_is_and_what_has_changed(clock: Clock) -> None:
    display = display_of()
    clock.now += 65
    display.arrived("one", row_of(0, 0.75))
    assert said(display) == ""
    display.arrived("one", row_of(36, 0.7))
    assert said(display) == "[     65 s] cell one: 36 forward passes, dev loss 0.7000 (-0.0500)\n"


def test_a_row_that_is_reported_again_is_said_once(clock: Clock) -> None:
    display = display_of(rows={"one": [row_of(0), row_of(36)]})
    display.arrived("one", row_of(36))
    assert said(display) == ""
    assert len(display.rows["one"]) == 2


def test_a_diverged_trial_is_said_once_it_has_ended(clock: Clock) -> None:
    display = display_of()
    display.arrived("one", row_of(36, None))
    assert said(display) == ""
    display.ended("one", "diverged")
    assert "cell one: diverged   [1/4 trials ended, 1 diverged]" in said(display)


def test_the_summary_counts_what_ended_and_how(clock: Clock) -> None:
    display = display_of(one="finished", two="running", three="stopped")
    assert display.summary() == "2/4 trials ended, 1 running, 1 finished, 1 stopped"


def test_a_warning_is_said(clock: Clock) -> None:
    display = display_of()
    display.warn("W&B failed [bold]")
    assert said(display) == "warning: W&B failed [bold]\n"


def test_there_is_no_eta_before_there_is_a_rate(clock: Clock) -> None:
    display = display_of()
    assert display.eta_s() is None
    display.arrived("one", row_of(0))
    clock.now += 60
    assert display.eta_s() is None


def test_without_stopping_the_eta_is_what_is_left_at_the_present_rate(clock: Clock) -> None:
    display = display_of()
    display.arrived("one", row_of(0))
    clock.now += 72
    display.arrived("one", row_of(72))
    assert display.eta_s() == pytest.approx(4 * 144 - 72)
    display.ended("two", "failed")
    assert display.eta_s() == pytest.approx(3 * 144 - 72)
    assert "about 6:00 min left" in display.summary()


def test_passes_of_earlier_runs_do_not_count_as_speed(clock: Clock) -> None:
    display = display_of(rows={"one": [row_of(0), row_of(144)]}, one="finished")
    display.arrived("two", row_of(0))
    clock.now += 36
    display.arrived("two", row_of(36))
    assert display.eta_s() == pytest.approx(3 * 144 - 36)


def test_early_stopping_shortens_the_eta_and_never_below_what_must_run(clock: Clock) -> None:
    etas = []
    for factor in (None, 2.0, 3.0):
        display = display_of(factor)
        display.arrived("one", row_of(0))
        clock.now += 36
        display.arrived("one", row_of(36))
        eta = display.eta_s()
        assert eta is not None
        etas.append(eta)
    assert etas == sorted(etas, reverse=True)
    assert etas[-1] >= 3 * 36


def test_the_eta_reaches_zero_when_all_have_ended(clock: Clock) -> None:
    display = display_of(2.0)
    display.arrived("one", row_of(0))
    for trial in TRIALS:
        clock.now += 10
        display.arrived(trial, row_of(36))
        display.ended(trial, "stopped")
    assert display.eta_s() == 0
    assert display.summary() == "4/4 trials ended, 4 stopped"


@pytest.mark.parametrize("num_ended", [0, 4])
def test_a_terminal_gets_a_live_table(num_ended: int) -> None:
    file = io.StringIO()
    display = display_of(
        rows={"one": [row_of(0, 0.8), row_of(36, 0.6)]},
        **dict.fromkeys(TRIALS[:num_ended], "finished"),
    )
    display.console = Console(file=file, width=100, force_terminal=True, highlight=False)
    with display:
        display.started("two")
        display.arrived("two", row_of(0, 0.9))
    text = file.getvalue()
    assert "trials ended" in text
    assert "best so far" in text
    assert "36 of 144" in text
    assert "0.6000" in text
    assert "\x1b[?25h" in text.rpartition("\x1b[?25l")[2]  # the cursor is shown again


def test_more_running_trials_than_fit_are_counted() -> None:
    running = [spec_of(f"t{i}") for i in range(progress.RUNNING_SHOWN + 3)]
    file = io.StringIO()
    display = Display(
        Console(file=file, width=100, force_terminal=True),
        running,
        {spec.trial_id: spec.trial_id for spec in running},
        {spec.trial_id: "running" for spec in running},
        {spec.trial_id: [] for spec in running},
        HalvingRule(None),
    )
    with display:
        pass
    assert "and 3 more" in file.getvalue()


def test_a_pipe_gets_lines_without_control_codes(clock: Clock) -> None:
    display = display_of()
    actions: list[Callable[[], None]] = [
        lambda: display.started("one"),
        lambda: display.arrived("one", row_of(36)),
        lambda: display.ended("one", "finished"),
    ]
    with display:
        for act in actions:
            act()
    assert "\x1b" not in said(display)
    assert len(said(display).splitlines()) == 2


def test_what_early_stopping_is_expected_to_leave_is_computed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes time in proportion to the trials, and every event of every trial asks for it."""
    calls = []
    usual = HalvingRule.fractions_running

    def counted(rule: HalvingRule, *numbers: int) -> list[float]:
        calls.append(numbers)
        return usual(rule, *numbers)

    monkeypatch.setattr(HalvingRule, "fractions_running", counted)
    display = display_of(3.0)
    for trial in TRIALS:
        for passes in (0, *RUNGS):
            display.arrived(trial, row_of(passes))
        display.ended(trial, "finished")
    assert calls == [(3, 4, 1)]
    assert "4/4 trials ended, 4 finished" in display.summary()
