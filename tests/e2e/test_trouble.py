"""Sweeps that are asked to stop, that run out of something, or whose trials all fail."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest
from faults import plant
from sweep_process import (
    SweepProcess,
    num_rows,
    numbers_of,
    run_sweep,
    settings,
    statuses,
    trials_of,
)

from kerzoo.records import ENDED

pytestmark = pytest.mark.chaos

ONE_ARM = "space={arm:[mezo],training.perturbation_scale:[1e-2,3e-2],training.learning_rate:[1e-2]}"


def test_a_budget_that_ends_and_a_sigterm_leave_a_sweep_that_resumes_bit_for_bit(
    results: Path, undisturbed: tuple[Path, str]
) -> None:
    folder = results / "stopped"
    command = settings(results, "name=stopped", "scheduler=fifo", "tracking=none")
    code, output = run_sweep(
        results / "stopped_budget.log", [*command, "budget.forward_passes=200"]
    )
    assert code == 130, output
    assert "budget.forward_passes" in output
    assert "goes on" in output
    assert set(statuses(folder).values()) - ENDED

    before = num_rows(folder)
    with SweepProcess(results / "stopped_term.log", command) as sweep:
        sweep.wait_until(lambda: num_rows(folder) > before)
        assert sweep.listening() == {"127.0.0.1"}
        sweep.process.send_signal(signal.SIGTERM)
        assert sweep.wait() in (130, 0), sweep.output()
        assert "SIGTERM: once more stops at once" in sweep.output()
    assert not (folder / ".stop").exists()

    code, output = run_sweep(results / "stopped_ended.log", command)
    assert code == 0, output
    assert numbers_of(folder) == numbers_of(undisturbed[0])
    content = json.loads((folder / "run.json").read_text())
    assert content["total"]["forward_passes"] == 960
    assert len(content["runs"]) >= 2


def test_trials_that_all_fail_alike_stop_the_sweep_and_run_again_when_asked(
    results: Path, undisturbed: tuple[Path, str], tmp_path: Path
) -> None:
    raising = """
def states(self, indices, positions):
    raise RuntimeError("a bug, on purpose")
SequenceRunner.states = states
"""
    folder = results / "alike"
    command = settings(results, "name=alike", "scheduler=fifo", "tracking=none")
    command += ["cluster.num_cpus=1", "failures.stop_after_alike=2"]
    assert run_sweep(results / "alike_first.log", [*command, "budget.wall_time_s=1"])[0] == 130
    environment = plant(tmp_path, "kerzoo.losses.heads", raising)
    code, output = run_sweep(results / "alike.log", command, **environment)
    assert code == 1, output
    ended = list(statuses(folder).values())
    if "failed" in ended:  # else preparing the sweep met the bug
        assert ended.count("failed") == 2
        assert "2 trials failed alike" in output
        assert "failed (code): 2 trials alike: RuntimeError: a bug, on purpose at " in output
        assert all(where.read()["attempts"] <= 2 for where in trials_of(folder).values())
    code, output = run_sweep(results / "alike_mended.log", [*command, "failures.retry=true"])
    assert code == 0, output
    assert numbers_of(folder) == numbers_of(undisturbed[0])


def test_trials_that_run_out_of_device_memory_run_alone_and_then_smaller(
    results: Path, undisturbed: tuple[Path, str], tmp_path: Path
) -> None:
    scarce = """
whole = SequenceRunner.states
def states(self, indices, positions):
    import threading
    worker = threading.current_thread() is not threading.main_thread()
    if worker and len(indices) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory, on purpose")
    return whole(self, indices, positions)
SequenceRunner.states = states
"""
    folder = results / "scarce"
    command = settings(results, "name=scarce", "scheduler=fifo", "tracking=none", ONE_ARM)
    environment = plant(tmp_path, "kerzoo.losses.heads", scarce)
    code, output = run_sweep(results / "scarce.log", command, **environment)
    assert code == 0, output
    whole = numbers_of(undisturbed[0])
    for trial, where in trials_of(folder).items():
        content = where.read()
        assert [retry["cause"] for retry in content["retries"]] == ["device_memory"] * 2
        assert [r["answer"] for r in content["retries"]] == ["alone", "micro-batches of 1"]
        assert content["micro_batch"] == 1
        for row, expected in zip(where.rows(), whole[trial], strict=True):
            assert row["step"] == expected["step"]
            assert math.isclose(row["dev_loss"], expected["dev_loss"], rel_tol=1e-3)
