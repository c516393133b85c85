"""Where records come from: each module reads one kind of source into the same `Results`."""

from __future__ import annotations

from pathlib import Path

from analysis.sources.base import Results, ResultsError, Values
from analysis.sources.local import read_results
from analysis.sources.ray_tune import find_trial_folders, read_tune_experiment
from analysis.sources.wandb_files import find_wandb_files, read_wandb_files
from analysis.sources.wandb_online import read_wandb_project

__all__ = ["WANDB_PREFIX", "Results", "ResultsError", "Values", "read_source"]

WANDB_PREFIX = "wandb:"


def read_source(source: Path) -> list[Results]:
    """Read one source: as a rule one sweep, several where W&B runs have several groups.

    Args:
        source: A results folder (with plan.json), a folder of offline `.wandb` files, a Ray Tune
            experiment (with result.json or progress.csv), or wandb:ENTITY/PROJECT[/GROUP].

    Raises:
        ResultsError: If it is none of these, unreadable, or holds no row.
    """
    if str(source).startswith(WANDB_PREFIX):
        return read_wandb_project(str(source).removeprefix(WANDB_PREFIX))
    if not source.is_dir():
        raise ResultsError(f"no such results folder: {source}{_neighbours(source)}")
    if (source / "plan.json").is_file():
        return [read_results(source)]
    if find_wandb_files(source):
        return read_wandb_files(source)
    if find_trial_folders(source):
        return [read_tune_experiment(source)]
    raise ResultsError(
        f"{source} has no plan.json, so it is not a results folder of a sweep; nor does it hold "
        "offline W&B runs (run-*.wandb) or a Ray Tune experiment (result.json, progress.csv)"
    )


def _neighbours(folder: Path) -> str:
    found = sorted(plan.parent.name for plan in folder.parent.glob("*/plan.json"))
    return f"; beside it there are: {', '.join(found)}" if found else ""
