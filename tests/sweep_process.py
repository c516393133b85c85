"""A small sweep as a process of its own, which can be killed at a chosen moment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from tiny_trials import write_sst2

from kerzoo.records import TIMING_COLUMNS, Row, TrialFolder

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 900.0
"""Far above what anything here takes, so that a busy machine fails nothing."""

SPACE = (
    "space={arm:[mezo,legendre2],"
    "training.perturbation_scale:[1e-2,3e-2],training.learning_rate:[1e-2]}"
)
RUNGS = [60, 120, 240]


def settings(results: Path, *overrides: str) -> list[str]:
    """Overrides of four small trials, whose data lie beside their results."""
    data = results / "data"
    if not data.exists():
        write_sst2(data)
    return [
        "+sweep=quickstart",
        "model=opt-tiny",
        "task=sst2",
        f"task.data_dir={data}",
        "task.num_train=60",
        "task.num_dev=40",
        "task.num_test=20",
        "task.max_length=32",
        "training.batch_size=2",
        f"training.forward_passes={RUNGS[-1]}",
        "cluster.num_cpus=2",
        f"results_dir={results}",
        SPACE,
        *overrides,
    ]


class SweepProcess:
    """`python sweep.py OVERRIDES`, with all that it starts.

    Leaving the context ends whatever is left of it, by process id.
    """

    def __init__(self, log: Path, overrides: list[str], **environment: str) -> None:
        self.log = log
        self._file = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "sweep.py", *overrides],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._own = {self.process.pid: psutil.Process(self.process.pid)}

    def __enter__(self) -> SweepProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.remember()
        for process in self._own.values():
            with contextlib.suppress(psutil.Error):  # it compares start times, not ids alone
                process.kill()
        psutil.wait_procs(self._own.values(), timeout=20)
        self._file.close()

    def remember(self) -> list[psutil.Process]:
        """Everything that it started so far and that still runs."""
        with contextlib.suppress(psutil.Error):
            for child in self._own[self.process.pid].children(recursive=True):
                self._own[child.pid] = child
        return [process for process in self._own.values() if process.is_running()]

    def workers(self) -> list[psutil.Process]:
        """The processes that run trials."""
        found = []
        for process in self.remember():
            with contextlib.suppress(psutil.Error):
                if "ImplicitFunc" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def listening(self) -> set[str]:
        """Addresses on which it and all that it started wait for connections."""
        found = set()
        for process in self.remember():
            with contextlib.suppress(psutil.Error):
                connections = process.net_connections(kind="inet")
                found |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
        return {address.removeprefix("::ffff:") for address in found}

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to become true while it runs."""
        start = time.monotonic()
        while not condition():
            assert self.process.poll() is None, f"ended too soon:\n{self.output()}"
            assert time.monotonic() - start < DEADLINE_S, self.output()
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL to the driver alone."""
        self.remember()
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def interrupt(self) -> int:
        """Ctrl-C, as a terminal sends it to the driver; returns the exit code."""
        self.remember()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(DEADLINE_S)

    def wait(self) -> int:
        """The exit code at its end."""
        start = time.monotonic()
        while self.process.poll() is None and time.monotonic() - start < DEADLINE_S:
            self.remember()
            time.sleep(0.2)
        return self.process.wait(1)

    def output(self) -> str:
        """What it printed so far."""
        return self.log.read_text()


def run_sweep(log: Path, overrides: list[str], **environment: str) -> tuple[int, str]:
    """Run a sweep to its end; its exit code and output."""
    with SweepProcess(log, overrides, **environment) as sweep:
        return sweep.wait(), sweep.output()


def read_plan(folder: Path) -> dict[str, Any]:
    """plan.json."""
    content: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return content


def trials_of(folder: Path) -> dict[str, TrialFolder]:
    """All trials in a results folder, which may not exist yet, or be archived at this moment."""
    try:
        paths = sorted((folder / "trials").iterdir())
    except FileNotFoundError:
        paths = []
    return {path.name: TrialFolder(path) for path in paths}


def statuses(folder: Path) -> dict[str, str]:
    """Each trial's status."""
    return {trial: where.status for trial, where in trials_of(folder).items()}


def num_rows(folder: Path) -> int:
    """Rows of all trials so far."""
    return sum(len(where.rows()) for where in trials_of(folder).values())


def numbers_of(folder: Path) -> dict[str, list[Row]]:
    """Each trial's rows without what may differ between bit-equal runs."""
    return {
        trial: [{k: v for k, v in r.items() if k not in TIMING_COLUMNS} for r in where.rows()]
        for trial, where in trials_of(folder).items()
    }


def assert_no_row_twice(folder: Path) -> None:
    """Each trial's steps increase."""
    for trial, where in trials_of(folder).items():
        steps = [row["step"] for row in where.rows()]
        assert steps == sorted(set(steps)), (trial, steps)


def running_mid_trial(folder: Path) -> set[str]:
    """Trials that took steps after their last row."""
    found = set()
    for trial, where in trials_of(folder).items():
        with contextlib.suppress(FileNotFoundError):
            newest = where.trajectory_path.stat().st_mtime
            if where.status == "running" and newest > where.records_path.stat().st_mtime:
                found.add(trial)
    return found
