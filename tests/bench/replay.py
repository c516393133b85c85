"""How much faster a step is replayed than made: training against `KerZOO.replay`, interleaved.

    python tests/bench/replay.py
    python tests/bench/replay.py --threads 1 --rounds 3
    python tests/bench/replay.py --model opt-350m --batch-size 8

The model has random weights and a published model's sizes; nothing is downloaded. Both kinds of
step are timed in turn in one process, so that a busy machine slows both; medians are shown.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # run as a file: the checkout is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from shapes import SHAPES, make_model, make_split
from torch import nn

from kerzoo.losses import LabelWordLoss, SequenceRunner, SplitLoss
from kerzoo.models import LoadedModel
from kerzoo.optimizer import KerZOO
from kerzoo.tuning import FullTuning, LoRA, Tuning
from kerzoo.weights import PRECISIONS, Precision

TUNINGS: dict[str, Tuning] = {"full": FullTuning(), "lora": LoRA()}
TARGET = 5.0
"""Replaying with a master copy should be at least this many times as fast as training."""


class Speed(NamedTuple):
    """Durations of the rounds, in seconds."""

    num_parameters: int
    training_s: list[float]
    replay_s: list[float]

    @property
    def ratio(self) -> float:
        """Speed of replaying in units of training: of the medians."""
        return statistics.median(self.training_s) / statistics.median(self.replay_s)

    @property
    def ratios(self) -> list[float]:
        """The same round by round, sorted."""
        return sorted(a / b for a, b in zip(self.training_s, self.replay_s, strict=True))


def measure(
    loaded: LoadedModel, loss: SplitLoss, tuning: Tuning, precision: Precision, rounds: int
) -> Speed:
    """Train and replay one step in turn, after one of each that is not counted."""
    training, replay = [], []
    with tuning.attach(loaded.model, seed=0) as attached:
        parameters: list[nn.Parameter] = list(attached.parameters.values())
        threads = torch.get_num_threads()
        optimizer = KerZOO(parameters, lr=1e-6, precision=precision, num_threads=threads, lazy=True)
        indices = list(range(len(loss.split)))
        for _ in range(rounds + 1):
            start = time.perf_counter()
            estimate = optimizer.estimate(lambda: loss.loss(indices))
            optimizer.apply(estimate)
            middle = time.perf_counter()
            optimizer.replay(estimate.losses)  # of the next step, of other directions
            end = time.perf_counter()
            training.append(middle - start)
            replay.append(end - middle)
        size = len(optimizer.weights)
    return Speed(size, training[1:], replay[1:])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python tests/bench/replay.py",
        description="Time training steps against replayed ones, in turn in one process, on a "
        "model with random weights. A trial that is resumed, exported or tested at its best "
        f"checkpoint replays its log; with precision=master it should be ≥ {TARGET:g} times as "
        "fast as training was.",
        epilog="Exit codes: 0 done; 1 replaying with a master copy of all weights is slower than "
        f"{TARGET:g} times training; 2 a wrong argument. --rounds 5 takes about two minutes on "
        "two cores.",
    )
    parser.add_argument("--model", choices=sorted(SHAPES), default="opt-125m")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tuning", nargs="+", choices=sorted(TUNINGS), default=list(TUNINGS))
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=["master", "inplace"], metavar="P"
    )
    parser.add_argument("--batch-size", type=int, default=16, metavar="B")
    parser.add_argument("--length", type=int, default=64, metavar="T", help="tokens an example")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of torch and noise")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="counted steps")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, return the exit code."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    print(
        f"{options.model}, {options.dtype}, batches of {options.batch_size} × {options.length} "
        f"tokens, {options.threads} threads, medians of {options.rounds} rounds\n"
    )
    print(f"{'tuning':8}{'precision':14}{'parameters':>12}", end="")
    print(f"{'training step':>16}{'replayed step':>16}{'ratio':>8}   of the rounds")
    ratios = {}
    for tuning in options.tuning:
        for precision in options.precision:
            loaded = make_model(options.model, options.dtype)
            split = make_split(
                options.batch_size, options.length, SHAPES[options.model][1].vocab_size
            )
            runner = SequenceRunner(loaded, split.sequences)
            loss = LabelWordLoss(runner, split, "cross_entropy")
            speed = measure(loaded, loss, TUNINGS[tuning], precision, options.rounds)
            ratios[tuning, precision] = speed.ratio
            print(
                f"{tuning:8}{precision:14}{speed.num_parameters:12,}"
                f"{statistics.median(speed.training_s):14.3f} s"
                f"{statistics.median(speed.replay_s):14.4f} s{speed.ratio:8.1f}"
                f"   {speed.ratios[0]:.1f} … {speed.ratios[-1]:.1f}",
                flush=True,
            )
    slow = ratios.get(("full", "master"), TARGET) < TARGET
    if slow:
        print(f"\nReplaying with a master copy should be at least {TARGET:g} times as fast.")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
