"""What a trial is given after an attempt was lost: room, smaller micro-batches, or nothing."""

from __future__ import annotations

import errno
import importlib
import io
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import FIFOScheduler
from rich.console import Console

from kerzoo.attempt import options_of_attempt
from kerzoo.failures import Failure
from kerzoo.records import TrialFolder
from sweeps import runner
from sweeps.events import EventLog, read_events
from sweeps.plan import make_plan
from sweeps.recovery import (
    AttemptFailedError,
    MemoryAwareActors,
    PatientController,
    RecoveringScheduler,
    cause_of_loss,
)
from sweeps.runner import run_plan
from sweeps.schema import FailureOptions
from sweeps.status import driver_of
from sweeps.stopping import StopSignal

ALONE = {"cpu": 2.0}
LOW_MEMORY = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
    "127.0.0.1) was 8.21GB used / 23.54GB limit (0.348556)"
)
VANISHED = (
    "Worker unexpectedly exits with a connection error code 2. End of file. There are some "
    "potential root causes. (1) The process is killed by SIGKILL by OOM killer due to high memory "
    "usage. (2) ray stop --force is called."
)


class Recovery:
    """A trial of 16 sequences a step on a CPU, and what Tune's scheduler does when it is lost."""

    def __init__(self, tmp_path: Path) -> None:
        overrides = ["+sweep=quickstart", "model=opt-tiny", "arm=mezo", f"results_dir={tmp_path}"]
        overrides += ["training.learning_rate=1e-2", "training.perturbation_scale=1e-2"]
        plan = make_plan(overrides, "test")
        plan.create_trials()
        (self.spec,) = plan.specs
        assert self.spec.config["training"]["batch_size"] == 16
        self.folder: TrialFolder = plan.trial_folder(self.spec.trial_id)
        self.stop = StopSignal(tmp_path / ".stop", lambda message: None)
        self.errors = tmp_path / "error.pkl"
        self.resources: list[dict[str, float]] = []
        self.trial = SimpleNamespace(
            config={"trial_id": self.spec.trial_id},
            pickled_error_file=str(self.errors),
            update_resources=self.resources.append,
        )
        folders = {self.spec.trial_id: self.folder}
        self.scheduler = RecoveringScheduler(
            FIFOScheduler(), folders, FailureOptions(max_lost=2), self.stop, ALONE
        )

    def lose(self, error: Exception) -> str:
        """The status after another attempt was lost."""
        self.folder.begin_attempt()
        self.errors.write_bytes(cloudpickle.dumps(error))
        self.scheduler.on_trial_error(None, self.trial)
        return self.folder.status

    @property
    def answers(self) -> list[str]:
        return [retry["answer"] for retry in self.folder.read()["retries"]]


@pytest.fixture
def recovery(tmp_path: Path) -> Recovery:
    return Recovery(tmp_path)


def raised(error: Exception) -> RayTaskError:
    """An attempt's failure as Tune is given it."""
    return RayTaskError("train", "", AttemptFailedError(Failure.of(error).to_dict()))


def died(message: str) -> RayActorError:
    """The loss of a worker as Ray tells of it."""
    return RayActorError(error_msg=message)


class Watched(MemoryAwareActors):
    """Notes what Tune is told of, without Ray."""

    def __init__(self) -> None:
        pass

    def _cleanup_actor(self, tracked_actor: Any) -> None:
        self._failed_actor_ids: set[str] = set()


