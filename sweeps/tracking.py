"""W&B as a mirror of the records: never their owner, never in a trial's way.

A thread of the driver reads new rows from disk and logs them. A trial is one run, whose id is the
trial's, in the group of its sweep. Whatever goes wrong here is said once and stops nothing.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kerzoo.records import TrialFolder, TrialSpec
from sweeps.schema import TrackingOptions

CLOSE_TIMEOUT_S = 60.0


class WandbMirror:
    """Mirrors trials to W&B in the background.

    Rows that were on disk before the mirror was made belong to earlier segments of a run and are
    not logged again.

    Args:
        options: Mode, project and entity.
        sweep: The sweep's name: the group.
        folder: The results folder, under which W&B writes `wandb/`.
        specs: The trials.
        warn: Told once if W&B fails.
    """

    def __init__(
        self,
        options: TrackingOptions,
        sweep: str,
        folder: Path,
        specs: Sequence[TrialSpec],
        warn: Callable[[str], None],
    ) -> None:
        self.options = options
        self.sweep = sweep
        self.folder = folder
        self.warn = warn
        self.specs = {spec.trial_id: spec for spec in specs}
        self.logged = {spec.trial_id: len(self._trial(spec.trial_id).rows()) for spec in specs}
        self._runs: dict[str, Any] = {}
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        if options.name == "wandb" and options.mode != "disabled":
            self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._thread.start()

    def update(self, trial: str) -> None:
        """A trial has new rows or a new status."""
        if self._thread is not None:
            self._queue.put(trial)

    def close(self) -> None:
        """Log what is waiting and finish all runs; gives up after a while."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self.warn("W&B did not finish in time; `wandb sync` uploads the rest later")

    def _work(self) -> None:
        try:
            while (trial := self._queue.get()) is not None:
                self._mirror(trial)
            for run in self._runs.values():
                run.finish()
        except Exception as error:
            self.warn(f"W&B failed and is switched off for this run: {error}")

    def _mirror(self, trial: str) -> None:
        folder = self._trial(trial)
        rows = folder.rows()[self.logged[trial] :]
        status = folder.status
        if rows and trial not in self._runs:
            self._runs[trial] = self._start(self.specs[trial])
        for row in rows:
            values = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
            self._runs[trial].log(values, step=row["step"])
            self.logged[trial] += 1
        if status in ("finished", "stopped", "diverged", "failed") and trial in self._runs:
            run = self._runs.pop(trial)
            run.summary["status"] = status
            run.finish(exit_code=int(status == "failed"))

    def _start(self, spec: TrialSpec) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        online = self.options.mode == "online"
        run = wandb.init(
            id=spec.trial_id,
            name=f"{spec.arm}-{spec.trial_id[:6]}",
            group=self.sweep,
            job_type=spec.phase,
            tags=[spec.arm, spec.choices["task"], spec.choices["model"]],
            config=flatten({**spec.config, "overrides": spec.overrides}),
            project=self.options.project,
            entity=self.options.entity,
            dir=str(self.folder),
            mode="online" if online else "offline",
            resume="allow" if online else None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        run.define_metric("*", step_metric="forward_passes")
        return run

    def _trial(self, trial: str) -> TrialFolder:
        return TrialFolder(self.folder / "trials" / trial)


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one with dotted keys, `_target_` left out."""
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if key != "_target_":
            flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
