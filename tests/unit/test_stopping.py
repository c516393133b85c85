"""How a sweep is asked to stop, and how its workers hear of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sweeps.stopping import StopFile, StopRequested, StopSignal, stop_file


def test_a_worker_stops_between_two_steps_and_at_no_other_moment(tmp_path: Path) -> None:
    path = tmp_path / ".stop"
    worker = StopFile(path)
    worker.check("training", 1, 9)
    path.touch()
    worker = StopFile(path)
    worker.check("loading opt-tiny", 1, 9)
    with pytest.raises(StopRequested):
        worker.check("training", 2, 9)
    assert not issubclass(StopRequested, Exception)  # or a trial that stops would have failed


def test_the_first_reason_counts_and_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    stop = StopSignal(tmp_path / ".stop", said.append)
    assert not stop.requested
    stop.request("the budget is spent")
    stop.request("all failed alike", is_failure=True)
    assert stop.requested
    assert not stop.is_failure
    assert said == [
        "the budget is spent; the sweep stops after the steps and evaluations under way"
    ]
    assert StopFile(tmp_path / ".stop").exists


def test_a_file_made_by_another_terminal_is_a_request_and_an_old_one_is_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / ".stop"
    path.touch()
    with stop_file(path) as file:
        assert not file.exists
        assert not StopSignal(path, str).requested
        path.touch()
        assert StopSignal(path, str).requested
        assert file.exists
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_asks_and_a_second_one_ends_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    stop = StopSignal(tmp_path / ".stop", str)
    with stop.on_signals():
        os.kill(os.getpid(), number)
        assert stop.requested
        assert (tmp_path / ".stop").exists()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
    assert (tmp_path / ".stop").exists()  # for the parts that would follow


def test_a_folder_that_cannot_be_written_to_stops_the_sweep_all_the_same(tmp_path: Path) -> None:
    stop = StopSignal(tmp_path / "gone" / ".stop", str)
    stop.request("the disk is full")
    assert stop.requested
