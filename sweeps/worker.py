"""What runs inside a Ray worker: one trial after another, with a workspace that stays.

The workspace lives in this module, which workers import, so that it survives from trial to trial
when Tune reuses an actor.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import Any

import ray
from ray import tune

from kerzoo.attempt import run_trial
from kerzoo.records import StaleAttemptError, TrialFolder, TrialSpec
from kerzoo.workspace import Workspace
from sweeps.logs import logged_to

REPORTED = ("rung", "step", "forward_passes", "dev_loss", "diverged")
"""Columns that the driver hears of at once; the whole row is on disk."""


@functools.cache
def workspace() -> Workspace:
    """This process's workspace, on all GPUs that Ray gave to it."""
    return Workspace(
        num_threads=max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))),
        num_devices=max(1, len(ray.get_gpu_ids())),
    )


def train(config: dict[str, Any]) -> None:
    """A Tune function: run or resume the trial, report its rows.

    An exception inside the trial is recorded as its failure and not raised, so that Tune's
    retries are spent on lost workers and not on bugs.

    Args:
        config: `trials`, the absolute path of the folder of all trials, and `trial_id`.
    """
    folder = TrialFolder(Path(config["trials"]) / config["trial_id"])
    tune.report({"rung": None})
    spec = TrialSpec.from_dict(folder.read())
    rows = run_trial(spec, folder, workspace())
    try:
        with logged_to(folder.path / "log.txt"), contextlib.closing(rows):
            for row in rows:
                tune.report({name: row[name] for name in REPORTED})
    except StaleAttemptError:
        return
    except Exception:
        if folder.status != "failed":
            raise
