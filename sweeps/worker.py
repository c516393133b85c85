"""What runs inside a Ray worker: one trial after another, with a workspace that stays.

The workspace lives in this module, which workers import, so that it survives from trial to trial
when Tune reuses an actor.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from kerzoo.attempt import run_trial
from kerzoo.failures import Failure
from kerzoo.records import StaleAttemptError, TrialFolder, TrialSpec
from kerzoo.workspace import Workspace
from sweeps.logs import logged_to
from sweeps.recovery import AttemptFailedError
from sweeps.stopping import StopFile, StopRequested

REPORTED = (
    "rung",
    "step",
    "forward_passes",
    "dev_loss",
    "diverged",
    "peak_memory_gib",
)
"""Columns that the driver hears of at once; the whole row is on disk."""

CODE = Path(__file__).resolve().parent.parent

LEFT: dict[str, Any] = {"rung": None, "interrupted": True}
"""Reported by a trial that is to be continued by another run."""


@functools.cache
def workspace() -> Workspace:
    """This process's workspace, on all GPUs that Ray gave to it."""
    return Workspace(
        num_threads=max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))),
        num_devices=max(1, len(ray.get_gpu_ids())),
    )


def place() -> str:
    """Where this process runs, on which GPUs, and whose code."""
    node = ray.get_runtime_context().get_node_id()
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return (
        f"{socket.gethostname()}, node {node[:12]}, process {os.getpid()}, "
        f"CUDA_VISIBLE_DEVICES={gpus}, code in {CODE}"
    )


class Meter:
    """What a worker's time goes into, told with each report.

    Args:
        workspace: Of this process, which counts.
        start: When this process began its first trial, by `time.perf_counter`; None in a later one.
    """

    def __init__(self, workspace: Workspace, start: float | None) -> None:
        self._workspace = workspace
        self._start = start
        self._told = workspace.busy_s

    def read(self) -> dict[str, Any]:
        """`busy_s`: seconds of steps and evaluations since the last reading, replay left out.

        The first reading of a process has its `pid` and `preparation_s` too: seconds until its
        first trial was ready, that is without what it stepped, evaluated and replayed.
        """
        own = self._workspace
        values: dict[str, Any] = {"busy_s": own.busy_s - self._told}
        self._told = own.busy_s
        if self._start is not None:
            seconds = time.perf_counter() - self._start - own.busy_s - own.replay_s
            values |= {"preparation_s": max(0.0, seconds), "pid": os.getpid()}
            self._start = None
        return values


def train(config: dict[str, Any]) -> None:
    """A Tune function: run or resume the trial, report its rows.

    A failure inside the trial is recorded and not raised; what is raised is for the driver to
    answer with another attempt.

    Args:
        config: `trials`, the absolute path of the folder of all trials; `trial_id`; `stop`, the
            path of the file that ends a run; `started_in`, the driver's folder, to which relative
            paths belong; `shares`, whether trials share a device; and from `sweeps.recovery`:
            `alone`, this one shares none; `skip`, nothing is left to do.

    Raises:
        AttemptFailedError: If the trial may be run again.
    """
    folder = TrialFolder(Path(config["trials"]) / config["trial_id"])
    stop = StopFile(Path(config["stop"]))
    if config.get("skip") or stop.exists:
        tune.report(LEFT)
        return
    with contextlib.suppress(OSError):  # a node without it can read absolute paths alone
        os.chdir(config["started_in"])
    is_first = workspace.cache_info().currsize == 0
    start = time.perf_counter()
    tune.report({"rung": None})
    meter = Meter(workspace(), start if is_first else None)
    try:
        spec = TrialSpec.from_dict(folder.read())
        shares = bool(config["shares"]) and not config.get("alone", False)
        rows = run_trial(spec, folder, workspace(), stop.check, shares)
        with logged_to(folder.path / "log.txt", place()), contextlib.closing(rows):
            for row in rows:
                tune.report({name: row[name] for name in REPORTED} | meter.read())
    except StaleAttemptError:
        return
    except StopRequested:
        tune.report(LEFT | meter.read())
    except Exception as error:
        failure = Failure.of(error)
        if failure.cause == "disk" or folder.status != "failed":
            raise AttemptFailedError(failure.to_dict()) from None
