"""What a sweep spends, and how well it uses its slots."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps.ledger import Ledger, exhausted_before
from sweeps.schema import BudgetOptions, ClusterOptions, FailureOptions


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def row(passes: int, busy_s: float, **more: Any) -> dict[str, Any]:
    return {"rung": passes, "forward_passes": passes, "busy_s": busy_s, **more}


def test_preparation_and_tail_are_no_part_of_the_efficiency(tmp_path: Path, clock: Clock) -> None:
    """Two slots, three trials: 10 s of start, 40 s and 60 s at work, a tail of 20 s."""
    ledger = Ledger(tmp_path / "run.json", BudgetOptions(), 0.5, {"a": [], "b": [], "c": []}, 3)
    ledger.num_slots = 2
    clock.now += 10
    ledger.begin("a")
    ledger.begin("b")
    clock.now += 20
    ledger.arrive("a", row(10, 16.0, preparation_s=4.0, pid=1))
    ledger.end("a")
    ledger.begin("c")
    clock.now += 20
    ledger.arrive("b", row(10, 35.0, preparation_s=5.0, pid=2))
    ledger.end("b")
    clock.now += 20
    ledger.arrive("c", row(10, 40.0))
    ledger.end("c")
    own = ledger.summary()
    assert own["wall_time_s"] == 70
    assert own["preparation_s"] == 20 + 4 + 5
    assert own["tail_s"] == 20
    assert own["busy_s"] == 91
    assert own["efficiency"] == pytest.approx(91 / (2 * 70 - 29 - 20))
    assert own["slot_time_s"] == 100
    assert own["gpu_hours"] == pytest.approx(100 * 0.5 / 3600)
    assert "Sweep efficiency 1.000: 2 slots for 70 s" in ledger.describe()


def test_nodes_that_come_and_go_change_the_time_that_could_be_used(
    tmp_path: Path, clock: Clock
) -> None:
    ledger = Ledger(tmp_path / "run.json", BudgetOptions(), 0.0, {"a": [], "b": []}, 2)
    for num_slots, trial in ((1, "a"), (2, "b"), (1, None)):
        ledger.resize(num_slots)
        if trial:
            ledger.begin(trial)
        else:
            ledger.end("b")
        clock.now += 10
    ledger.arrive("a", row(10, 30.0))
    ledger.arrive("b", row(10, 6.0))
    assert ledger.summary()["efficiency"] == pytest.approx(36 / (10 + 20 + 10))


def test_what_was_prepared_before_counts_for_the_budget_and_not_for_the_efficiency(
    tmp_path: Path, clock: Clock
) -> None:
    budget = BudgetOptions(wall_time_s=100.0)
    ledger = Ledger(tmp_path / "run.json", budget, 0.0, {"a": []}, 1, prepared_s=60.0)
    ledger.begin("a")
    clock.now += 39
    ledger.arrive("a", row(10, 39.0))
    assert ledger.exhausted() is None
    clock.now += 1
    ledger.end("a")
    assert "budget.wall_time_s: 100 of 100 is spent" in (ledger.exhausted() or "")
    own = ledger.summary()
    assert (own["wall_time_s"], own["preparation_s"]) == (100, 60)
    assert own["efficiency"] == pytest.approx(39 / 40)


def test_what_a_trial_did_behind_its_last_row_counts_in_the_run_that_did_it(
    tmp_path: Path, clock: Clock
) -> None:
    """20 s of steps, of which 15 s behind the row; the next run replays them for 2 s."""
    runs = []
    seen: dict[str, list[dict[str, Any]]] = {"a": []}
    for reports in (
        [(8, row(10, 5.0, preparation_s=3.0, pid=1)), (15, {"rung": None, "busy_s": 15.0})],
        [(9, row(20, 4.0, preparation_s=3.0, pid=2))],
    ):
        ledger = Ledger(tmp_path / "run.json", BudgetOptions(), 0.0, seen, 1)
        ledger.begin("a")
        for seconds, report in reports:
            clock.now += seconds
            ledger.arrive("a", report)
        ledger.end("a")
        ledger.save()
        seen = {"a": [row(10, 5.0)]}
        runs.append(ledger.summary())
    assert [run["busy_s"] for run in runs] == [20, 4]
    assert [run["efficiency"] for run in runs] == [1, pytest.approx(4 / 6)]
    assert [run["forward_passes"] for run in runs] == [10, 10]
    for run in runs:
        assert run["busy_s"] + run["preparation_s"] + run["tail_s"] <= run["wall_time_s"]


def test_amounts_add_up_over_runs_and_only_new_rows_count(tmp_path: Path, clock: Clock) -> None:
    path, budget = tmp_path / "run.json", BudgetOptions(forward_passes=100)
    first = Ledger(path, budget, 0.0, {"a": []}, 1)
    first.begin("a")
    clock.now += 30
    first.arrive("a", row(79, 2.0))
    assert first.warning() is None
    first.end("a", again=True)
    first.save()
    second = Ledger(path, budget, 0.0, {"a": [row(79, 2.0)]}, 1)
    assert second.exhausted() is None
    second.arrive("a", row(80, 1.0))
    assert second.warning() == "80% of budget.forward_passes is spent"
    assert second.warning() is None
    second.arrive("a", row(100, 1.0))
    told = second.exhausted()
    assert told == (
        "budget.forward_passes: 100 of 100 is spent, over 2 runs; the same command with "
        "budget.forward_passes=200 goes on"
    )
    clock.now += 5
    second.advance()
    second.save()
    content = json.loads(path.read_text())
    assert content["total"]["forward_passes"] == 100
    assert content["total"]["wall_time_s"] == 35
    assert [run["forward_passes"] for run in content["runs"]] == [79, 21]


def test_the_advised_budget_is_more_than_what_was_spent(tmp_path: Path, clock: Clock) -> None:
    path, budget = tmp_path / "run.json", BudgetOptions(wall_time_s=50)
    assert exhausted_before(path, budget) is None
    for seconds, advised in ((58.9, 100), (41.1, 200)):
        ledger = Ledger(path, budget, 0.0, {"a": []}, 1)
        clock.now += seconds
        ledger.advance()
        ledger.save()
        told = exhausted_before(path, budget)
        assert told == ledger.exhausted()
        assert str(told).endswith(f"the same command with budget.wall_time_s={advised} goes on")
        larger = BudgetOptions(wall_time_s=advised)
        assert exhausted_before(path, larger) is None


def test_money_is_gpu_hours_at_their_price(tmp_path: Path, clock: Clock) -> None:
    budget = BudgetOptions(money=3.0, price_per_gpu_hour=2.0)
    ledger = Ledger(tmp_path / "run.json", budget, 1.0, {"a": []}, 1)
    ledger.begin("a")
    clock.now += 3600
    ledger.advance()
    assert ledger.total.money == 2.0
    assert ledger.exhausted() is None
    clock.now += 1800
    ledger.advance()
    assert str(ledger.exhausted()).startswith("budget.money: 3 of 3 is spent")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: BudgetOptions(gpu_hours=0), "budget.gpu_hours must be > 0 or null, got 0"),
        (lambda: BudgetOptions(money=1), "budget.price_per_gpu_hour must be set"),
        (lambda: FailureOptions(max_lost=-1), "failures.max_lost must be ≥ 0, got -1"),
        (lambda: ClusterOptions("x", gpus_per_trial="all"), 'must be > 0 or "auto", got all'),
        (lambda: ClusterOptions("x", resources={"A100": 0}), "resources.A100 must be > 0, got 0"),
    ],
)
def test_values_out_of_range_are_refused(make: Any, told: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared
        make()
    assert told in str(error.value)
