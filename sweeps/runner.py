"""Runs a plan's trials with Ray Tune, as far as they have not run yet.

A sweep is never resumed by `Tuner.restore`, which forgets the scheduler's state and wakes trials
that wait. Every start builds a new Tuner from the plan and the records: ended trials are left
out, the scheduler is given their rows, interrupted trials replay their own trajectory.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from kerzoo.failures import classify
from kerzoo.records import ENDED, Row, TrialSpec, timestamp
from sweeps.cluster import set_environment, start_ray
from sweeps.compose import ConfigError
from sweeps.cost import stratum_of, wall_time_s
from sweeps.events import read_events
from sweeps.ledger import RUN_FILE, Ledger, exhausted_before
from sweeps.lock import driver_lock
from sweeps.observers import Observers
from sweeps.plan import Plan, price, summarise
from sweeps.progress import Display, format_duration, label_cell
from sweeps.resources import (
    cluster_nodes,
    count_slots,
    count_slots_here,
    resources_without_neighbours,
    trial_resources,
)
from sweeps.status import ENDS, STARTS
from sweeps.stopping import StopSignal

STOP_FILE = ".stop"
"""In the results folder: asks a sweep to stop."""


def run_plan(plan: Plan, console: Console) -> int:
    """Run what is left of a plan, whose folder is held by `only_driver`.

    Trials get their folders once preparing them, which reads all data, has shown that they can run.

    Returns:
        0 if every trial ended well, 1 if some failed, 2 if preparing them showed that they
        cannot run, 130 if interrupted or if earlier runs spent the budget.

    Raises:
        ConfigError: Before any work starts.
    """
    for spec in plan.specs:
        plan.trial_folder(spec.trial_id).reopen()
    pending = [s for s in plan.specs if plan.trial_folder(s.trial_id).status not in done(plan)]
    if pending and exhausted_before(plan.folder / RUN_FILE, plan.sweep.budget):
        return 130
    begun = time.monotonic()
    code = prepare(plan, console) if pending else 0
    if code:
        return code
    plan.create_trials()
    if not pending:
        console.print(f"All {len(plan.specs)} trials have ended already.")
        _conclude(plan, console)
        return exit_code(plan)
    announce(plan, pending, console)
    set_environment(plan.sweep.cluster)
    stop = None
    try:
        stop = _fit(plan, pending, console, begun)
    except KeyboardInterrupt:
        pass
    except OSError as error:
        if classify(error) != "disk":
            raise
        console.print(f"The results cannot be written: {error}", soft_wrap=True, markup=False)
    finally:
        with contextlib.suppress(OSError):  # a full disk, of which the stop has told
            _mark_interrupted(plan)
    return 1 if stop is not None and stop.is_failure else exit_code(plan)


def _conclude(plan: Plan, console: Console) -> None:
    """Do what a driver that was killed behind its last trial did not come to."""
    marks = read_events(plan.folder / "events.jsonl", *STARTS, *ENDS)
    if not marks or marks[-1]["event"] in ENDS or exit_code(plan.whole or plan) == 130:
        return
    from sweeps.callbacks import observe

    shutil.rmtree(plan.folder / ".ray", ignore_errors=True)
    observers = observe(plan, lambda text: console.print(f"warning: {text}", markup=False))
    for spec in plan.specs:
        observers.changed(spec.trial_id)
    _say_left(observers, plan)
    observers.close()


def done(plan: Plan) -> frozenset[str]:
    """Statuses of trials that are not to be run."""
    return ENDED - {"failed"} if plan.sweep.failures.retry else ENDED


def exit_code(plan: Plan) -> int:
    """130 if a trial has not ended, 1 if one failed, else 0."""
    statuses = {plan.trial_folder(spec.trial_id).status for spec in plan.specs}
    if statuses - ENDED:
        return 130
    return int("failed" in statuses)


@contextlib.contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Hold the results folder; the lock of a driver that died is free.

    Raises:
        ConfigError: If another sweep runs in the same folder, or it cannot be written to.
    """
    lock = driver_lock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise ConfigError(
                f"{folder}: another sweep is running there; wait for it, or choose name=NAME"
            ) from error
        raise ConfigError(f"results_dir: cannot write to {folder}: {error}") from error
    try:
        yield
    finally:
        lock.release()


