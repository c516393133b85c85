"""Trackers: mirrors of the records, never their owners."""

from __future__ import annotations

from pathlib import Path

from sweeps.observers import Observer
from sweeps.schema import TrackingOptions
from sweeps.tracking.process import WandbProcess
from sweeps.tracking.tensorboard import TensorBoard

TRACKERS = {"wandb": WandbProcess, "tensorboard": TensorBoard}
"""Value of `tracking.name` → its observer."""


def trackers(options: TrackingOptions, folder: Path) -> list[Observer]:
    """The tracker that is asked for, or none.

    Args:
        options: The section `tracking`.
        folder: The results folder.
    """
    if options.name not in TRACKERS or options.mode == "disabled":
        return []
    return [TRACKERS[options.name](folder)]
