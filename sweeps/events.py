"""What happened in a sweep, in order: events.jsonl, one JSON object a line.

    results/NAME/events.jsonl    {"time": "...", "event": "started", ...}

Every start of the driver appends. The names: started, resumed, running, arrival, decision,
choice (of a cell to confirm), generation (of points that a search asked for), reused (a trial of
another sweep), failure, status (a trial ended), warning, interrupted, ended.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kerzoo.records import cut_torn_line, timestamp


class EventLog:
    """The append-only log of a sweep; a line that a crash tore is cut off.

    Args:
        path: events.jsonl; made by the first event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(path)

    def write(self, event: str, **fields: Any) -> dict[str, Any]:
        """Append an event with the time; returns it."""
        entry = {"time": timestamp(), "event": event, **fields}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
        return entry


def read_events(path: Path, *kinds: str) -> list[dict[str, Any]]:
    """The complete events in order, of some kinds only if any are named; none without a file."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    events = [json.loads(line) for line in lines]
    return [event for event in events if not kinds or event["event"] in kinds]