def check_devices(plan: Plan) -> None:
    """Refuse a sweep for GPUs on a machine without one.

    Raises:
        ConfigError: Naming `training.device` and `cluster`.
    """
    ended = frozenset() if plan.sweep.fresh else done(plan)
    pending = [s for s in plan.specs if plan.trial_folder(s.trial_id).status not in ended]
    wanted = any(spec.config["training"]["device"] == "cuda" for spec in pending)
    if not wanted or plan.sweep.cluster.address != "local":
        return
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            "training.device: this sweep is planned for cuda and this machine has no GPU; set "
            "training.device=cpu, or cluster=auto to use a Ray cluster that has"
        )


def prepare(plan: Plan, console: Console) -> int:
    """Fetch models, fill caches and time a step in a process of its own, which shows its progress.

    Keeps torch's memory out of the driver. Trials for a GPU that this machine lacks prepare
    themselves on their node.
    """
    if plan.sweep.cluster.address != "local":
        return 0
    command = [sys.executable, "-m", "kerzoo.training", str(plan.folder / "plan.json"), "--prepare"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        return result.returncode if result.returncode in (2, 130) else 1
    times = json.loads(result.stdout.splitlines()[-1])
    plan.write(preparation=times, **price(plan.whole or plan, times["forward_pass_s"]))
    kinds = {stratum_of(options) for options in plan.options}
    average = " on average" if len(kinds) > 1 else ""
    console.print(
        f"Prepared: model {times['model_s']:.0f} s, data and cache {times['cache_s']:.0f} s, "
        f"one forward pass takes {times['forward_pass_s']:.2f} s{average}."
    )
    for line in times["data"]:
        console.print(line, soft_wrap=True, markup=False)
    return 0


def announce(plan: Plan, pending: list[TrialSpec], console: Console) -> None:
    """Say how long it will take, and whether that is within the time budget."""
    forward_pass_s = plan.content["preparation"].get("forward_pass_s")
    if forward_pass_s is None:
        return
    chosen = {spec.trial_id for spec in pending}
    options = [o for s, o in zip(plan.specs, plan.options, strict=True) if s.trial_id in chosen]
    hours = summarise(options, pending, plan.sweep, forward_pass_s)
    slots = min(len(pending), count_slots_here(plan.sweep.cluster, options) or 1)
    seconds = wall_time_s(hours, slots)
    console.print(
        f"{len(pending)} of {len(plan.specs)} trials to run, {slots} at a time: about "
        f"{format_duration(seconds)} of training, evaluation not counted.",
        soft_wrap=True,
    )
    budget = plan.sweep.time_budget_s
    if budget is not None and seconds > budget:
        console.print(
            f"[yellow]That is more than the {format_duration(budget)} meant for this sweep. It "
            "runs all the same; Ctrl-C stops it, and the same command resumes.[/yellow]"
        )


def _fit(plan: Plan, pending: list[TrialSpec], console: Console, begun: float) -> StopSignal:
    import ray

    from sweeps.callbacks import observe

    sweep = plan.sweep
    folders = {spec.trial_id: plan.trial_folder(spec.trial_id) for spec in plan.specs}
    rows = {trial: folder.rows() for trial, folder in folders.items()}
    labels = {c["trial_id"]: label_cell(c["values"]) for c in reversed(plan.content["cells"])}
    statuses = {trial: folder.status for trial, folder in folders.items()}
    display = Display(console, plan.specs, labels, statuses, rows, sweep.scheduler.rule)
    observers = observe(plan, display.warn)
    stop = StopSignal(plan.folder / STOP_FILE, functools.partial(_warn, display, observers))
    prepared_s = time.monotonic() - begun
    ledger = Ledger(plan.folder / RUN_FILE, sweep.budget, 0.0, rows, len(pending), prepared_s)
    spent = ledger.exhausted()
    if spent:
        stop.request(spent)
        ledger.save()
        observers.close()
        return stop
    _say_begun(observers, len(pending), rows)
    storage = plan.folder / ".ray"
    shutil.rmtree(storage, ignore_errors=True)
    try:  # Ray takes SIGTERM for itself when it starts
        start_ray(sweep.cluster)
        with stop.on_signals(), contextlib.ExitStack() as stack:
            tuner = _tuner(plan, pending, rows, stop, ledger, storage, display, observers)
            stack.enter_context(display)
            tuner.fit()
    finally:
        ledger.advance()
        with contextlib.suppress(OSError):  # a full disk, of which the stop has told
            ledger.save()
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
        with contextlib.suppress(OSError):
            _mark_interrupted(plan)
            _say_left(observers, plan)
        observers.close()
    console.print(ledger.describe(), soft_wrap=True)
    return stop


def _tuner(
    plan: Plan,
    pending: list[TrialSpec],
    rows: dict[str, list[Row]],
    stop: StopSignal,
    ledger: Ledger,
    storage: Path,
    display: Display,
    observers: Observers,
) -> Any:
    from ray import tune

    from sweeps.callbacks import SweepCallback
    from sweeps.control import Control, EndWhenIdle
    from sweeps.recovery import MemoryAwareActors, PatientController, RecoveringScheduler

    MemoryAwareActors.install()
    PatientController.install()
    sweep, folders = plan.sweep, {s.trial_id: plan.trial_folder(s.trial_id) for s in plan.specs}
    chosen = {spec.trial_id for spec in pending}
    options = [o for s, o in zip(plan.specs, plan.options, strict=True) if s.trial_id in chosen]
    peaks = [r["peak_memory_gib"] for own in rows.values() for r in own if r["peak_memory_gib"]]
    resources = trial_resources(sweep.cluster, options, peaks)
    ledger.gpus_per_trial = resources.get("gpu", 0.0)

    def slots() -> int:
        return max(1, min(len(pending), count_slots(resources, cluster_nodes())))

    ledger.num_slots = slots()
    alone = resources_without_neighbours(resources, cluster_nodes())
    scheduler = _scheduler(plan, rows)
    return tune.Tuner(
        tune.with_resources(worker_function(), resources),
        param_space={
            "trial_id": tune.grid_search([spec.trial_id for spec in pending]),
            "trials": str(plan.folder / "trials"),
            "stop": str(stop.path),
            "started_in": os.getcwd(),
            "shares": resources != alone,
        },
        tune_config=tune.TuneConfig(
            scheduler=RecoveringScheduler(scheduler, folders, sweep.failures, stop, alone),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.config["trial_id"]),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage),
            verbose=0,
            stop=EndWhenIdle(stop, ledger),
            failure_config=tune.FailureConfig(max_failures=-1),  # sweeps.recovery counts
            callbacks=[
                SweepCallback(folders, display, observers, scheduler.gave_up),
                Control(folders, sweep.failures, stop, ledger, slots),
            ],
        ),
    )


