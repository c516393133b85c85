"""`python -m analysis watch results/NAME`: rebuild the report while a sweep runs."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis import build_report
from analysis.formats import format_loss
from analysis.sources import ResultsError, read_source

STARTS, ENDS = ("started", "resumed"), ("interrupted", "ended")
"""Events of a sweep's log between which its driver runs."""

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class State:
    """What is on disk of a sweep.

    Attributes:
        statuses: Status → trials.
        rows: Evaluations.
        best: Arm → its lowest dev loss.
    """

    statuses: Counter[str]
    rows: int
    best: dict[str, float]


def watch(
    folder: Path,
    every_s: float,
    tell: Tell,
    out: Path | None = None,
    language: str | None = None,
    baseline: str | None = None,
) -> None:
    """Rebuild the report whenever there is something new, until the sweep ends.

    A sweep that has not begun is waited for; of one that has ended the report is built once.

    Args:
        folder: results/NAME.
        every_s: Seconds between two looks.
        tell: Told what changed, a line each.
        out: As `build_report`.
        language: As `build_report`.
        baseline: As `build_report`.

    Raises:
        ResultsError: If there is no such results folder.
    """
    before: State | None = None
    waits = False
    while True:
        runs = is_running(folder)  # asked first, so that the last look sees all
        try:
            now = take_state(folder)
        except ResultsError as error:
            if not (folder / "plan.json").is_file():
                raise
            if runs is False:
                raise
            if not waits:
                tell(f"waiting: {error}")
                waits = True
        else:
            if now != before:
                path = build_report([folder], out, language, baseline)
                tell(f"{time.strftime('%H:%M:%S')} {describe_change(before, now)}; {path}")
            before = now
            if not runs:
                tell(f"the sweep does not run: {_in_words(now.statuses)}")
                return
        time.sleep(every_s)


def take_state(folder: Path) -> State:
    """Read how a sweep stands.

    Raises:
        ResultsError: As `read_source`.
    """
    (results, *_) = read_source(folder)
    planned = [trial for trial in results.trials.values() if trial["planned"]]
    statuses = Counter(str(trial["status"]) for trial in planned)
    best: dict[str, float] = {}
    for row in results.rows:
        arm = str(results.trials[row["trial_id"]].get("arm") or row.get("arm"))
        loss = row.get("dev_loss")
        if isinstance(loss, int | float):
            best[arm] = min(float(loss), best.get(arm, float("inf")))
    return State(statuses, len(results.rows), best)


def describe_change(before: State | None, now: State) -> str:
    """3 finished (+1), 5 running; 12 new rows; mezo: dev loss 0.5402, was 0.5601."""
    if before is None:
        return f"{_in_words(now.statuses)}; {now.rows} rows"
    counts = []
    for status in sorted(now.statuses | before.statuses):
        change = now.statuses[status] - before.statuses[status]
        counts.append(f"{now.statuses[status]} {status}" + (f" ({change:+d})" if change else ""))
    parts = [", ".join(counts), f"{now.rows - before.rows} new rows"]
    for arm, loss in now.best.items():
        old = before.best.get(arm)
        if old is None or loss < old:
            was = "" if old is None else f", was {format_loss(old)}"
            parts.append(f"{arm}: dev loss {format_loss(loss)}{was}")
    return "; ".join(parts)


def _in_words(statuses: Counter[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))


def is_running(folder: Path) -> bool | None:
    """Whether a sweep's driver runs, by its log of events; None where it has not begun."""
    last = _last_mark(folder / "events.jsonl")
    if last is None:
        return None
    if last["event"] in ENDS:
        return False
    if last.get("host") != socket.gethostname():
        return True
    return _is_alive(last.get("pid"))


def _last_mark(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    for line in reversed(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("event") in (*STARTS, *ENDS):
            return entry
    return None


def _is_alive(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
