"""Early stopping compared on known curves: what it saves, and what it misses.

    python tests/bench/halving.py [RECORDS …] [--trials 2000] [--slots 32] [--repeats 3]

RECORDS are results folders whose trials all ran to their end (scheduler=fifo), or a published
study's records.tar.xz. Trials are drawn with replacement from the recorded curves; a table says
what each scheduler would have saved and missed. Without RECORDS there are two tables: of the 396
screened trials of the study of kernels on SmolLM2, and of made-up curves that cross, diverge and
differ between two tasks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import statistics
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from kerzoo.records import TrialFolder
from sweeps.schedulers import FIFO, HyperBand, MedianStopping, StratifiedASHA, SynchronousHalving
from sweeps.schedulers.base import Scheduler
from sweeps.schedulers.simulation import Curve, Outcome, simulate

STUDY = Path(__file__).parents[2] / "analysis" / "studies" / "smollm2_kernels" / "records.tar.xz"
RUNGS = (120, 240, 600, 1200)
ARMS = ("mezo", "legendre2", "legendre4", "gaussian4", "richardson4", "biweight4")
SCHEDULERS: dict[str, Scheduler] = {
    "FIFO": FIFO("fifo"),
    "ASHA, plain": StratifiedASHA("asha", control_fraction=0.0, survivors_per_arm=0),
    "StratifiedASHA": StratifiedASHA("asha"),
    "StratifiedASHA, quota 3": StratifiedASHA("asha", survivors_per_arm=3),
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


def read_curves(source: Path) -> list[Curve]:
    """The whole curves of a results folder, or of one that is packed; confirming trials left out.

    Raises:
        ValueError: If no trial there ran to its end.
    """
    if source.is_file():
        with tempfile.TemporaryDirectory() as unpacked:
            unpack(source, Path(unpacked))
            return read_curves(Path(unpacked))
    curves = list(_whole_curves(source))
    if not curves:
        raise ValueError(f"{source}: no trial ran to its end; record them with scheduler=fifo")
    return curves


def unpack(source: Path, folder: Path) -> None:
    """Write the regular files of an archive of our own; some 3.11 have no `filter` for it."""
    with tarfile.open(source) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())


def _whole_curves(folder: Path) -> Iterator[Curve]:
    plan = json.loads((folder / "plan.json").read_text())
    strata = {trial: name for name, trials in plan["strata"].items() for trial in trials}
    for spec in plan["trials"]:
        trial, rungs = spec["trial_id"], tuple(spec["rungs"])
        rows = TrialFolder(folder / "trials" / trial).rows()
        values = {row["rung"]: math.inf if row["diverged"] else row["dev_loss"] for row in rows}
        whole = tuple(values.get(rung, math.inf) for rung in rungs)
        if trial in strata and (math.inf in values.values() or math.inf not in whole):
            yield Curve(trial, spec["arm"], strata[trial], rungs, whole)


def resample(curves: Sequence[Curve], num_trials: int, seed: int) -> list[Curve]:
    """Trials drawn with replacement from recorded curves, under names of their own."""
    generator = random.Random(seed)
    return [
        dataclasses.replace(generator.choice(curves), trial=f"t{i:05}") for i in range(num_trials)
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


HEAD = (
    "scheduler",
    "saved",
    "time",
    "worst regret of a task",
    "mean regret of an arm",
    "worst regret of an arm",
    "arms lost",
)


def compare(curves_of: Sequence[Sequence[Curve]], num_slots: int) -> list[list[str]]:
    """A row of the table for each scheduler, averaged over repeats."""
    return [
        [name, *_measure(name == "ASHA, plain", scheduler, curves_of, num_slots)]
        for name, scheduler in SCHEDULERS.items()
    ]


def _measure(
    is_plain: bool, scheduler: Scheduler, curves_of: Sequence[Sequence[Curve]], num_slots: int
) -> list[str]:
    """A scheduler's figures; a plain one compares the trials of all tasks with each other."""
    figures = []
    for seed, curves in enumerate(curves_of):
        chosen = [dataclasses.replace(c, stratum="all") for c in curves] if is_plain else curves
        outcome = simulate(scheduler, chosen, num_slots, seed)
        total = sum(curve.rungs[-1] for curve in curves)
        tasks, arms, lost = regrets(curves, outcome)
        saved = 1.0 - sum(outcome.forward_passes.values()) / total
        time = outcome.wall_time * num_slots / total
        figures.append((saved, time, max(tasks), statistics.fmean(arms), max(arms), lost))
    saved, time, task, mean, worst, lost = map(statistics.fmean, zip(*figures, strict=True))
    return [
        f"{saved:.1%}",
        f"{time:.2f}",
        f"{task:.4f}",
        f"{mean:.4f}",
        f"{worst:.4f}",
        f"{lost:.1f}",
    ]


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="What early stopping saves, and what it misses.")
    parser.add_argument("records", nargs="*", type=Path)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    seeds = range(asked.repeats)
    for source in asked.records or [STUDY]:
        recorded = read_curves(source)
        print(f"\n{source}: {asked.trials} trials drawn from {len(recorded)} recorded ones")
        curves_of = [resample(recorded, asked.trials, seed) for seed in seeds]
        print_table([HEAD, *compare(curves_of, asked.slots)])
    if not asked.records:
        print(f"\n{asked.trials} made-up trials of two tasks")
        curves_of = [make_curves(asked.trials, seed) for seed in seeds]
        print_table([HEAD, *compare(curves_of, asked.slots)])
    print(
        f"\n{asked.slots} slots, mean of {asked.repeats} sweeps; saved: share of the forward "
        "passes of all whole trials that is not spent; time: slots x wall time over those passes; "
        "regret: final dev loss of the best finished trial less that of the best of all; arms "
        "lost: pairs of task and arm without a finished trial. ASHA, plain: one set of rungs for "
        "all tasks, no quota, no controls; quota: scheduler.survivors_per_arm, else 1."
    )


if __name__ == "__main__":
    main()
