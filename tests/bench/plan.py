"""What planning costs: seconds and memory for plans of several sizes.

    python tests/bench/plan.py [--sizes 10000 100000]

Each plan is that of `python sweep.py +sweep=quickstart plan_only=true` with two arms, five seeds
and a drawn learning rate and ε: composed, expanded, validated, identified, costed and printed, in a
process of its own. The last line compares seconds per trial, which a linear planner keeps.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NUM_ARMS, NUM_SEEDS = 2, 5
MEASURE = """
import io, resource, sys, time
from rich.console import Console
from sweeps.plan import make_plan
from sweeps.tables import print_plan
start = time.perf_counter()
plan = make_plan(sys.argv[1:], "")
made = time.perf_counter()
print_plan(plan, Console(file=io.StringIO()))
printed = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(len(plan.specs), made - start, printed - made, peak)
"""


def overrides_of(num_trials: int) -> list[str]:
    """A plan of so many trials."""
    rates = "training.learning_rate:{low:1e-4,high:1e-1,log:true}"
    scales = "training.perturbation_scale:{low:1e-4,high:1e-1,log:true}"
    return [
        "+sweep=quickstart",
        "model=opt-tiny",
        "plan_only=true",
        "search=sobol",
        f"search.num_samples={num_trials // (NUM_ARMS * NUM_SEEDS)}",
        f"seeds={NUM_SEEDS}",
        f"space={{arm:[mezo,legendre2],{scales},{rates}}}",
    ]


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description="What planning costs.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    per_trial = []
    print(f"{'trials':>8} {'plan s':>8} {'print s':>8} {'MiB':>6} {'µs/trial':>9}")
    for size in parser.parse_args().sizes:
        command = [sys.executable, "-c", MEASURE, *overrides_of(size)]
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        trials, planned_s, printed_s, peak = map(float, ended.stdout.split())
        per_trial.append((planned_s + printed_s) / trials * 1e6)
        print(f"{trials:8.0f} {planned_s:8.1f} {printed_s:8.1f} {peak:6.0f} {per_trial[-1]:9.0f}")
    print(f"seconds per trial at the last size: {per_trial[-1] / per_trial[0]:.2f} × the first's")


if __name__ == "__main__":
    main()
