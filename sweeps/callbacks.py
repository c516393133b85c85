"""Tune's events, passed on to the records, the display and W&B."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from kerzoo.records import ENDED, TrialFolder, timestamp
from sweeps.progress import Display
from sweeps.recovery import failure_of
from sweeps.tracking import WandbMirror


class SweepCallback(tune.Callback):
    """Follows trials; writes down what only the driver knows: stopped, or lost for good.

    Args:
        folders: Of all trials.
        display: What a person sees.
        mirror: W&B.
        gave_up: Told of a trial that failed for good, for which others may wait.
    """

    def __init__(
        self,
        folders: Mapping[str, TrialFolder],
        display: Display,
        mirror: WandbMirror,
        gave_up: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.folders = dict(folders)
        self.display = display
        self.mirror = mirror
        self._gave_up = gave_up

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore, which is never made."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A worker took a trial up."""
        self.display.started(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported a row."""
        if result.get("rung") is not None:
            identity = trial.config["trial_id"]
            self.display.arrived(identity, result)
            self.mirror.update(identity)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial ended by itself, or the scheduler ended it."""
        left = (trial.last_result or {}).get("interrupted")
        self._end(trial.config["trial_id"], {} if left else {"status": "stopped"})

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial could not be started again."""
        self._end(trial.config["trial_id"], {"status": "failed", "failure": failure_of(trial)})

    def _end(self, identity: str, values: dict[str, Any]) -> None:
        folder = self.folders[identity]
        if values and folder.status not in ENDED:
            folder.update(**values, ended=timestamp())
        self.display.ended(identity, folder.status)
        self.mirror.update(identity)
        if folder.status == "failed":
            self._gave_up(identity)