def test_tune_takes_a_worker_killed_for_memory_for_one_that_died() -> None:
    MemoryAwareActors.install()
    assert tune_controller.RayActorManager is MemoryAwareActors
    told: list[Exception] = []
    actor = SimpleNamespace(actor_id="a", _on_error=lambda actor, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    watched = Watched()
    watched._cleanup_actor(actor)
    watched._actor_task_failed(task, OutOfMemoryError(LOW_MEMORY))
    watched._actor_start_failed(actor, OutOfMemoryError(LOW_MEMORY))
    watched._actor_task_failed(task, died(VANISHED))
    assert all(isinstance(error, RayActorError) for error in told)
    assert [cause_of_loss(error) for error in told] == ["host_memory", "host_memory", "lost_worker"]


@pytest.mark.parametrize("how", ["the memory monitor", "an exception"])
def test_out_of_memory_is_answered_by_room_and_then_by_ever_smaller_micro_batches(
    recovery: Recovery, how: str
) -> None:
    """A CPU runs 8 sequences together by itself, so that half of that is the first that helps."""
    error = died(LOW_MEMORY) if how == "the memory monitor" else raised(MemoryError())
    sizes = []
    while recovery.lose(error) == "interrupted":
        sizes.append(options_of_attempt(recovery.spec, recovery.folder).training.micro_batch)
    assert recovery.answers == ["alone", *(f"micro-batches of {size}" for size in (4, 2, 1))]
    assert sizes == [0, 4, 2, 1]
    assert recovery.resources == [ALONE]
    content = recovery.folder.read()
    assert (content["status"], content["failure"]["cause"]) == ("failed", "host_memory")
    assert recovery.trial.config["skip"]


def test_a_worker_that_vanished_is_replaced_so_many_times_and_not_taken_for_one_without_memory(
    recovery: Recovery,
) -> None:
    assert [recovery.lose(died(VANISHED)) for _ in range(3)] == ["interrupted"] * 2 + ["failed"]
    assert recovery.answers == ["as before"] * 2
    assert recovery.folder.read()["failure"]["cause"] == "lost_worker"


def test_an_error_in_code_is_never_tried_again(recovery: Recovery) -> None:
    assert recovery.lose(raised(KeyError("loss"))) == "failed"
    assert "retries" not in recovery.folder.read()
    assert not recovery.stop.requested


def test_a_full_disk_stops_the_sweep_and_fails_no_trial(recovery: Recovery) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert recovery.lose(raised(full)) == "running"
    assert recovery.stop.requested
    assert recovery.stop.reason == "the results cannot be written: [Errno 28] " + os.strerror(28)


def test_a_trial_that_ended_before_its_worker_was_lost_stays_as_it_is(recovery: Recovery) -> None:
    writer = recovery.folder.begin_attempt()
    writer.set_status("finished")
    recovery.errors.write_bytes(cloudpickle.dumps(died(VANISHED)))
    recovery.scheduler.on_trial_error(None, recovery.trial)
    assert recovery.folder.status == "finished"
    assert recovery.trial.config["skip"]


@pytest.mark.parametrize(
    ("status", "has_actor", "left_to_tune"),
    [("RUNNING", True, ["RUNNING"]), ("PENDING", True, ["RUNNING"]), ("PENDING", False, [])],
)
def test_a_trial_that_is_lost_before_it_begins_is_tried_again_as_one_that_runs(
    status: str, has_actor: bool, left_to_tune: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = SimpleNamespace(status=status)
    seen: list[str] = []

    class Held(set[Any]):
        """Of things that have no hash."""

        def __contains__(self, item: Any) -> bool:
            return has_actor

        def discard(self, item: Any) -> None:
            seen.append("no longer handed over")

    controller: Any = PatientController.__new__(PatientController)
    controller._resetting_trials = controller._staged_trials = Held()
    controller._trial_to_actor = Held()
    controller._unstage_trial_with_resources = lambda trial: seen.append("unstaged")
    controller._set_trial_status = lambda trial, status: setattr(trial, "status", status)
    monkeypatch.setattr(
        TuneController, "_process_trial_failure", lambda self, t, exception: seen.append(t.status)
    )
    controller._process_trial_failure(trial, exception=None)
    unstaged = ["unstaged"] if left_to_tune and status == "PENDING" else []
    assert seen == ["no longer handed over", *unstaged, *left_to_tune]


def test_tune_runs_with_the_patient_controller_once_it_is_installed() -> None:
    module: Any = importlib.import_module("ray.tune.tune")
    PatientController.install()
    assert module.TuneController is PatientController


def test_a_trial_that_lost_rows_is_pending_before_the_next_run_counts_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["+sweep=quickstart", "model=opt-tiny", "arm=mezo", f"results_dir={tmp_path}"]
    plan = make_plan([*overrides, "tracking=none"], "test")
    plan.write()
    plan.create_trials()
    for spec in plan.specs:
        plan.trial_folder(spec.trial_id).update(status="failed")
    lost = plan.trial_folder(plan.specs[0].trial_id)
    lost.update(status="finished")
    monkeypatch.setattr(runner, "prepare", lambda plan, console: 99)
    assert run_plan(plan, Console(file=io.StringIO())) == 99
    assert lost.status == "interrupted"


def test_a_driver_killed_behind_its_last_trial_is_concluded_by_the_next_one(tmp_path: Path) -> None:
    overrides = ["+sweep=quickstart", "model=opt-tiny", "arm=mezo", f"results_dir={tmp_path}"]
    plan = make_plan([*overrides, "tracking=none", f"mirror={tmp_path / 'mirror'}"], "test")
    plan.write()
    plan.create_trials()
    for spec in plan.specs:
        writer = plan.trial_folder(spec.trial_id).begin_attempt()
        for rung in (0, *spec.rungs):
            writer.append_row({"rung": rung, "step": rung // 2, "dev_loss": 0.5})
        writer.set_status("finished")
    events = plan.folder / "events.jsonl"
    EventLog(events).write("started", host=socket.gethostname(), pid=2**22 + 1)
    assert driver_of(read_events(events)) == "was killed; the same command resumes"
    (plan.folder / ".ray").mkdir()
    console = Console(file=io.StringIO())
    for _ in range(2):
        assert run_plan(plan, console) == 0
        assert [event["event"] for event in read_events(events)] == ["started", "ended"]
    assert driver_of(read_events(events)) == "has left (ended)"
    assert not (plan.folder / ".ray").exists()
    mirrored = {path.parent.name for path in (tmp_path / "mirror").glob("*/trials/*/trial.json")}
    assert mirrored == {spec.trial_id for spec in plan.specs}
