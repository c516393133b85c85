"""What a trial leaves on disk: trial.json, the rows of records.jsonl, and who may write them.

    results/NAME/trials/TRIAL_ID/
        trial.json       what the trial is, its status, its attempts
        records.jsonl    append-only rows, one per evaluation; the first is step 0
        trajectory.*     per step: what replays it (kerzoo.trajectory)

One writer at a time: beginning an attempt raises the attempt's number under a lock, and every
write checks under the same lock that its own number is still the newest. A worker that outlived
its driver can therefore never add to a trial that was started again. A line that was torn by a
crash is cut off when the next attempt begins.

This module imports no torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import filelock

from kerzoo import METHOD_VERSION

Status = Literal[
    "planned", "running", "paused", "stopped", "finished", "diverged", "failed", "interrupted"
]
ENDED: frozenset[str] = frozenset({"stopped", "finished", "diverged", "failed"})
"""Statuses after which a trial is not run again by the same command."""

Row = dict[str, Any]

TEST_COLUMNS = ("test_step", "test_loss", "test_accuracy", "test_f1", "test_auc")
"""Columns of the phase "confirm": values in the trial's last row, null in the others."""

ROW_COLUMNS = (
    "trial_id",
    "arm",
    "kernel",
    "order",
    "half_width",
    "perturbation_scale",
    "learning_rate",
    "learning_rate_factor",
    "num_directions",
    "tuning",
    "model",
    "task",
    "seed",
    "phase",
    "rung",
    "step",
    "forward_passes",
    "examples_seen",
    "tokens_processed",
    "wall_time_s",
    "device_time_s",
    "eval_time_s",
    "train_loss",
    "projected_gradient_rms",
    "dev_loss",
    "dev_accuracy",
    "dev_f1",
    "dev_auc",
    "diverged",
    "peak_memory_gib",
    *TEST_COLUMNS,
)
"""Columns of a row, in order. `dev_f1` in place of `dev_accuracy` where answers are generated;
`dev_auc` only where the task is binary; `test_*` alike, and only in the phase "confirm".
`projected_gradient_rms`: of n · coefficients (`kerzoo.estimator.Estimate`) since the evaluation
before, before clipping; null without such steps, and missing in records of earlier versions."""

TIMING_COLUMNS = frozenset({"wall_time_s", "device_time_s", "eval_time_s", "peak_memory_gib"})
"""What may differ between two runs that are bit-equal."""


class StaleAttemptError(RuntimeError):
    """This attempt was overtaken by a newer one and may not write any more."""


@dataclasses.dataclass(frozen=True)
class TrialSpec:
    """A trial as the plan lists it; enough to run it without Hydra.

    Attributes:
        trial_id: Hash of all that decides the numbers.
        arm: The method's label.
        phase: "screen" or "confirm".
        overrides: The Hydra overrides that lead to it.
        choices: The option chosen of each configuration group; the tuning is "none" where no
            parameter moves.
        config: The resolved configuration, a plain dict.
        rungs: Nominal forward passes at which it is evaluated after step 0; the last is its whole
            budget. Empty where nothing is trained.
        command: What reruns it by hand.
    """

    trial_id: str
    arm: str
    phase: str
    overrides: list[str]
    choices: dict[str, str]
    config: dict[str, Any]
    rungs: list[int]
    command: str

    @property
    def last_rung(self) -> int:
        """The rung at which the trial ends; 0 where it ends at step 0."""
        return self.rungs[-1] if self.rungs else 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialSpec:
        """The spec inside an entry of plan.json or a trial.json."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


class TrialFolder:
    """Reading access to a trial's folder, and the beginning of attempts."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def records_path(self) -> Path:
        """records.jsonl."""
        return self.path / "records.jsonl"

    @property
    def trajectory_path(self) -> Path:
        """trajectory.msgpack."""
        return self.path / "trajectory.msgpack"

    def lock(self) -> filelock.BaseFileLock:
        """The lock under which anything in the folder is written."""
        return filelock.FileLock(self.path / ".lock", timeout=60)

    def create(self, spec: TrialSpec) -> None:
        """Write trial.json with the status "planned", unless the trial is there already.

        One that is there learns where its model and data lie now, if that is elsewhere, and
        is reopened if it lost rows.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self.lock():
            if not (self.path / "trial.json").exists():
                begun = {"status": "planned", "attempts": 0, "method_version": METHOD_VERSION}
                self._write({**dataclasses.asdict(spec), **begun})
                return
            values = self.read()
            config = _with_places(values["config"], spec.config)
            if config != values["config"]:
                now = {"config": config, "overrides": spec.overrides, "command": spec.command}
                self._write(values | now)
        self.reopen()

    def reopen(self) -> None:
        """Interrupt a trial that has ended and lost rows since, before the first of them."""
        if self.status not in ENDED:
            return
        with self.lock():
            values = self.read()
            if missing := missing_rungs(values, self.rows()):
                _cut_rows(self.records_path, missing[0])
                self._write(values | {"status": "interrupted"})

    def read(self) -> dict[str, Any]:
        """The content of trial.json.

        Raises:
            FileNotFoundError: If the trial was never created.
        """
        values: dict[str, Any] = json.loads((self.path / "trial.json").read_text())
        return values

    @property
    def status(self) -> Status:
        """The trial's status; "planned" where nothing is on disk."""
        try:
            return self.read()["status"]  # type: ignore[no-any-return]
        except (FileNotFoundError, NotADirectoryError):
            return "planned"

    def rows(self) -> list[Row]:
        """The complete rows; a torn last line is left out."""
        return list(iterate_rows(self.records_path))

    def update(self, **values: Any) -> None:
        """Change entries of trial.json, whoever the writer is (the driver's decisions)."""
        with self.lock():
            self._write({**self.read(), **values})

    def begin_attempt(self) -> TrialWriter:
        """Become the trial's only writer.

        A torn last line of records.jsonl is cut off, older attempts lose the right to write.
        """
        with self.lock():
            values = self.read()
            cut_torn_line(self.records_path)
            attempt = int(values["attempts"]) + 1
            values |= {"attempts": attempt, "status": "running", "failure": None, "ended": None}
            values.setdefault("started", timestamp())
            self._write(values)
        return TrialWriter(self, attempt)

    def _write(self, values: Mapping[str, Any]) -> None:
        write_json(self.path / "trial.json", values)


