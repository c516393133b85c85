"""The log of a trial's steps: with the seed, all that rebuilds its weights bit for bit.

A MessagePack stream of one array a step, appended as the trial runs:

    [step, losses, tokens, device_time_s, wall_time_s]

Radii, directions, schedules and clipping follow from the trial's configuration and seed, so the
losses are all that a step adds to them: some 40 bytes for two forward passes. Replaying
(`KerZOO.replay`) makes the same update from the same losses and needs no forward pass.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path

import msgpack


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """One update.

    Attributes:
        step: 0 for the first update.
        losses: As in `kerzoo.estimator.Estimate`. float64.
        tokens: Tokens in the batch, padding excluded, counted once per forward pass.
        device_time_s: Duration of the step.
        wall_time_s: The trial's wall time at the end of the step, replay excluded.
    """

    step: int
    losses: tuple[float, ...]
    tokens: int
    device_time_s: float
    wall_time_s: float

    def pack(self) -> bytes:
        """The record as it is appended to the log."""
        packed: bytes = msgpack.packb(dataclasses.astuple(self))
        return packed


def read_trajectory(path: Path) -> list[StepRecord]:
    """The complete steps of a log, in order; a torn tail is left out.

    Raises:
        ValueError: If the steps are not 0, 1, 2, … or the file is no trajectory.
    """
    records, _ = _read(path)
    return records


def cut_torn_step(path: Path) -> list[StepRecord]:
    """Cut off an incomplete last step, durably; return the complete ones."""
    records, whole = _read(path)
    if path.exists() and path.stat().st_size > whole:
        os.truncate(path, whole)
    return records


def cut_steps(path: Path, steps: Sequence[StepRecord]) -> None:
    """Cut off what follows some steps, which are the log's first."""
    if path.exists():
        os.truncate(path, sum(len(step.pack()) for step in steps))


def _read(path: Path) -> tuple[list[StepRecord], int]:
    """The records, and how many bytes they fill."""
    records: list[StepRecord] = []
    whole = 0
    if not path.exists():
        return records, whole
    unpacker = msgpack.Unpacker(io.BytesIO(path.read_bytes()), use_list=False)
    try:
        for values in unpacker:
            record = StepRecord(*values)
            if record.step != len(records):
                raise ValueError(f"step {len(records)} expected, got {record.step}")
            records.append(record)
            whole = unpacker.tell()
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"{path}: not a trajectory after step {len(records)}: {error}") from error
    return records, whole
