"""`python -m sweeps.sync results/NAME`: send to W&B what it has not got yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import filelock

from sweeps.observers import Warn
from sweeps.schema import TrackingOptions
from sweeps.tracking.runs import WandbRuns

HELP = """\
usage: python -m sweeps.sync results/NAME [results/OTHER ...]

Sends a sweep's trials to W&B, from the records, and then its report as an artifact. Use it after
a sweep that was tracked offline, or whose tracking failed. The server is asked what it has, so
that running this twice, or while the sweep goes on, sends no point twice. Needs `wandb login` or
WANDB_API_KEY; the project and entity are the sweep's (tracking.project, tracking.entity).

Exit codes: 0 done; 1 W&B could not be reached or refused; 2 no such results folder.
"""
FOLLOW = "--follow"
REPORT = "--report"
REPORT_TIMEOUT_S = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    names = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.pop("WANDB_SERVICE", None)  # of a parent that used W&B itself: it holds our ids
    if not names or {"-h", "--help"} & set(names):
        print(HELP, end="")
        return 0
    folders = [Path(name).absolute() for name in names if name not in (FOLLOW, REPORT)]
    for folder in folders:
        if not (folder / "plan.json").exists():
            print(f"error: {folder}: no plan.json there; name a results folder", file=sys.stderr)
            return 2
    if FOLLOW in names:
        follow(folders[0], sys.stdin)
        return 0
    try:
        for folder in folders:
            push(folder, only_report=REPORT in names)
    except Exception as error:
        print(f"error: W&B: {error}", file=sys.stderr)
        return 1
    return 0


def push(folder: Path, only_report: bool = False) -> None:
    """Send all of a results folder that W&B has not got, or its report alone.

    Raises:
        Exception: Whatever W&B fails with.
    """
    with _only_sender(folder):
        options = _options_of(folder)
        options.mode = "online"
        runs = WandbRuns(folder, options, print, falls_back=False)
        if not only_report:
            runs.update_all()
            runs.finish()
        runs.push_report()


def send_report(folder: Path, warn: Warn) -> None:
    """Send the report as an artifact, in a process that is given up where it takes too long."""
    command = [sys.executable, "-m", "sweeps.sync", str(folder), REPORT]
    root = Path(__file__).resolve().parents[1]
    try:
        subprocess.run(
            command,
            cwd=root,
            check=True,
            capture_output=True,
            timeout=REPORT_TIMEOUT_S,
            start_new_session=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        warn(f"W&B did not take the report; `python -m sweeps.sync {folder}` sends it later")


def follow(folder: Path, trials: Iterable[str]) -> None:
    """Send what is on disk, then each trial that is named, until there are no more names.

    Warnings are printed, a line each.
    """

    def warn(message: str) -> None:
        print(message.replace("\n", " "), flush=True)

    with _only_sender(folder):
        runs = WandbRuns(folder, _options_of(folder), warn)
        runs.update_all()
        for trial in trials:
            runs.update(trial.strip())
        runs.update_all()
        runs.finish()


def _only_sender(folder: Path) -> filelock.BaseFileLock:
    """Held while sending: the process of a driver that was killed may still be at it."""
    (folder / "wandb").mkdir(exist_ok=True)
    return filelock.FileLock(folder / "wandb" / ".lock")


def _options_of(folder: Path) -> TrackingOptions:
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    return TrackingOptions(**plan["config"]["tracking"])


if __name__ == "__main__":
    sys.exit(main())
