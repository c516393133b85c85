"""Drivers killed at random moments: what each scheduler promises all the same."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from pathlib import Path

import pytest
from decisions import survivors_of
from random_kills import Killer
from sweep_process import (
    RUNGS,
    assert_no_row_twice,
    numbers_of,
    run_sweep,
    settings,
    statuses,
    trials_of,
)

from kerzoo.records import Row
from kerzoo.trajectory import read_trajectory
from sweeps.check import Check
from sweeps.tracking.offline import read_history

Rows = dict[str, list[Row]]

SWEEPS = {
    "fifo": ["scheduler=fifo"],
    "halving": ["scheduler=halving", "phase=both", "confirm.seeds=2", "tracking=none"],
    "asha": ["scheduler=asha", "tracking=none"],
    "hyperband": ["scheduler=hyperband", "tracking=none"],
    "median": ["scheduler=median", "scheduler.min_trials=1", "tracking=none"],
}
"""Overrides by scheduler; offline runs of W&B are followed under one, a second phase under one."""
INDEPENDENT_OF_TIME = {"fifo", "halving", "hyperband"}
"""Schedulers under which an interrupted sweep ends as an undisturbed one."""
OF_ONE_HALF = ["scheduler.survivors_per_arm=0", "scheduler.control_fraction=0"]
"""Of synchronous halving by 2: its survivors are counted in a few lines."""


def assert_ended_well(folder: Path, whole: Rows) -> None:
    """All trials ended, every row and step is there once, all decisions hold.

    Args:
        folder: Of a sweep that ended.
        whole: Rows of the same trials, each as far as some run of it went.
    """
    assert_no_row_twice(folder)
    ended = statuses(folder)
    assert set(ended.values()) <= {"finished", "stopped"}
    assert list(Check(folder).problems()) == []
    for trial, rows in numbers_of(folder).items():
        common = min(len(rows), len(whole[trial]))
        assert rows[:common] == whole[trial][:common], trial
        assert (rows[-1]["rung"] == RUNGS[-1]) == (ended[trial] == "finished")
        steps = [
            record.step for record in read_trajectory(trials_of(folder)[trial].trajectory_path)
        ]
        assert steps == list(range(rows[-1]["step"])), trial
    assert (folder / "report" / "report.html").exists()
    assert not (folder / ".ray").exists()


def assert_every_row_is_in_one_segment(folder: Path) -> None:
    """Over all offline files of a run the steps increase, and they are those of the records."""
    steps = defaultdict(list)
    for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb")):
        steps[path.stem.removeprefix("run-")] += [row["_step"] for row in read_history(path)]
    rows = numbers_of(folder)
    assert steps == {trial: [row["step"] for row in rows[trial]] for trial in rows}


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["asha", "halving"])
def test_three_kills_at_any_moment_break_no_promise(
    results: Path, undisturbed: tuple[Path, str], life_s: float, scheduler: str
) -> None:
    whole = numbers_of(undisturbed[0])

    def command_of(name: str) -> list[str]:
        half = ["scheduler.reduction_factor=2", *OF_ONE_HALF, "tracking=none"]
        return settings(results, f"name={name}", f"scheduler={scheduler}", *half)

    killer = Killer(results, command_of, life_s, seed=3)
    for name in killer.run(f"thrice_{scheduler}", 3, lambda n: assert_no_row_twice(results / n)):
        assert_ended_well(results / name, whole)
        if scheduler == "halving":
            reached = {
                trial: rows[-1]["rung"] for trial, rows in numbers_of(results / name).items()
            }
            assert reached == survivors_of(whole, RUNGS)


@pytest.mark.chaos
@pytest.mark.parametrize("scheduler", SWEEPS)
def test_twenty_kills_at_any_moment_break_no_promise(results: Path, scheduler: str) -> None:
    """KERZOO_KILL_SEED repeats the moments of a run that failed; KERZOO_KILLS asks for fewer."""

    def command_of(name: str) -> list[str]:
        return settings(results, f"name={name}", *SWEEPS[scheduler])

    start = time.monotonic()
    code, output = run_sweep(results / f"life_{scheduler}.log", command_of(f"life_{scheduler}"))
    assert code == 0, output
    life_s = time.monotonic() - start
    whole = numbers_of(results / f"life_{scheduler}")
    assert_ended_well(results / f"life_{scheduler}", whole)

    seed = int(os.environ.get("KERZOO_KILL_SEED") or random.SystemRandom().randrange(10**6))
    killer = Killer(results, command_of, life_s, seed)
    number = int(os.environ.get("KERZOO_KILLS", "20"))
    for name in killer.run(
        f"often_{scheduler}", number, lambda n: assert_no_row_twice(results / n)
    ):
        assert_ended_well(results / name, whole)
        if scheduler in INDEPENDENT_OF_TIME:
            assert numbers_of(results / name) == whole
        if "tracking=none" not in SWEEPS[scheduler]:
            assert_every_row_is_in_one_segment(results / name)