class TrialWriter:
    """The right of one attempt to write, for as long as no newer attempt has begun.

    Every method raises StaleAttemptError afterwards.
    """

    def __init__(self, folder: TrialFolder, attempt: int) -> None:
        self.folder = folder
        self.attempt = attempt
        self._lock = folder.lock()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Within the block this attempt is the newest, and nobody else writes."""
        with self._lock:
            self._check()
            yield

    def append_row(self, row: Row) -> None:
        """Append a row, durably. Numbers that are not finite become null."""
        line = json.dumps({name: _finite_or_null(value) for name, value in row.items()})
        self._append(self.folder.records_path, line.encode() + b"\n", durable=True)

    def append_step(self, record: bytes) -> None:
        """Append a step to the trajectory."""
        self._append(self.folder.trajectory_path, record, durable=False)

    def replace_file(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a file of the folder under another name, then put it in its place, atomically.

        Args:
            path: Inside the folder.
            write: Writes the content to the path that it is given.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            with self._lock:
                self._check()
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def remove_file(self, path: Path) -> None:
        """Remove a file of the folder, if it is there."""
        with self._lock:
            self._check()
            path.unlink(missing_ok=True)

    def set_status(self, status: Status, **values: Any) -> None:
        """Record how the attempt stands, or how the trial ended."""
        if status in ENDED:
            values.setdefault("ended", timestamp())
        with self._lock:
            current = self._check()
            self.folder._write({**current, "status": status, **values})

    def _append(self, path: Path, data: bytes, durable: bool) -> None:
        with self._lock:
            self._check()
            with path.open("ab", buffering=0) as file:
                written = file.write(data)
                if written != len(data):  # the disk is full, which only the next write would say
                    os.truncate(path, file.tell() - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                if durable:
                    os.fsync(file.fileno())

    def _check(self) -> dict[str, Any]:
        values = self.folder.read()
        if values["attempts"] != self.attempt:
            raise StaleAttemptError(
                f"attempt {self.attempt} of trial {self.folder.path.name} was overtaken by "
                f"attempt {values['attempts']}"
            )
        return values


def iterate_rows(path: Path) -> Iterator[Row]:
    """The complete rows of a records.jsonl; nothing where there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def missing_rungs(trial: Mapping[str, Any], rows: Iterable[Row]) -> list[int]:
    """The rungs up to its end of which a trial that has ended well, or was stopped, has no row.

    With any of them it counts as interrupted. One that failed may have ended anywhere.

    Args:
        trial: As in trial.json; `ended_rung` is the rung of its last row.
        rows: Of its records.
    """
    rungs, status = trial.get("rungs"), trial.get("status")
    if status not in ENDED - {"failed"} or not isinstance(rungs, list):
        return []
    whole = [0, *(rung for rung in rungs if isinstance(rung, int))]
    end = trial.get("ended_rung", whole[-1] if status == "finished" else 0)
    found = [row.get("rung") for row in rows]
    return [rung for rung in whole if rung <= end and rung not in found]


def describe_missing(trials: Sequence[str]) -> str:
    """What to say of trials that lack rows."""
    now = "They count as interrupted; running the sweep again completes them."
    return f"Trials that had ended lack rows of their records: {', '.join(trials)}. {now}"


def choose_checkpoint(rows: Iterable[Row]) -> Row:
    """The row of lowest dev loss after the first update, the earlier of equal ones.

    Raises:
        ValueError: If nothing was evaluated after an update.
    """
    evaluated = [row for row in rows if row["step"] > 0 and not row["diverged"]]
    if not evaluated:
        raise ValueError("nothing was evaluated after an update, so there is nothing to choose")
    return min(evaluated, key=lambda row: (row["dev_loss"], row["step"]))


def score_of(row: Row) -> tuple[str, float | None]:
    """What a row's model is judged by, and its value: "accuracy" or "F1"."""
    return ("F1", row["dev_f1"]) if "dev_f1" in row else ("accuracy", row["dev_accuracy"])


def cut_torn_line(path: Path) -> None:
    """Cut off what follows the last line break."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _cut_rows(path: Path, rung: int) -> None:
    """Cut off what follows a rung, and a torn line."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = itertools.takewhile(lambda x: x.endswith(b"\n") and json.loads(x)["rung"] < rung, lines)
    os.truncate(path, sum(map(len, kept)))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    content = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        temporary.write_text(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def timestamp() -> str:
    """Now, in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _with_places(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's configuration with the places on disk of another one."""
    merged = dict(config)
    for part, place in (("model", "path"), ("task", "data_dir")):
        if place in other.get(part, {}):
            merged[part] = {**config[part], place: other[part][place]}
    return merged


def _finite_or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
