"""How long a trial takes to start: in a fresh process, and in a worker that ran one before.

    python tests/bench/startup.py
    python tests/bench/startup.py --model opt-tiny

A start ends with the optimizer over the attached parameters, ready for the first step, which is
made and not timed. The model and the data are fetched and cached beforehand.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a file: the checkout is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from kerzoo.methods.zeroth_order import ZerothOrderLearner
from kerzoo.options import TrialOptions
from kerzoo.workspace import Workspace
from sweeps.compose import compose

TUNINGS = ("lora_last6", "lora", "full")


def start(workspace: Workspace, options: TrialOptions) -> float:
    """Seconds until a trial could make its first step."""
    before = time.perf_counter()
    with workspace.open(options) as bench:
        learner = ZerothOrderLearner(options, bench)
        duration = time.perf_counter() - before
        learner.advance(0)
    return duration


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python tests/bench/startup.py",
        description="Time the start of a trial, cold and on a warm worker.",
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--task", default="movie_reviews")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="warm starts")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    print(f"{asked.model} on {asked.task}\n{'tuning':12}{'cold':>10}{'warm':>10}   of the rounds")
    for tuning in TUNINGS:
        chosen = (f"model={asked.model}", f"task={asked.task}", f"tuning={tuning}")
        config = compose([*chosen, "training.device=cpu"]).config
        options = TrialOptions.from_config(config)
        start(Workspace(asked.threads), options)  # fetches and fills the caches
        workspace = Workspace(asked.threads)
        cold = start(workspace, options)
        warm = sorted(start(workspace, options) for _ in range(asked.rounds))
        print(
            f"{tuning:12}{cold:8.2f} s{statistics.median(warm):8.2f} s"
            f"   {warm[0]:.2f} … {warm[-1]:.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
