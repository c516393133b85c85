"""What a trial leaves on disk: rows that survive a crash, and one writer at a time."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerzoo.records import (
    ENDED,
    ROW_COLUMNS,
    StaleAttemptError,
    Status,
    TrialFolder,
    TrialSpec,
    cut_torn_line,
    iterate_rows,
    missing_rungs,
    write_json,
)

SPEC = TrialSpec(
    trial_id="ab12",
    arm="mezo",
    phase="screen",
    overrides=["arm=mezo"],
    choices={"kernel": "constant"},
    config={"arm": {"name": "mezo"}},
    rungs=[12, 24],
    command="python -m sweeps.trial arm=mezo",
)


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    trial = TrialFolder(tmp_path / "trials" / SPEC.trial_id)
    trial.create(SPEC)
    return trial


def test_rows_come_back_as_they_were_written(folder: TrialFolder) -> None:
    rows = [{"step": 0, "dev_loss": 0.1 + 0.2, "arm": "mezo – β", "diverged": False}, {"step": 12}]
    writer = folder.begin_attempt()
    for row in rows:
        writer.append_row(row)
    assert folder.rows() == rows


@given(st.floats())
@settings(max_examples=30)
def test_a_number_is_read_back_bit_for_bit_and_null_where_it_is_not_finite(value: float) -> None:
    with TemporaryDirectory() as temporary:
        trial = TrialFolder(Path(temporary) / "a")
        trial.create(SPEC)
        trial.begin_attempt().append_row({"dev_loss": value})
        ((read,),) = (row.values() for row in trial.rows())
    assert read == value if math.isfinite(value) else read is None


def test_the_file_is_strict_json_without_nan_or_infinity(folder: TrialFolder) -> None:
    folder.begin_attempt().append_row({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5})
    line = folder.records_path.read_text()
    assert json.loads(line) == {"a": None, "b": None, "c": None, "d": 1.5}
    assert "NaN" not in line
    assert "Infinity" not in line


def test_columns_are_those_that_scripts_rely_on() -> None:
    assert len(set(ROW_COLUMNS)) == len(ROW_COLUMNS) == 35
    assert ROW_COLUMNS[:2] == ("trial_id", "arm")
    assert {"rung", "step", "forward_passes", "dev_loss", "diverged"} <= set(ROW_COLUMNS)


def test_a_line_torn_at_any_byte_is_ignored_by_readers_and_cut_by_the_next_attempt(
    folder: TrialFolder,
) -> None:
    writer = folder.begin_attempt()
    writer.append_row({"step": 0, "arm": "é"})
    whole = folder.records_path.read_bytes()
    torn = '{"step": 12, "arm": "é"}'.encode()
    for length in range(1, len(torn) + 1):
        folder.records_path.write_bytes(whole + torn[:length])
        assert [row["step"] for row in folder.rows()] == [0]
        assert folder.records_path.stat().st_size == len(whole) + length  # reading changes nothing
        writer = folder.begin_attempt()
        assert folder.records_path.read_bytes() == whole
        writer.append_row({"step": 24})
        assert [row["step"] for row in folder.rows()] == [0, 24]


def test_a_file_with_nothing_but_a_torn_line_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"step"')
    assert list(iterate_rows(path)) == []
    cut_torn_line(path)
    assert path.read_bytes() == b""


def test_where_there_is_no_file_there_are_no_rows(tmp_path: Path) -> None:
    assert list(iterate_rows(tmp_path / "records.jsonl")) == []
    cut_torn_line(tmp_path / "records.jsonl")
    trial = TrialFolder(tmp_path / "nothing")
    assert trial.rows() == []
    assert trial.status == "planned"
    with pytest.raises(FileNotFoundError):
        trial.read()


def test_a_spec_comes_back_from_trial_json(folder: TrialFolder) -> None:
    assert TrialSpec.from_dict(folder.read()) == SPEC
    assert folder.status == "planned"
    assert folder.read()["attempts"] == 0


def end(
    folder: TrialFolder, status: Status = "finished", rungs: tuple[int, ...] = (0, 12, 24)
) -> None:
    writer = folder.begin_attempt()
    for rung in rungs:
        writer.append_row({"step": rung // 2, "rung": rung})
    writer.set_status(status, ended_rung=rungs[-1])


def lose_file(path: Path) -> None:
    path.unlink()


def lose_tail(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 3)


def lose_line(path: Path) -> None:
    first, _, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, *others]))


@pytest.mark.parametrize(("lose", "left"), [(lose_file, 0), (lose_tail, -1), (lose_line, 1)])
@pytest.mark.parametrize("status", ["finished", "stopped", "diverged"])
def test_a_trial_that_lost_rows_after_it_ended_is_open_again_in_front_of_the_first_of_them(
    folder: TrialFolder,
    status: Status,
    lose: Callable[[Path], None],
    left: int,
) -> None:
    end(folder, status, (0, 12, 24) if status == "finished" else (0, 12))
    whole = folder.rows()
    assert missing_rungs(folder.read(), whole) == []
    lose(folder.records_path)
    kept = whole[:left]
    lost = [row["rung"] for row in whole if row not in folder.rows()]
    assert missing_rungs(folder.read(), folder.rows()) == lost != []
    folder.create(SPEC)
    assert folder.status == "interrupted"
    assert folder.rows() == kept
    assert folder.read()["attempts"] == 1


def test_a_trial_that_failed_or_is_under_way_lacks_no_row(folder: TrialFolder) -> None:
    for status in ("planned", "running", "paused", "failed", "interrupted"):
        assert missing_rungs({"status": status, "rungs": [12, 24]}, []) == []
    assert missing_rungs({"status": "finished", "rungs": [12, 24]}, [{"rung": 12}]) == [0, 24]
    assert missing_rungs({"status": "finished", "rungs": "as in another program"}, []) == []


def test_creating_a_trial_again_changes_nothing(folder: TrialFolder) -> None:
    end(folder)
    before = (folder.path / "trial.json").read_bytes()
    folder.create(SPEC)
    assert (folder.path / "trial.json").read_bytes() == before


def test_a_trial_that_is_planned_again_learns_where_model_and_data_lie_now(tmp_path: Path) -> None:
    def planned(path: str | None, data: str, rate: float) -> TrialSpec:
        config = {"model": {"path": path, "name": "m"}, "task": {"data_dir": data}, "rate": rate}
        return dataclasses.replace(SPEC, config=config, overrides=[f"task.data_dir={data}"])

    folder = TrialFolder(tmp_path / SPEC.trial_id)
    folder.create(planned("/old/model", "/old/data", 0.1))
    end(folder)
    folder.create(planned("/new/model", "/new/data", 0.2))
    content = folder.read()
    assert content["config"] == planned("/new/model", "/new/data", 0.1).config
    assert content["overrides"] == ["task.data_dir=/new/data"]
    assert (content["status"], content["attempts"]) == ("finished", 1)


def test_attempts_are_numbered_and_begin_as_running(folder: TrialFolder) -> None:
    for number in (1, 2, 3):
        assert folder.begin_attempt().attempt == number
        assert folder.read()["attempts"] == number
        assert folder.status == "running"


def test_the_start_is_the_first_attempts_and_the_end_is_the_last_ones(folder: TrialFolder) -> None:
    writer = folder.begin_attempt()
    folder.update(started="2000-01-01T00:00:00+00:00")
    writer.set_status("failed", failure={"kind": "OSError"})
    assert folder.read()["ended"] is not None
    folder.begin_attempt()
    values = folder.read()
    assert values["started"] == "2000-01-01T00:00:00+00:00"
    assert values["ended"] is None
    assert values["failure"] is None


@pytest.mark.parametrize("status", [*sorted(ENDED), "interrupted"])
def test_a_status_is_recorded_with_its_values(folder: TrialFolder, status: Status) -> None:
    folder.begin_attempt().set_status(status, replay_time_s=1.5)
    values = folder.read()
    assert (values["status"], values["replay_time_s"]) == (status, 1.5)
    assert (values["ended"] is not None) == (status in ENDED)
    assert TrialSpec.from_dict(values) == SPEC


def test_an_overtaken_attempt_can_write_neither_row_nor_step_nor_status(
    folder: TrialFolder,
) -> None:
    stale = folder.begin_attempt()
    stale.append_row({"step": 0})
    newer = folder.begin_attempt()
    message = "attempt 1 of trial ab12 was overtaken by attempt 2"
    with pytest.raises(StaleAttemptError, match=message):
        stale.append_row({"step": 12})
    with pytest.raises(StaleAttemptError, match=message):
        stale.append_step(b"step")
    with pytest.raises(StaleAttemptError, match=message):
        stale.set_status("failed")
    with pytest.raises(StaleAttemptError, match=message), stale.holding():
        pytest.fail("it held what is not its own any more")
    with newer.holding():
        pass
    newer.append_row({"step": 24})
    assert [row["step"] for row in folder.rows()] == [0, 24]
    assert not folder.trajectory_path.exists()
    assert folder.status == "running"


def test_an_attempt_in_another_process_overtakes_this_one(folder: TrialFolder) -> None:
    stale = folder.begin_attempt()
    program = (
        "import sys; from pathlib import Path; from kerzoo.records import TrialFolder;"
        "TrialFolder(Path(sys.argv[1])).begin_attempt().append_row({'step': 7})"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program, str(folder.path)], cwd=root, check=True)
    with pytest.raises(StaleAttemptError):
        stale.append_row({"step": 0})
    assert [row["step"] for row in folder.rows()] == [7]
    assert folder.read()["attempts"] == 2


def test_processes_that_begin_at_once_get_different_numbers(folder: TrialFolder) -> None:
    program = (
        "import sys; from pathlib import Path; from kerzoo.records import TrialFolder;"
        "folder = TrialFolder(Path(sys.argv[1]));"
        "print([folder.begin_attempt().attempt for _ in range(20)])"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", program, str(folder.path)]
    processes = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    numbers = [n for p in processes for n in json.loads(p.communicate(timeout=60)[0])]
    assert sorted(numbers) == list(range(1, 41))


def test_a_driver_changes_entries_whoever_the_writer_is(folder: TrialFolder) -> None:
    writer = folder.begin_attempt()
    folder.update(status="interrupted")
    assert folder.status == "interrupted"
    writer.append_row({"step": 0})  # no newer attempt has begun
    assert folder.read()["attempts"] == 1


def test_a_json_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1}


def test_reading_records_imports_neither_torch_nor_transformers() -> None:
    program = "import sys, kerzoo.records; print({'torch', 'transformers'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True
    )
    assert answer.stdout.strip() == "set()"
