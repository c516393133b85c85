"""What happens after an attempt was lost: again, again alone, again smaller, or never again.

Tune restarts a trial whenever its process is lost or raises; between the two, this module reads
why, and changes what the next attempt is given: more room, smaller micro-batches, or nothing to
do. Counts stand in trial.json, so that a budget of retries holds over interruptions.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from kerzoo.attempt import options_of_attempt, smaller_micro_batch
from kerzoo.failures import MEMORY_CAUSES, Cause, Failure
from kerzoo.records import ENDED, TrialFolder, TrialSpec, timestamp
from sweeps.schema import FailureOptions
from sweeps.stopping import StopSignal

_LOW_MEMORY = re.compile(r"low on memory|OutOfMemory|memory monitor", re.IGNORECASE)


class AttemptFailedError(Exception):
    """An attempt that its worker could not bring to an end by itself.

    Raised instead of the original, whose type may not exist in the driver.

    Args:
        failure: As in trial.json.
    """

    def __init__(self, failure: dict[str, str]) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.failure['cause']}: {self.failure['kind']}: {self.failure['message']}"


class RecoveringScheduler(TrialScheduler):
    """Another scheduler, to which no attempt that is made again is an error.

    Args:
        scheduler: Decides about rungs.
        folders: Of all trials.
        options: How often a worker may be lost.
        stop: Is requested when nothing can be written.
        alone: Ray resources that leave no room for a neighbour.
    """

    def __init__(
        self,
        scheduler: TrialScheduler,
        folders: Mapping[str, TrialFolder],
        options: FailureOptions,
        stop: StopSignal,
        alone: Mapping[str, float],
    ) -> None:
        self.scheduler = scheduler
        self.folders = dict(folders)
        self.options = options
        self.stop = stop
        self.alone = dict(alone)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Prepare the next attempt of a trial, which Tune makes in any case."""
        failure = failure_of(trial)
        try:
            again = self._prepare_retry(trial, failure)
        except OSError as error:
            failure, again = Failure.of(error).to_dict(), False
        if failure["cause"] == "disk":
            self.stop.request(f"the results cannot be written: {failure['message']}")
        if not again:
            trial.config["skip"] = True
            self.scheduler.on_trial_error(tune_controller, trial)

    def _prepare_retry(self, trial: Any, failure: dict[str, str]) -> bool:
        folder = self.folders[trial.config["trial_id"]]
        cause, values = failure["cause"], folder.read()
        if values["status"] in ENDED or cause == "disk":
            return False
        losses = dict(values.get("losses", {}))
        losses[cause] = losses.get(cause, 0) + 1
        answer = self._answer(trial, folder, cause, losses[cause])
        if answer is None:
            folder.update(status="failed", failure=failure, losses=losses, ended=timestamp())
            return False
        what, changed = answer
        retry = {"time": timestamp(), "cause": cause, "answer": what, "where": failure["where"]}
        retries = [*values.get("retries", []), retry]
        folder.update(status="interrupted", losses=losses, retries=retries, **changed)
        return True

    def _answer(
        self, trial: Any, folder: TrialFolder, cause: str, times: int
    ) -> tuple[str, dict[str, Any]] | None:
        """What another attempt is given, in words and as entries of trial.json; None for none."""
        if cause == "preempted" or (cause == "lost_worker" and times <= self.options.max_lost):
            return "as before", {}
        if cause not in MEMORY_CAUSES:
            return None
        if not trial.config.get("alone"):
            trial.config["alone"] = True
            trial.update_resources(self.alone)
            return "alone", {}
        training = options_of_attempt(TrialSpec.from_dict(folder.read()), folder).training
        smaller = smaller_micro_batch(training)
        if smaller is None:
            return None
        return f"micro-batches of {smaller}", {"micro_batch": smaller}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The other scheduler's."""
        return bool(self.scheduler.set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """The other scheduler's."""
        self.scheduler.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The other scheduler's."""
        return str(self.scheduler.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The other scheduler's."""
        self.scheduler.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """The other scheduler's."""
        self.scheduler.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any, **options: Any) -> Any:
        """The other scheduler's."""
        return self.scheduler.choose_trial_to_run(tune_controller, **options)

    def debug_string(self) -> str:
        """The other scheduler's."""
        return str(self.scheduler.debug_string())

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles schedulers for a restore, which is never made."""
        return {}


class MemoryAwareActors(RayActorManager):
    """Tune's actors, among which a worker that Ray's memory monitor killed is one that died.

    Of such a worker Ray raises an OutOfMemoryError, which is neither of the two errors that Tune
    2.60 expects: it would end the whole run.
    """

    @classmethod
    def install(cls) -> None:
        """Make Tune use it; again is fine."""
        vars(tune_controller)["RayActorManager"] = cls

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        super()._actor_task_failed(tracked_actor_task, _as_death(exception))

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, _as_death(exception))


def _as_death(error: Exception) -> Exception:
    return RayActorError(error_msg=str(error)) if isinstance(error, OutOfMemoryError) else error


class PatientController(TuneController):
    """Tune's loop, which never gives up a trial that was lost before it began.

    Tune itself ends a trial for good whose process, one that is used again, was lost while it was
    being handed over; and where it does not, it waits for that process for ever.
    """

    @classmethod
    def install(cls) -> None:
        """Make Tune use it; again is fine."""
        vars(importlib.import_module("ray.tune.tune"))["TuneController"] = cls

    def _process_trial_failure(self, trial: Trial, exception: Any) -> None:
        self._resetting_trials.discard(trial)
        if trial.status == Trial.PENDING:
            if trial not in self._trial_to_actor:
                return  # told twice: the next attempt waits for its turn already
            if trial in self._staged_trials:
                self._unstage_trial_with_resources(trial)
            self._set_trial_status(trial, Trial.RUNNING)  # what Tune tries again
        super()._process_trial_failure(trial, exception)


def failure_of(trial: Any) -> dict[str, str]:
    """What Tune knows of a trial's last failure, in the words of trial.json."""
    path = trial.pickled_error_file  # as this process wrote it; Tune copies it elsewhere later
    error = cloudpickle.loads(Path(path).read_bytes()) if path else None
    if isinstance(error, RayTaskError) and isinstance(error.cause, AttemptFailedError):
        return error.cause.failure
    cause: Cause = "code"
    if isinstance(error, RayActorError):
        cause = cause_of_loss(error)
    kind, text = type(error).__name__, str(error)
    return Failure(cause, kind, text.strip().partition("\n")[0], "", text).to_dict()


def cause_of_loss(error: RayActorError) -> Cause:
    """Why a worker is gone: its node was preempted, Ray's memory monitor chose it, or neither."""
    if error.preempted:
        return "preempted"
    text = str(error)
    detail = text.partition("There are some potential root causes")[0]
    return "host_memory" if _LOW_MEMORY.search(detail) else "lost_worker"
