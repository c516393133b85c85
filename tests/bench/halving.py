"""Early stopping compared on known curves: what it saves, and what it misses.

    python tests/bench/halving.py [results/NAME …] [--trials 3000] [--slots 32] [--repeats 5]

With results folders, whose trials must have run to their end (scheduler=fifo), trials are drawn
with replacement from the recorded curves; without any they follow made-up curves that cross,
diverge and differ between two tasks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from kerzoo.records import TrialFolder
from sweeps.schedulers import FIFO, HyperBand, MedianStopping, StratifiedASHA, SynchronousHalving
from sweeps.schedulers.base import Scheduler
from sweeps.schedulers.simulation import Curve, Outcome, simulate

RUNGS = (120, 240, 600, 1200)
ARMS = ("mezo", "legendre2", "legendre4", "gaussian4", "richardson4", "biweight4")
SCHEDULERS: dict[str, Scheduler] = {
    "FIFO": FIFO("fifo"),
    "ASHA, plain": StratifiedASHA("asha", control_fraction=0.0, survivors_per_arm=0),
    "StratifiedASHA": StratifiedASHA("asha"),
    "synchronous halving": SynchronousHalving("halving"),
    "HyperBand": HyperBand("hyperband"),
    "median stopping": MedianStopping("median"),
}


def make_curves(num_trials: int, seed: int) -> list[Curve]:
    """Losses that fall from a task's start at a rate of the cell's own, some too fast at first."""
    generator = random.Random(seed)
    curves = []
    for index in range(num_trials):
        arm = ARMS[index % len(ARMS)]
        task = ("easy", "hard")[index // len(ARMS) % 2]
        start, floor = {"easy": (0.7, 0.2), "hard": (1.4, 0.9)}[task]
        depth = generator.betavariate(2.0, 4.0) * (1.0 - 0.05 * ARMS.index(arm))
        pace = generator.uniform(0.3, 3.0)  # independent of depth: curves cross
        limit = generator.choice(RUNGS[1:]) if generator.random() < 0.06 else math.inf
        values = [
            start
            - (start - floor) * depth * (1.0 - (1.0 + rung / 300.0) ** -pace)
            + generator.gauss(0.0, 0.01)
            if rung < limit
            else math.inf
            for rung in RUNGS
        ]
        curves.append(Curve(f"t{index:05}", arm, task, RUNGS, tuple(values)))
    return curves


def read_curves(folders: Sequence[Path], num_trials: int, seed: int) -> list[Curve]:
    """Trials drawn with replacement from the whole curves of results folders."""
    recorded = []
    for folder in folders:
        plan = json.loads((folder / "plan.json").read_text())
        strata = {trial: name for name, trials in plan["strata"].items() for trial in trials}
        for spec in plan["trials"]:
            rows = TrialFolder(folder / "trials" / spec["trial_id"]).rows()
            values = {row["rung"]: math.inf if row["diverged"] else row["dev_loss"] for row in rows}
            whole = tuple(values.get(rung, math.inf) for rung in spec["rungs"])
            if math.inf in values.values() or math.inf not in whole:
                curve = Curve(
                    "", spec["arm"], strata[spec["trial_id"]], tuple(spec["rungs"]), whole
                )
                recorded.append(curve)
    if not recorded:
        raise SystemExit("no trial there ran to its end; record them with scheduler=fifo")
    generator = random.Random(seed)
    return [
        dataclasses.replace(generator.choice(recorded), trial=f"t{i:05}") for i in range(num_trials)
    ]


def regrets(curves: Sequence[Curve], outcome: Outcome) -> tuple[list[float], list[float], int]:
    """How much worse than the best of all the best finished trial is in the end.

    Returns:
        In each stratum; in each arm of each stratum that has a finished trial; how many have none.
    """
    best: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [math.inf, math.inf])
    for curve in curves:
        for key in ((curve.stratum,), (curve.stratum, curve.arm)):
            best[key][0] = min(best[key][0], curve.values[-1])
            if curve.trial in outcome.finished:
                best[key][1] = min(best[key][1], curve.values[-1])
    found = {key: got - ideal for key, (ideal, got) in best.items() if math.isfinite(ideal)}
    arms = [regret for key, regret in found.items() if len(key) == 2]
    kept = [regret for regret in arms if math.isfinite(regret)]
    return [r for key, r in found.items() if len(key) == 1], kept, len(arms) - len(kept)


def compare(curves_of: Sequence[Sequence[Curve]], num_slots: int) -> list[list[str]]:
    """A row of the table for each scheduler, averaged over repeats."""
    table = []
    for name, scheduler in SCHEDULERS.items():
        saved, time, whole, arms, lost = [], [], [], [], []
        for seed, curves in enumerate(curves_of):
            chosen = curves
            if name == "ASHA, plain":
                chosen = [dataclasses.replace(curve, stratum="all") for curve in curves]
            outcome = simulate(scheduler, chosen, num_slots, seed)
            total = sum(curve.rungs[-1] for curve in curves)
            saved.append(1.0 - sum(outcome.forward_passes.values()) / total)
            time.append(outcome.wall_time * num_slots / total)
            of_strata, of_arms, none = regrets(curves, outcome)
            whole.append(max(of_strata))
            arms.append(statistics.fmean(of_arms))
            lost.append(none)
        table.append(
            [
                name,
                f"{statistics.fmean(saved):.1%}",
                f"{statistics.fmean(time):.2f}",
                f"{statistics.fmean(whole):.4f}",
                f"{statistics.fmean(arms):.4f}",
                f"{statistics.fmean(lost):.1f}",
            ]
        )
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    curves_of = [
        read_curves(arguments.folders, arguments.trials, seed)
        if arguments.folders
        else make_curves(arguments.trials, seed)
        for seed in range(arguments.repeats)
    ]
    head = [
        "scheduler",
        "saved",
        "time",
        "worst regret of a task",
        "mean regret of an arm",
        "arms lost",
    ]
    rows = [head, *compare(curves_of, arguments.slots)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    print(
        f"{arguments.trials} trials, {arguments.slots} slots, mean of {arguments.repeats} sweeps; "
        "saved: forward passes; time: slots x wall time over the passes of all whole trials; "
        "regret: dev loss of the best finished trial less that of the best of all; "
        "arms lost: pairs of task and arm without a finished trial."
    )


if __name__ == "__main__":
    main()
