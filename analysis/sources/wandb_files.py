"""Offline `.wandb` files, read without wandb: blocks of a log, records of protobuf.

A file is `:W&B`, two bytes and a version, then blocks of 32 KiB in LevelDB's log format: fragments
of crc (4 bytes), length (2) and type (1: whole, 2: first, 3: middle, 4: last). A record is a
message of wandb's `wandb_internal.proto`, of which four fields matter: history (2), summary (3),
config (5) and run (17).

Sources: the log format of LevelDB (doc/log_format.md); wandb's `wandb_internal.proto`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.sources.base import Results, ResultsError, Values
from analysis.sources.wandb_runs import WandbRun, group_runs

BLOCK, HEADER, FILE_HEADER = 32768, 7, b":W&B"
HISTORY, SUMMARY, CONFIG, RUN = 2, 3, 5, 17
WHOLE, FIRST, LAST = 1, 2, 4
_RUN_TEXTS = {1: "run_id", 6: "group", 7: "job_type", 8: "name"}


def find_wandb_files(folder: Path) -> list[Path]:
    """The `.wandb` files of a folder, in the order in which their segments began."""
    return sorted(folder.glob("**/run-*.wandb"), key=lambda path: (path.parent.name, path.name))


def read_wandb_files(folder: Path) -> list[Results]:
    """The sweeps that offline runs below a folder belong to, one for each group.

    Raises:
        ResultsError: If no file holds a run with a row.
    """
    warnings: list[str] = []
    runs: dict[str, WandbRun] = {}
    for path in find_wandb_files(folder):
        found = _read_run(path, warnings)
        if found is None:
            continue
        if found.run_id in runs:  # a later segment of the same run
            runs[found.run_id].continue_with(found)
        else:
            runs[found.run_id] = found
    if not runs:
        reasons = f" ({warnings[0]})" if warnings else ""
        raise ResultsError(f"no readable W&B run in {folder}{reasons}")
    return group_runs(folder.resolve().name, runs.values(), warnings)


def _read_run(path: Path, warnings: list[str]) -> WandbRun | None:
    run = WandbRun(run_id="")
    try:
        for record in _iterate_records(path.read_bytes()):
            _apply_record(run, record)
    except (ValueError, IndexError, struct.error) as error:
        warnings.append(f"{path.name}: damaged, what precedes is used ({error}).")
    if not run.run_id:
        warnings.append(f"{path.name} holds no run; it is left out.")
        return None
    return run


def _apply_record(run: WandbRun, record: bytes) -> None:
    for field, value in _iterate_fields(record):
        if field == HISTORY:
            row = _read_items(value)
            step = dict(_iterate_fields(dict(_iterate_fields(value)).get(2, b""))).get(1, 0)
            run.rows.append({**row, "step": int(row.get("_step", step))})
        elif field == SUMMARY:
            run.summary |= _read_items(value)
        elif field == CONFIG:
            run.config |= _read_items(value)
        elif field == RUN:
            for number, content in _iterate_fields(value):
                if number in _RUN_TEXTS:
                    setattr(run, _RUN_TEXTS[number], content.decode(errors="replace"))
                elif number == 4:
                    run.config |= _read_items(content)


def _read_items(message: bytes) -> Values:
    """The items of a history, summary or config message: key or nested key, and a JSON value."""
    values: Values = {}
    for field, item in _iterate_fields(message):
        if field != 1:
            continue
        parts = list(_iterate_fields(item))
        nested = [content.decode() for number, content in parts if number == 2]
        contents: dict[int, Any] = dict(parts)
        key = contents[1].decode() if contents.get(1) else ".".join(nested)
        if 16 in contents:
            values[key] = json.loads(contents[16], parse_constant=lambda _: None)
    return values


def _iterate_records(data: bytes) -> Iterator[bytes]:
    """The whole records of a log; one that the file's end cuts off is left out in silence."""
    if data[:4] != FILE_HEADER:
        raise ValueError("it does not begin with :W&B")
    position, record = HEADER, b""
    while position + HEADER <= len(data):
        room = BLOCK - position % BLOCK
        if room < HEADER:
            position += room
            continue
        crc, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0 and length == 0:
            return
        content = data[position + HEADER : position + HEADER + length]
        if len(content) < length:
            return
        if zlib.crc32(content, zlib.crc32(bytes([kind]))) != crc:
            raise ValueError(f"checksum differs at byte {position}")
        record = content if kind in (WHOLE, FIRST) else record + content
        if kind in (WHOLE, LAST):
            yield record
        position += HEADER + length


def _iterate_fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Field number and value of a protobuf message: an integer, or bytes."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _read_varint(message, position)
            yield field, value
            continue
        if wire == 2:
            length, position = _read_varint(message, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")
        yield field, message[position : position + length]
        position += length


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
