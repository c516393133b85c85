"""What happened in a sweep, one JSON object a line, in the order in which it happened.

    results/NAME/events.jsonl    {"time": "...", "event": "started", ...}

Every start of the driver appends. The names: started, resumed, running, decision, failure, status
(a trial ended), interrupted, ended, and what watches over budgets and disks adds of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kerzoo.records import iterate_rows, timestamp


class EventLog:
    """The event log of a sweep.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **fields: Any) -> dict[str, Any]:
        """Append an event, stamped with the time; returns it."""
        entry = {"time": timestamp(), "event": event, **fields}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        return entry

    def read(self) -> list[dict[str, Any]]:
        """All complete events; a torn last line is left out."""
        return list(iterate_rows(self.path))
