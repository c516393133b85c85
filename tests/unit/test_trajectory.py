"""The log of steps: compact, and whole up to the last complete step whatever a crash leaves."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerzoo.trajectory import StepRecord, cut_torn_step, read_trajectory

FINITE = st.floats(allow_nan=False)


def record(step: int, num_directions: int = 1) -> StepRecord:
    losses = tuple(0.7 + 0.1 * (step + i) for i in range(2 * num_directions))
    return StepRecord(step, losses, 512, 0.25, 1.5 + step)


def write(path: Path, records: list[StepRecord]) -> bytes:
    content = b"".join(r.pack() for r in records)
    path.write_bytes(content)
    return content


@given(st.lists(st.tuples(FINITE, FINITE, FINITE, st.integers(0, 2**40)), max_size=8))
@settings(max_examples=50)
def test_steps_come_back_bit_for_bit(values: list[tuple[float, float, float, int]]) -> None:
    records = [
        StepRecord(step, (a, b, c, a), tokens, abs(a), abs(b))
        for step, (a, b, c, tokens) in enumerate(values)
    ]
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "trajectory.msgpack"
        write(path, records)
        read = read_trajectory(path)
    assert read == records
    assert [r.pack() for r in read] == [r.pack() for r in records]  # −0.0 is not 0.0


def test_a_step_takes_tens_of_bytes() -> None:
    assert len(record(100_000).pack()) <= 48
    assert len(record(100_000, num_directions=3).pack()) <= 48 + 2 * 18


def test_without_a_file_there_are_no_steps(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.msgpack"
    assert read_trajectory(path) == []
    assert cut_torn_step(path) == []
    assert not path.exists()


def test_a_tail_torn_at_any_byte_is_left_out_and_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.msgpack"
    records = [record(step) for step in range(4)]
    whole = write(path, records[:3])
    last = records[3].pack()
    for length in range(len(last)):
        path.write_bytes(whole + last[:length])
        assert read_trajectory(path) == records[:3]
        assert path.stat().st_size == len(whole) + length  # reading changes nothing
        assert cut_torn_step(path) == records[:3]
        assert path.read_bytes() == whole
        with path.open("ab") as file:
            file.write(last)
        assert read_trajectory(path) == records


def test_a_complete_log_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.msgpack"
    content = write(path, [record(0), record(1)])
    assert cut_torn_step(path) == [record(0), record(1)]
    assert path.read_bytes() == content


def test_more_steps_than_one_read_of_the_unpacker_come_back(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.msgpack"
    records = [record(step) for step in range(20_000)]
    content = write(path, records)
    path.write_bytes(content + b"\x97")
    assert cut_torn_step(path) == records
    assert path.stat().st_size == len(content)


@pytest.mark.parametrize("steps", [[1], [0, 2], [0, 1, 1], [0, 1, 0]])
def test_steps_in_a_wrong_order_are_refused(tmp_path: Path, steps: list[int]) -> None:
    path = tmp_path / "trajectory.msgpack"
    content = write(path, [record(step) for step in steps])
    with pytest.raises(ValueError, match=rf"step {len(steps) - 1} expected, got {steps[-1]}"):
        read_trajectory(path)
    with pytest.raises(ValueError, match="not a trajectory"):
        cut_torn_step(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"hello", msgpack.packb([0, 1.0]), msgpack.packb({"step": 0}), b"\xc1"]
)
def test_a_file_that_is_no_trajectory_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trajectory.msgpack"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"trajectory\.msgpack: not a trajectory after step 0"):
        read_trajectory(path)
