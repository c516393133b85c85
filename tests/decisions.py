"""A second opinion on early stopping: decisions recomputed from what events.jsonl says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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


def survivors_of(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], rungs: list[int]
) -> dict[str, int]:
    """Each trial's last rung under halving by 2, without quota, counted from whole trials' rows."""
    losses = {t: {row["rung"]: row["dev_loss"] for row in own} for t, own in rows.items()}
    reached = dict.fromkeys(losses, rungs[-1])
    alive = sorted(losses)
    for rung in rungs[:-1]:
        alive.sort(key=lambda trial: losses[trial][rung])
        kept = max(1, len(alive) // 2)
        reached |= dict.fromkeys(alive[kept:], rung)
        alive = alive[:kept]
    return reached
