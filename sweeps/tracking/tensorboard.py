"""TensorBoard's event files: one folder a trial, metrics against forward passes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from kerzoo.records import ENDED, TrialFolder
from sweeps.observers import Observer


class TensorBoard(Observer):
    """Writes `tensorboard/TRIAL_ID/` under the results folder.

    A trial's folder is written anew from the records when the trial first changes after a start
    of the driver, so that a resumed trial has each point once.

    Args:
        folder: The results folder.
    """

    label = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[str, Any] = {}
        self._written: dict[str, int] = {}

    def changed(self, trial: str) -> None:
        """Write the rows that are not written yet."""
        folder = TrialFolder(self.folder / "trials" / trial)
        writer = self._writers.get(trial) or self._open(trial)
        rows = folder.rows()
        for row in rows[self._written[trial] :]:
            for name, value in row.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    writer.add_scalar(name, value, row["forward_passes"])
        self._written[trial] = len(rows)
        writer.flush()
        if folder.status in ENDED:
            writer.close()
            del self._writers[trial]

    def close(self) -> None:
        """Close all files."""
        for writer in self._writers.values():
            writer.close()

    def _open(self, trial: str) -> Any:
        from tensorboardX import SummaryWriter

        path = self.folder / "tensorboard" / trial
        shutil.rmtree(path, ignore_errors=True)
        self._written[trial] = 0
        self._writers[trial] = SummaryWriter(str(path))
        return self._writers[trial]
