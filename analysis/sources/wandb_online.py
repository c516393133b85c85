"""Runs of a W&B project, fetched from its server: the only place that needs wandb."""

from __future__ import annotations

from typing import Any

from analysis.sources.base import Results, ResultsError
from analysis.sources.wandb_runs import WandbRun, group_runs


def read_wandb_project(path: str) -> list[Results]:
    """The sweeps of a project, one for each group.

    Args:
        path: ENTITY/PROJECT, or ENTITY/PROJECT/GROUP for one sweep of it.

    Raises:
        ResultsError: If wandb is missing, no one is logged in, or the project cannot be read.
    """
    entity, _, rest = path.partition("/")
    project, _, group = rest.partition("/")
    if not entity or not project:
        raise ResultsError(f"a W&B project is wandb:ENTITY/PROJECT[/GROUP], got wandb:{path}")
    try:
        import wandb
    except ImportError as error:
        raise ResultsError(
            "reading from W&B's server needs wandb: pip install 'kerzoo[wandb]'"
        ) from error
    try:
        runs = wandb.Api().runs(
            f"{entity}/{project}", filters={"group": group} if group else {}, order="+created_at"
        )
        return collect_runs(project, runs)
    except (wandb.errors.Error, ValueError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"W&B project {entity}/{project} cannot be read: {error}") from error


def collect_runs(project: str, runs: Any) -> list[Results]:
    """What W&B's public API gives for runs, as sweeps.

    Args:
        project: Names the sweep of runs without group.
        runs: An iterable of wandb.apis.public.Run.
    """
    found = []
    for run in runs:
        rows = [{**row, "step": int(row["_step"])} for row in run.scan_history()]
        found.append(
            WandbRun(
                run.id,
                run.group or "",
                run.job_type or "",
                run.name or "",
                dict(run.config),
                {"status": _STATES.get(run.state, "interrupted"), **_summary_of(run)},
                rows,
            )
        )
    if not found:
        raise ResultsError(f"W&B project {project} has no runs")
    return group_runs(project, found, [])


_STATES = {"finished": "finished", "failed": "failed", "running": "running"}


def _summary_of(run: Any) -> dict[str, Any]:
    return {key: run.summary[key] for key in ("status",) if run.summary.get(key)}
