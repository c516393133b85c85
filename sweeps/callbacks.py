"""Tune's events, passed on to the records, the display, the event log and all observers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from kerzoo.records import ENDED, TrialFolder, timestamp
from sweeps.events import EventLog
from sweeps.mirror import Mirror
from sweeps.notify import Notifier
from sweeps.observers import Observer, Observers, Warn
from sweeps.plan import Plan
from sweeps.progress import Display
from sweeps.recovery import failure_of
from sweeps.tracking import trackers


def observe(plan: Plan, warn: Warn) -> Observers:
    """The observers that a plan asks for, at work."""
    sweep = plan.sweep
    chosen: list[Observer] = trackers(sweep.tracking, plan.folder)
    if sweep.mirror is not None:
        chosen.append(Mirror(sweep.mirror, plan.folder))
    if sweep.notify.webhook or sweep.notify.command:
        chosen.append(Notifier(sweep.notify, sweep.name))
    return Observers(EventLog(plan.folder / "events.jsonl"), chosen, warn)


class SweepCallback(tune.Callback):
    """Follows trials; writes down what only the driver knows: stopped, or lost for good.

    Args:
        folders: Of all trials.
        display: What a person sees.
        observers: Told of rows and events.
        gave_up: Told of a trial that failed for good, for which others may wait.
    """

    def __init__(
        self,
        folders: Mapping[str, TrialFolder],
        display: Display,
        observers: Observers,
        gave_up: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.folders = dict(folders)
        self.display = display
        self.observers = observers
        self._gave_up = gave_up
        self._at_work: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore, which is never made."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A worker was given a trial, and has yet to say whether it takes it up."""
        self._at_work.discard(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported that it was taken up, or a row."""
        identity = trial.config["trial_id"]
        if identity not in self._at_work and not result.get("interrupted"):
            self._at_work.add(identity)
            self.display.started(identity)
            self.observers.event("running", trial_id=identity)
        if result.get("rung") is not None:
            self.display.arrived(identity, result)
            self.observers.changed(identity)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial ended by itself, or the scheduler did; of one not taken up there is no word."""
        identity = trial.config["trial_id"]
        left = (trial.last_result or {}).get("interrupted")
        if left and identity not in self._at_work and self.folders[identity].status not in ENDED:
            return
        self._end(identity, {"status": "interrupted" if left else "stopped"})

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial could not be started again."""
        self._end(trial.config["trial_id"], {"status": "failed", "failure": failure_of(trial)})

    def _end(self, identity: str, values: dict[str, Any]) -> None:
        folder = self.folders[identity]
        if values and folder.status not in ENDED:
            rungs = [int(row["rung"]) for row in folder.rows()]
            values = {**values, "ended_rung": max(rungs, default=0)}
            folder.update(**values, ended=timestamp())
        content = folder.read()
        status, failure = content["status"], content.get("failure") or {}
        self.display.ended(identity, status)
        self.observers.changed(identity)
        if status == "failed":
            named = {name: failure.get(name) for name in ("cause", "kind", "message")}
            self.observers.event("failure", trial_id=identity, **named)
        self.observers.event("status", trial_id=identity, status=status)
        if status == "failed":
            self._gave_up(identity)
