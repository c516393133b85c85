"""Watches over a run: its budget, failures that are all alike, and when it may end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from kerzoo.failures import all_alike
from kerzoo.records import ENDED, TrialFolder
from sweeps.ledger import Ledger
from sweeps.schema import FailureOptions
from sweeps.stopping import StopSignal

COUNT_EVERY_S = 5.0


class Control(tune.Callback):
    """Keeps the ledger and asks the sweep to stop when that is better than to go on.

    Args:
        folders: Of all trials.
        options: How many failures that are alike are enough.
        stop: The request.
        ledger: Of this run.
        count_slots: How many trials the cluster has room for, of which nodes come and go.
    """

    def __init__(
        self,
        folders: Mapping[str, TrialFolder],
        options: FailureOptions,
        stop: StopSignal,
        ledger: Ledger,
        count_slots: Callable[[], int],
    ) -> None:
        super().__init__()
        self.folders = dict(folders)
        self.options = options
        self.stop = stop
        self.ledger = ledger
        self._count_slots = count_slots
        self._counted = time.monotonic()
        statuses = {trial: folder.status for trial, folder in folders.items()}
        self._went_well = bool(set(statuses.values()) & (ENDED - {"failed"}))
        self._failures: dict[str, Mapping[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore, which is never made."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial took a slot."""
        self.ledger.begin(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported a row, or what it did since."""
        self.ledger.arrive(trial.config["trial_id"], result)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial lost its slot and waits for another."""
        self.ledger.end(trial.config["trial_id"], again=True)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial left its slot."""
        self._leave(trial.config["trial_id"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial left its slot for good."""
        self._leave(trial.config["trial_id"])

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """Several times a second."""
        now = time.monotonic()
        if now - self._counted >= COUNT_EVERY_S:
            self._counted = now
            self.ledger.resize(self._count_slots())
        self.ledger.advance()
        warning = self.ledger.warning()
        if warning:
            self.stop.say(warning)
        exhausted = self.ledger.exhausted()
        if exhausted:
            self.stop.request(exhausted)
        self.ledger.save(at_once=False)

    def _leave(self, trial: str) -> None:
        self.ledger.end(trial)
        content = self.folders[trial].read()
        if content["status"] != "failed":
            self._went_well |= content["status"] in ENDED
            return
        self._failures[trial] = content.get("failure") or {}
        enough = self.options.stop_after_alike
        if self._went_well or not 0 < enough <= len(self._failures):
            return
        if all_alike(self._failures.values()):
            self.stop.request(
                f"the first {len(self._failures)} trials failed alike and none ended well; once it "
                "is mended, failures.retry=true runs them again",
                is_failure=True,
            )


class EndWhenIdle(tune.Stopper):
    """Ends the run once a stop was requested and no trial holds a slot.

    Args:
        stop: The request.
        ledger: Knows who holds a slot.
    """

    def __init__(self, stop: StopSignal, ledger: Ledger) -> None:
        self.stop = stop
        self.ledger = ledger

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is stopped here."""
        return False

    def stop_all(self) -> bool:
        """Whether the run is over."""
        return self.stop.requested and self.ledger.num_running == 0

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its stoppers for a restore, which is never made."""
        return {}
