"""Tune's events, passed on to the records, the display, the event log and all observers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import tune

from kerzoo.records import ENDED, TrialFolder, timestamp
from sweeps.events import EventLog
from sweeps.mirror import Mirror
from sweeps.notify import Notifier
from sweeps.observers import Observer, Observers, Warn
from sweeps.plan import Plan
from sweeps.progress import Display
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
    """

    def __init__(
        self, folders: Mapping[str, TrialFolder], display: Display, observers: Observers
    ) -> None:
        super().__init__()
        self.folders = dict(folders)
        self.display = display
        self.observers = observers

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore, which is never made."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A worker took a trial up."""
        identity = trial.config["trial_id"]
        self.display.started(identity)
        self.observers.event("running", trial_id=identity)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported a row."""
        if result.get("rung") is not None:
            identity = trial.config["trial_id"]
            self.display.arrived(identity, result)
            self.observers.changed(identity)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial ended by itself, or the scheduler ended it."""
        self._end(trial.config["trial_id"], {"status": "stopped"})

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's worker was lost more often than `cluster.max_failures` allows."""
        failure = {
            "kind": "WorkerLost",
            "message": "the worker was lost more often than cluster.max_failures allows",
            "traceback": str(getattr(trial, "get_error", lambda: "")() or ""),
        }
        self._end(trial.config["trial_id"], {"status": "failed", "failure": failure})

    def _end(self, identity: str, values: dict[str, Any]) -> None:
        folder = self.folders[identity]
        if folder.status not in ENDED:
            folder.update(**values, ended=timestamp())
        content = folder.read()
        status, failure = content["status"], content.get("failure") or {}
        self.display.ended(identity, status)
        self.observers.changed(identity)
        if status == "failed":
            named = {name: failure.get(name) for name in ("cause", "kind", "message")}
            self.observers.event("failure", trial_id=identity, **named)
        self.observers.event("status", trial_id=identity, status=status)
