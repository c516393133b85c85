"""What a trial costs beside its steps: seconds and driver memory for many trials that do nothing.

    python tests/bench/trials.py [--trials 1000] [--cpus 2]

The sweep is real: plan, records, events, scheduler and Ray's processes, which are reused from
trial to trial; only the work inside a trial is left out. Each writes its records as any other,
a row at step 0 and one at its end. The time counts from Ray's start to the last trial's end; its
processes import torch and transformers meanwhile, as in any sweep.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from kerzoo.records import TrialFolder, TrialSpec
from sweeps import runner
from sweeps.plan import make_plan

MEBI = 1024
"""Kibibytes, in which Linux counts a process's memory."""


def do_nothing(config: dict[str, Any]) -> None:
    """A trial without model and steps, in place of `sweeps.worker.train`."""
    from ray import tune

    from sweeps.worker import REPORTED

    folder = TrialFolder(Path(config["trials"]) / config["trial_id"])
    tune.report({"rung": None})
    spec = TrialSpec.from_dict(folder.read())
    writer = folder.begin_attempt()
    for rung in (0, spec.last_rung):
        row = dict.fromkeys(REPORTED, 0.0) | {"rung": rung, "step": rung // 2, "dev_loss": 1.0}
        row |= {"forward_passes": rung, "diverged": False, "peak_memory_gib": None}
        writer.append_row({"trial_id": spec.trial_id, **row})
        if rung:
            writer.set_status("finished")
        tune.report(row)


def overrides_of(trials: int, cpus: int, results: str) -> list[str]:
    """A plan of so many trials."""
    return [
        "+sweep=quickstart",
        "model=opt-tiny",
        "scheduler=fifo",
        "tracking=none",
        "search=random",
        f"search.num_samples={trials // 2}",
        "space={arm:[mezo,legendre2],training.perturbation_scale:[1e-2],"
        "training.learning_rate:{low:1e-4,high:1e-1,log:true}}",
        f"cluster.num_cpus={cpus}",
        f"results_dir={results}",
    ]


def main() -> None:
    """Run them and print a line."""
    parser = argparse.ArgumentParser(description="What a trial costs beside its steps.")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--cpus", type=int, default=2)
    asked = parser.parse_args()
    runner.prepare = lambda plan, console: 0
    runner.worker_function = lambda: do_nothing
    with tempfile.TemporaryDirectory() as results:
        plan = make_plan(overrides_of(asked.trials, asked.cpus, results), "")
        plan.write()
        plan.create_trials()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBI
        start = time.perf_counter()
        code = runner.run_plan(plan, Console(file=io.StringIO(), width=120))
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBI
        (run,) = json.loads((plan.folder / "run.json").read_text())["runs"]
    running = run["wall_time_s"]
    print(
        f"{len(plan.specs)} trials on {asked.cpus} CPUs: {running:.1f} s, "
        f"{running / len(plan.specs) * 1e3:.0f} ms a trial, of which {run['preparation_s']:.0f} s "
        f"until both processes run; {seconds:.1f} s with Ray's start and end. Driver memory "
        f"{peak:.0f} MiB, {before:.0f} MiB before. Exit code {code}."
    )


if __name__ == "__main__":
    main()
