"""`python -m kerzoo.training PLAN`: the trials of a plan with torch and transformers alone."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from kerzoo.attempt import run_trial
from kerzoo.models.placement import num_gpus_here
from kerzoo.options import TrialOptions
from kerzoo.progress import ProgressBars
from kerzoo.records import ENDED, Row, TrialFolder, TrialSpec, score_of
from kerzoo.workspace import Bench, Workspace


def time_forward_pass(
    options: TrialOptions, bench: Bench, folder: TrialFolder, num_steps: int = 3
) -> float:
    """Median duration of a step without its update, in seconds per forward pass, noise included.

    The weights stay as they are. 0 where the method makes no step.
    """
    learner = options.method.start(options, bench, folder)
    times = []
    for step in range(min(num_steps, options.num_steps)):
        start = time.perf_counter()
        passes = learner.measure(step)
        times.append((time.perf_counter() - start) / passes)
    return statistics.median(times) if times else 0.0


def prepare(specs: Sequence[TrialSpec], workspace: Workspace) -> dict[str, Any]:
    """Do once what all trials need: fetch models, cache frozen outputs, time a forward pass.

    Returns:
        `model_s` and `cache_s`, durations of loading and of everything else before the first
        step, `forward_pass_s`, the mean over the trials, and `data`: in words, what of the data
        the models do not see.

    Raises:
        ValueError: When model, task and tuning of a trial do not fit each other.
    """
    times: dict[str, Any] = {"model_s": 0.0, "cache_s": 0.0, "forward_pass_s": 0.0, "data": []}
    kinds = {workspace_key(spec): spec for spec in specs}
    counts = Counter(workspace_key(spec) for spec in specs)
    read_data(kinds.values())
    for key, spec in sorted(kinds.items()):  # by model, to load each as seldom as possible
        options = TrialOptions.from_config(spec.config)
        torch.set_num_threads(options.training.threads)
        start = time.perf_counter()
        workspace.load(options)
        times["model_s"] += time.perf_counter() - start
        start = time.perf_counter()
        with workspace.open(options) as bench:
            times["cache_s"] += time.perf_counter() - start
            nowhere = TrialFolder(Path(os.devnull))  # no attempt was made
            measured = time_forward_pass(options, bench, nowhere)
            times["forward_pass_s"] += measured * counts[key] / len(specs)
            splits = {name: loss.runner.sequences for name, loss in bench.losses.items()}
        if spec.phase == "confirm":
            with workspace.open_test(options) as (_, loss):
                splits["test"] = loss.runner.sequences
        for split, sequences in splits.items():
            lines = options.task.describe_losses(split, sequences)
            times["data"] += [line for line in lines if line not in times["data"]]
    return times


def read_data(specs: Iterable[TrialSpec]) -> None:
    """Read each split that trials need, so that what is wrong in one shows before a model loads.

    Raises:
        ValueError: Naming file and line.
    """
    seen = set()
    for spec in specs:
        options = TrialOptions.from_config(spec.config)
        confirmed = ("test",) if spec.phase == "confirm" else ()
        for split in (*options.method.data_splits, *confirmed):
            key = json.dumps([spec.config["task"], split], sort_keys=True)
            if key not in seen:
                seen.add(key)
                options.task.examples(split)


def workspace_key(spec: TrialSpec) -> str:
    """What decides which model, data and adapters a trial needs, and what a step does."""
    parts = [spec.config[name] for name in ("model", "task", "tuning", "method")]  # model first
    return json.dumps([*parts, spec.config["training"]["device"]], sort_keys=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kerzoo.training",
        description="Run the trials of a plan one after another, with torch and transformers "
        "alone: no Ray, no Hydra. Finished trials are skipped and interrupted ones continue, so "
        "the same command resumes. Records are those that a sweep leaves.",
        epilog="Exit codes: 0 done; 1 some trials failed; 2 the plan is wrong; 130 interrupted.",
    )
    parser.add_argument("plan", type=Path, help="results/NAME/plan.json, written by sweep.py")
    parser.add_argument("--trial", metavar="ID", help="run this trial only")
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="only fetch models, fill the caches and time a forward pass; print the times as JSON",
    )
    options = parser.parse_args(arguments)
    try:
        specs = read_plan(options.plan, options.trial)
        num_gpus = gpus_of_plan(options.plan)
        if options.prepare:
            workspace = Workspace(os.cpu_count() or 1, ProgressBars(), num_gpus)
            print(json.dumps(prepare(specs, workspace)))
            return 0
        return run_trials(specs, options.plan.parent, num_gpus)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues", file=sys.stderr)
        return 130


def read_plan(path: Path, trial: str | None = None) -> list[TrialSpec]:
    """The trials of a plan.json, or one of them.

    Raises:
        ValueError: If there is no such plan or trial, or a configuration is wrong.
    """
    try:
        specs = [TrialSpec.from_dict(entry) for entry in json.loads(path.read_text())["trials"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a plan: {error!r}; sweep.py writes it") from error
    if trial is not None:
        specs = [spec for spec in specs if spec.trial_id == trial]
        if not specs:
            raise ValueError(f"--trial {trial}: no such trial in {path}")
    for spec in specs:
        TrialOptions.from_config(spec.config)
    return specs


def gpus_of_plan(path: Path) -> int:
    """GPUs that a plan.json gives to each trial, as far as they are visible here; 1 without one."""
    try:
        planned = json.loads(path.read_text())["config"]["cluster"]["gpus_per_trial"]
    except (OSError, ValueError, KeyError, TypeError):
        return 1
    return num_gpus_here(planned)


def run_trials(specs: Sequence[TrialSpec], results: Path, num_gpus: int = 1) -> int:
    """Run trials in this process, in order.

    Args:
        specs: The trials.
        results: results/NAME.
        num_gpus: Over which a model is spread.

    Returns:
        1 if any of them failed, else 0.
    """
    bars = ProgressBars()
    workspace = Workspace(os.cpu_count() or 1, bars, num_gpus)
    folders = {spec.trial_id: TrialFolder(results / "trials" / spec.trial_id) for spec in specs}
    for number, spec in enumerate(specs, start=1):
        folder = folders[spec.trial_id]
        folder.create(spec)
        if folder.status in ENDED:
            bars.say(f"[{number}/{len(specs)}] {spec.trial_id} {spec.arm}: {folder.status} already")
            continue
        bars.say(f"[{number}/{len(specs)}] {spec.trial_id} {spec.arm}")
        try:
            for row in run_trial(spec, folder, workspace, bars):
                bars.say(format_row(row))
            for about, note in folder.read().get("notes", {}).items():
                bars.say(f"  {about}: {note}")
        except KeyboardInterrupt:
            folder.update(status="interrupted")
            raise
        except Exception as error:
            bars.say(f"  failed: {type(error).__name__}: {error} (traceback in trial.json)")
    return int(any(folder.status == "failed" for folder in folders.values()))


def format_row(row: Row) -> str:
    """A row as one line for people."""
    if row["diverged"]:
        return f"  step {row['step']:>6}  diverged"
    name, score = score_of(row)
    line = (
        f"  step {row['step']:>6}  {row['forward_passes']:>7} forward passes  "
        f"dev loss {row['dev_loss']:.4f}  {name} {score:.3f}  "
        f"{row['device_time_s']:.0f} s"
    )
    if row.get("test_step") is None:
        return line
    read = row["test_f1"] if "test_f1" in row else row["test_accuracy"]
    return f"{line}; test at step {row['test_step']}: {name} {read:.3f}"


if __name__ == "__main__":
    sys.exit(main())
