"""Trials that run out of memory or disk: what goes on, and what is recorded."""

from __future__ import annotations

import math
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_trials import LORA_LAST, created, numbers, trial_config, trial_spec

from kerzoo.attempt import run_trial
from kerzoo.losses import SequenceRunner
from kerzoo.options import TrialOptions
from kerzoo.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_cache")


def hold_at_most(sequences: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model raise as a GPU does when more sequences than these are run together."""
    states = SequenceRunner.states

    def limited(
        self: SequenceRunner, indices: Sequence[int], positions: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        if len(indices) > sequences:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return states(self, indices, positions)

    monkeypatch.setattr(SequenceRunner, "states", limited)


@pytest.mark.parametrize("tuning", ["full", "last layers"])
def test_a_trial_that_runs_out_of_memory_goes_on_with_smaller_micro_batches(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: str
) -> None:
    config = trial_config(sst2, **({"tuning": LORA_LAST} if tuning == "last layers" else {}))
    spec = trial_spec(config)
    through = created(tmp_path / "through", spec)
    list(run_trial(spec, through, Workspace()))
    hold_at_most(2, monkeypatch)
    trial = created(tmp_path / "scarce", spec)
    list(run_trial(spec, trial, Workspace()))
    content = trial.read()
    assert content["status"] == "finished"
    assert content["micro_batch"] == 2
    assert content["failure"] is None
    assert [retry["cause"] for retry in content["retries"]] == ["device_memory"] * 2
    answers = [retry["answer"] for retry in content["retries"]]
    assert answers == ["micro-batches of 4", "micro-batches of 2"]
    for row, whole in zip(numbers(trial.rows()), numbers(through.rows()), strict=True):
        assert row["step"] == whole["step"]
        assert math.isclose(row["dev_loss"], whole["dev_loss"], rel_tol=1e-4)


def test_a_trial_that_needs_too_much_for_one_sequence_has_failed(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_at_most(0, monkeypatch)
    spec = trial_spec(trial_config(sst2))
    trial = created(tmp_path, spec)
    with pytest.raises(torch.OutOfMemoryError):
        list(run_trial(spec, trial, Workspace()))
    assert trial.status == "failed"
    assert trial.read()["failure"]["cause"] == "device_memory"
    assert trial.read()["micro_batch"] == 1


def test_a_trial_with_neighbours_is_interrupted_rather_than_made_smaller(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_at_most(4, monkeypatch)
    spec = trial_spec(trial_config(sst2))
    trial = created(tmp_path, spec)
    with pytest.raises(torch.OutOfMemoryError):
        list(run_trial(spec, trial, Workspace(), has_neighbours=True))
    assert trial.status == "interrupted"
    assert "micro_batch" not in trial.read()


def test_a_full_disk_tears_no_row_and_the_trial_goes_on_when_there_is_room(
    sst2: Path, tmp_path: Path
) -> None:
    spec = trial_spec(trial_config(sst2, rungs=[step / 12 for step in range(1, 13)]))
    through = created(tmp_path / "through", spec)
    list(run_trial(spec, through, Workspace()))
    workspace = Workspace()
    with workspace.open(TrialOptions.from_config(spec.config)):
        pass
    trial = created(tmp_path / "full", spec)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = (through.path / "trial.json").stat().st_size + 100
    assert room < through.records_path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large|No space left"):
            list(run_trial(spec, trial, workspace))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert trial.records_path.read_bytes().endswith(b"\n")
    assert 0 < len(trial.rows()) < len(through.rows())
    assert not list(trial.path.glob(".trial.json.*"))
    list(run_trial(spec, trial, workspace))
    assert numbers(trial.rows()) == numbers(through.rows())
