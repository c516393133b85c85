"""W&B's runs, made from the records: a trial is one run, whose id is the trial's.

What W&B has already is never asked of the driver's memory: online the server says at which step a
run stands, offline the run's own files do. So a run can be continued after any interruption, and
pushed again any number of times, and no point is lost or doubled.
"""

from __future__ import annotations

import json
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerzoo.records import ENDED, Row, TrialFolder, TrialSpec, cut_torn_line, iterate_rows
from sweeps.observers import Warn
from sweeps.schema import TrackingOptions
from sweeps.tracking.offline import last_steps

INIT_TIMEOUT_S = 30.0


class WandbRuns:
    """The runs of a sweep.

    Args:
        folder: The results folder, under which W&B writes `wandb/`.
        options: Mode, project and entity.
        warn: Told once if the server cannot be used.
        falls_back: Whether to go on offline then; otherwise the error is raised.
    """

    def __init__(
        self, folder: Path, options: TrackingOptions, warn: Warn, falls_back: bool = True
    ) -> None:
        self.folder = folder
        self.options = options
        self.warn = warn
        self.falls_back = falls_back
        self.is_online = options.mode == "online"
        self.plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        self._runs: dict[str, Any] = {}
        self._sent: dict[str, int] = {}
        self._offline = last_steps(folder / "wandb")
        cut_torn_line(self._completed_path)
        self._complete = {
            (entry["trial_id"], entry["status"], entry["step"])
            for entry in iterate_rows(self._completed_path)
            if entry["online"] or not self.is_online
        }

    def update_all(self) -> None:
        """Send what is on disk of all trials."""
        for path in sorted((self.folder / "trials").glob("*/records.jsonl")):
            self.update(path.parent.name)

    def update(self, trial: str) -> None:
        """Send what a trial has on disk and W&B has not; its run ends with the trial."""
        folder = TrialFolder(self.folder / "trials" / trial)
        rows, status = folder.rows(), folder.status
        if not rows or (trial, status, rows[-1]["step"]) in self._complete:
            return
        if trial not in self._runs:
            if not self.is_online and status not in ENDED and not self._unsent(trial, rows):
                return
            self._runs[trial] = self._start(TrialSpec.from_dict(folder.read()), rows[0])
        run = self._runs[trial]
        for row in self._unsent(trial, rows):
            values = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
            run.log(values, step=row["step"])
            self._sent[trial] = row["step"]
        run.summary.update({**objective(rows), "status": status})
        if status in ENDED:
            run.finish(exit_code=int(status == "failed"))
            del self._runs[trial]
            self._complete_trial(trial, status, rows[-1]["step"])

    def finish(self) -> None:
        """Finish the runs of trials that have not ended; they are continued later."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()

    def push_report(self) -> None:
        """The report with its tables and figures, as an artifact of a run of its own."""
        report = self.folder / "report"
        if not self.is_online or not report.exists():
            return
        import wandb

        name = self.plan["name"]
        run = self._init(f"report-{name}", f"report of {name}", "report", [], {}, online=True)
        artifact = wandb.Artifact(f"report-{name}", type="report")
        artifact.add_dir(str(report))
        run.log_artifact(artifact)
        run.finish()

    def _unsent(self, trial: str, rows: Sequence[Row]) -> list[Row]:
        last = self._sent.get(trial, -1 if self.is_online else self._offline.get(trial, -1))
        return [row for row in rows if row["step"] > last]

    def _start(self, spec: TrialSpec, first: Row) -> Any:
        arguments = (
            spec.trial_id,
            f"{spec.arm}-{spec.trial_id[:6]}",
            spec.phase,
            [spec.arm, spec.choices["task"], spec.choices["model"]],
            self._config(spec, first),
        )
        if self.is_online:
            try:
                if not self._sent:
                    check_reachable()
                run = self._init(*arguments, online=True)
            except Exception as error:
                if not self.falls_back:
                    raise
                self._go_offline()
                self.warn(
                    f"W&B cannot be used online and goes on offline ({error}); "
                    f"`python -m sweeps.sync {self.folder}` sends everything later"
                )
            else:
                self._sent[spec.trial_id] = int(run.starting_step) - 1
                return run
        return self._init(*arguments, online=False)

    def _go_offline(self) -> None:
        """Let go of the online runs: W&B's service holds their ids, of failed starts too."""
        import wandb

        self.is_online = False
        self._runs.clear()
        self._sent.clear()
        wandb.teardown()

    def _init(
        self,
        identity: str,
        name: str,
        job_type: str,
        tags: list[str],
        config: dict[str, Any],
        online: bool,
    ) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        run = wandb.init(
            id=identity,
            name=name,
            group=self.plan["name"],
            job_type=job_type,
            tags=tags,
            config=config,
            project=self.options.project or "kerzoo",
            entity=self.options.entity,
            dir=str(self.folder),
            mode="online" if online else "offline",
            resume="allow" if online else None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT_S),
        )
        run.define_metric("*", step_metric="forward_passes")
        return run

    def _config(self, spec: TrialSpec, first: Row) -> dict[str, Any]:
        """Flat keys for W&B's panels, and what reads a study back from its runs alone."""
        cells = [cell for cell in self.plan["cells"] if cell["trial_id"] == spec.trial_id]
        numbers = (int, float)
        labels = {
            name: value
            for name, value in first.items()
            if isinstance(value, bool) or not isinstance(value, numbers)
        }
        trial = {name: getattr(spec, name) for name in ("arm", "phase", "rungs", "command")}
        told = ("name", "baseline", "search")
        plan = {key: self.plan[key] for key in told if key in self.plan} | {"cells": cells}
        return flatten(
            {
                **spec.config,
                "overrides": spec.overrides,
                "trial": {**trial, "choices": spec.choices},
                "plan": plan,
                "row": labels,
            }
        )

    @property
    def _completed_path(self) -> Path:
        return self.folder / "wandb" / "completed.jsonl"

    def _complete_trial(self, trial: str, status: str, step: int) -> None:
        """Note a trial of which W&B has all, so that a later start need not ask for it."""
        self._complete.add((trial, status, step))
        self._completed_path.parent.mkdir(exist_ok=True)
        entry = {"trial_id": trial, "status": status, "step": step, "online": self.is_online}
        with self._completed_path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def check_reachable() -> None:
    """Fail at once where nobody listens; W&B itself would try for minutes.

    Raises:
        OSError: If the server cannot be connected to. Behind a proxy nothing is checked.
    """
    import wandb

    if urllib.request.getproxies():
        return
    url = urllib.parse.urlsplit(str(wandb.setup().settings.base_url))
    port = url.port or (443 if url.scheme == "https" else 80)
    socket.create_connection((url.hostname or "", port), timeout=10.0).close()


def objective(rows: Sequence[Row]) -> dict[str, float]:
    """The summary's figures: the best of each dev column, and `objective`, the best dev loss.

    Columns without a finite value are left out.
    """
    summary: dict[str, float] = {}
    for column, best in (("dev_loss", min), ("dev_accuracy", max), ("dev_f1", max)):
        values = [row[column] for row in rows if row.get(column) is not None]
        if values:
            summary[f"best_{column}"] = best(values)
    if "best_dev_loss" in summary:
        summary["objective"] = summary["best_dev_loss"]
    return summary


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one with dotted keys, `_target_` left out."""
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if key != "_target_":
            flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