def worker_function() -> Callable[[dict[str, Any]], None]:
    """What a worker does with a trial."""
    from sweeps.worker import train

    return train


def _scheduler(plan: Plan, rows: dict[str, list[Row]]) -> Any:
    from sweeps.schedulers.tune import RungScheduler

    return RungScheduler.for_plan(plan, rows)


def _warn(display: Display, observers: Observers, message: str) -> None:
    """Tell of a budget, a full disk or failures, on the console and to whoever observes."""
    display.warn(message)
    with contextlib.suppress(OSError):  # a full disk, of which the console has told
        observers.event("warning", message=message)


def _say_begun(observers: Observers, num_pending: int, rows: Mapping[str, Sequence[Row]]) -> None:
    observers.event(
        "resumed" if any(rows.values()) else "started",
        host=socket.gethostname(),
        pid=os.getpid(),
        pending=num_pending,
        forward_passes=sum(int(r[-1]["forward_passes"]) for r in rows.values() if r),
    )


def _say_left(observers: Observers, plan: Plan) -> None:
    statuses = [plan.trial_folder(spec.trial_id).status for spec in plan.specs]
    left = sum(status not in ENDED for status in statuses)
    failed = statuses.count("failed")
    name = "interrupted" if left else "ended"
    observers.event(name, trials=len(statuses), left=left, failed=failed)


def _mark_interrupted(plan: Plan) -> None:
    for spec in plan.specs:
        folder = plan.trial_folder(spec.trial_id)
        if folder.status == "running":
            folder.update(status="interrupted", ended=timestamp())
