"""Run a sweep: compose, validate, plan, execute, report. `python sweep.py --help` teaches."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from sweeps.compose import ConfigError, list_sweeps
from sweeps.ledger import RUN_FILE, exhausted_before
from sweeps.mirror import fetch_missing
from sweeps.phases import run_phases
from sweeps.plan import (
    Plan,
    archive,
    check_same_study,
    make_plan,
    recall_choice,
    recall_preparation,
)
from sweeps.reuse import take_over
from sweeps.runner import check_devices, only_driver
from sweeps.sync import send_report
from sweeps.tables import print_plan, print_results

HELP = """\
usage: python sweep.py +sweep=NAME [OVERRIDE ...]

Plans a sweep, runs what is left of it with Ray Tune, and writes the report. The same command
again resumes: ended trials are skipped, interrupted ones continue where they were.

  python sweep.py                                      list the sweeps
  python sweep.py +sweep=quickstart                    MeZO against KerZOO, ten minutes on two cores
  python sweep.py +sweep=pilot task=csv task.data_dir=DIR   what would your own data gain?
  python sweep.py +sweep=opt2.7b plan_only=true        show trials, cost and what they can detect
  python sweep.py +sweep=opt2.7b model=opt-tiny name=rehearsal training.forward_passes=48

An override is key=value (Hydra). Groups, each a folder of conf/: arm, model, task, kernel,
bandwidth, perturbation, tuning, training, search, scheduler, cluster, tracking. Often used:

  training.learning_rate=1e-2       a value of every trial; a swept key is pinned to it
  space.training.batch_size=[8,16]  other values of a swept key; '+space={KEY:[...]}' adds one
  search=sobol                      draw what the space gives as {low: ..., high: ..., log: true}
  search=optuna                     tune it by results, generation by generation (no sensitivity)
  seeds=5                           the seeds of every cell: a number or a list
  training.forward_passes=144       a trial's whole budget
  model.path=DIR  task.data_dir=DIR a local Hugging Face folder, local data files
  scheduler=fifo                    no early stopping
  phase=both                        then confirm each arm's best cell, with fresh seeds, to its end
  phase=confirm                     every cell that way; test is read once, at dev's checkpoint
  data_root=DIR                     local data of several tasks: DIR/SST-2, DIR/RTE, ...
  tracking=none  tracking.mode=online
  tracking=tensorboard              event files in results/NAME/tensorboard
  notify.webhook=VARIABLE           post to the URL in that environment variable at the end
  mirror=s3://bucket/folder         copy ended trials there; a resume fetches what is missing
  cluster.num_cpus=2                CPUs that Ray may use; cluster=auto joins a running cluster
  report.language=ja                a report whose first page is in Japanese
  reuse=auto                        take over what other sweeps have finished; or a folder of them
  name=NAME  fresh=true             another results folder; archive the old results first

While it runs: python -m sweeps.status results/NAME --follow, in another terminal.
Results: results/NAME/ with plan.json, trials/, wandb/ and report/report.html.
Exit codes: 0 done; 1 some trials failed; 2 the configuration is wrong; 130 interrupted.
"""


PLAIN_WIDTH = 120
"""Columns of output that goes to a file or a pipe."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    overrides = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    if {"-h", "--help"} & set(overrides):
        print(HELP, end="")
        return 0
    if not overrides:
        print_sweeps(console)
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    plan = None
    try:
        plan = make_plan(overrides, shlex.join(["python", "sweep.py", *overrides]))
        if not plan.sweep.fresh:
            check_same_study(plan)
        recall_choice(plan)
        recall_preparation(plan)
        print_plan(plan, console)
        if plan.sweep.plan_only:
            return 0
        code = execute(plan, console)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        code = 130
    if plan and code != 2 and (plan.folder / "trials").exists():
        print_results(plan, console)
        report(plan, console)
    if code == 130:
        console.print(_tell_how_to_go_on(plan), soft_wrap=True, markup=False)
    return code


def _tell_how_to_go_on(plan: Plan | None) -> str:
    """The last line of a sweep that has not ended: again, or with a larger budget."""
    spent = plan and exhausted_before(plan.folder / RUN_FILE, plan.sweep.budget)
    return f"Stopped: {spent}." if spent else "Interrupted. The same command continues."


def _interrupt(signum: int, frame: object) -> None:
    """Treat SIGTERM, which batch systems send, as Ctrl-C."""
    raise KeyboardInterrupt


def execute(plan: Plan, console: Console) -> int:
    """Check, write the plan, run its trials; returns the exit code."""
    plan.check_available()
    check_devices(plan)
    if plan.sweep.fresh and plan.folder.exists():
        with only_driver(plan.folder):
            console.print(f"Archived the old results as {archive(plan.folder)}")
    with only_driver(plan.folder):
        plan.write()
        fetch_missing(plan)
        take_over(plan)
        return run_phases(plan, console)


def report(plan: Plan, console: Console) -> None:
    """Build the report from the records and say where it lies."""
    from analysis import build_report

    try:
        path = build_report([plan.folder])
    except (OSError, ValueError) as error:  # a full disk, or nothing to report on
        console.print(f"No report yet: {error}", soft_wrap=True, markup=False)
        return
    console.print(f"Report: {os.path.relpath(path)}", soft_wrap=True)
    if plan.sweep.tracking.name == "wandb" and plan.sweep.tracking.mode == "online":
        send_report(plan.folder, lambda message: console.print(f"warning: {message}"))


def print_sweeps(console: Console) -> None:
    """Each sweep with a line, and how to run one."""
    sweeps = list_sweeps()
    width = max(map(len, sweeps))
    console.print("Sweeps (conf/sweep):\n")
    for name, line in sweeps.items():
        console.print(f"  {name:<{width}}  {line}", soft_wrap=True)
    console.print(
        "\nRun one:        python sweep.py +sweep=NAME\n"
        "Its cost first: python sweep.py +sweep=NAME plan_only=true\n"
        "More:           python sweep.py --help"
    )


if __name__ == "__main__":
    sys.exit(main())
