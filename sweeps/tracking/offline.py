"""Reads W&B's offline runs: LevelDB log blocks of 32 KiB after a header of seven bytes.

Format: https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAGIC = b":W&B"
FILE_HEADER_BYTES = 7
BLOCK_BYTES = 32 * 1024
RECORD_HEADER = struct.Struct("<IHB")
WHOLE, LAST = 1, 4


def read_records(path: Path) -> Iterator[Any]:
    """The protobuf records of a .wandb file, up to a torn end.

    Raises:
        ValueError: If the file is none.
    """
    from wandb.proto import wandb_internal_pb2 as messages

    content, position, pieces = path.read_bytes(), FILE_HEADER_BYTES, b""
    if content and content[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path}: not an offline run of W&B")
    while position + RECORD_HEADER.size <= len(content):
        room = BLOCK_BYTES - position % BLOCK_BYTES
        if room < RECORD_HEADER.size:
            position += room
            continue
        _, length, kind = RECORD_HEADER.unpack_from(content, position)
        position += RECORD_HEADER.size
        if kind == 0 or position + length > len(content):
            return
        pieces += content[position : position + length]
        position += length
        if kind in (WHOLE, LAST):
            record = messages.Record()  # type: ignore[attr-defined]
            record.ParseFromString(pieces)
            yield record
            pieces = b""


def read_history(path: Path) -> list[dict[str, Any]]:
    """The logged rows of an offline run, `_step` among them."""
    return [
        {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
        for record in read_records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def last_steps(folder: Path) -> dict[str, int]:
    """The last step of each run over all its offline files.

    Args:
        folder: W&B's; it need not exist.
    """
    steps: dict[str, int] = {}
    for path in folder.glob("offline-run-*/run-*.wandb"):
        run = path.stem.removeprefix("run-")
        for row in read_history(path):
            steps[run] = max(steps.get(run, -1), int(row["_step"]))
    return steps
