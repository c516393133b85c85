"""A second opinion on early stopping: decisions recomputed from what events.jsonl says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The decisions of a results folder, in order."""
    path = folder / "events.jsonl"
    events = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [event for event in events if event["event"] == "decision"]


def recompute(event: dict[str, Any], arms: Mapping[str, str], factor: float, quota: int) -> str:
    """What ASHA or halving says of an event's numbers, by counting; written apart from the code.

    A control trial goes on whatever it says.
    """

    def better(trials: list[str]) -> int:
        values = [event["compared"][trial] for trial in trials]
        return sum(v is not None and v < event["value"] for v in values)

    if event["value"] is None:
        return "stop"
    others = list(event["compared"])
    share = max(1, int((len(others) + 1) // factor))
    own = [trial for trial in others if arms[trial] == arms[event["trial_id"]]]
    return "continue" if better(others) < share or better(own) < quota else "stop"
