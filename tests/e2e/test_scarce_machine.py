"""Sweeps on machines whose memory or disk ends while they run."""

from __future__ import annotations

import contextlib
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
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

GIB = 1 << 30
ALLOWED_GIB = 4.0
"""What the sweep may take; it needs 1.5 GiB itself, for driver, Ray and one worker."""
ONE_TRIAL = "space={arm:[mezo],training.perturbation_scale:[1e-2],training.learning_rate:[1e-2]}"


def test_a_trial_that_ray_kills_for_the_hosts_memory_runs_alone_and_then_smaller(
    results: Path, undisturbed: tuple[Path, str], tmp_path: Path
) -> None:
    greedy = """
whole = SequenceRunner.states
def states(self, indices, positions):
    import threading, time
    taken = []
    while threading.current_thread() is not threading.main_thread() and len(indices) > 1:
        taken.append(torch.ones(2**28, dtype=torch.uint8))
        time.sleep(0.2)
        assert len(taken) < 40, "nobody minded 10 GiB"
    return whole(self, indices, positions)
SequenceRunner.states = states
"""
    memory = psutil.virtual_memory()
    allowed = memory.total - memory.available + ALLOWED_GIB * GIB
    if allowed > 0.9 * memory.total:
        pytest.skip(f"this machine has less than {ALLOWED_GIB:g} GiB of free memory to spare")
    folder = results / "greedy"
    command = settings(results, "name=greedy", "scheduler=fifo", "tracking=none", ONE_TRIAL)
    environment = plant(tmp_path, "kerzoo.losses.heads", greedy) | {
        "RAY_memory_usage_threshold": str(allowed / memory.total),
        "RAY_memory_monitor_refresh_ms": "100",
    }
    code, output = run_sweep(results / "greedy.log", command, **environment)
    assert code == 0, output
    whole = numbers_of(undisturbed[0])
    ((trial, where),) = trials_of(folder).items()
    content = where.read()
    assert [retry["cause"] for retry in content["retries"]] == ["host_memory"] * 2
    assert [r["answer"] for r in content["retries"]] == ["alone", "micro-batches of 1"]
    assert content["micro_batch"] == 1
    for row, expected in zip(where.rows(), whole[trial], strict=True):
        assert row["step"] == expected["step"]
        assert math.isclose(row["dev_loss"], expected["dev_loss"], rel_tol=1e-3)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free; returns what takes the room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass
    return ballast


def test_a_disk_that_fills_up_stops_the_sweep_and_with_room_again_it_ends_bit_for_bit(
    results: Path, undisturbed: tuple[Path, str], small_disk: Path
) -> None:
    folder = small_disk / "full"
    command = settings(results, "name=full", "scheduler=fifo", "tracking=none")
    command.append(f"results_dir={small_disk}")
    with SweepProcess(results / "full.log", command) as sweep:
        sweep.wait_until(lambda: num_rows(folder) >= 5)
        ballast = fill(small_disk)
        assert sweep.wait() == 130, sweep.output()
        assert "the results cannot be written" in sweep.output().lower()
        assert "No report yet: " in sweep.output()
    assert set(statuses(folder).values()) - ENDED
    assert "failed" not in statuses(folder).values()
    ballast.unlink()
    code, output = run_sweep(results / "full_ended.log", command)
    assert code == 0, output
    assert numbers_of(folder) == numbers_of(undisturbed[0])
