"""`python -m sweeps.status results/NAME`: how a sweep stands, from another terminal."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kerzoo.records import ENDED, Row, TrialFolder, describe_missing, missing_rungs
from sweeps.events import read_events
from sweeps.lock import is_driven
from sweeps.progress import format_duration, label_cell

HELP = """\
usage: python -m sweeps.status results/NAME [--follow]

Shows how a sweep stands: trials by status, progress, running trials with their last row, failures
and what happened last. Reads the records alone: it works while the sweep runs, and afterwards.
--follow shows it anew every two seconds until the driver has left (Ctrl-C ends the view alone).

Exit codes: 0 shown; 2 no such results folder.
"""
INTERVAL_S = 2.0
EVENTS_SHOWN = 8
TRIALS_SHOWN = 12
STARTS, ENDS = ("started", "resumed"), ("ended", "interrupted")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A planned trial as it stands; `lacks_rows` where it had ended and records were lost."""

    trial_id: str
    label: str
    status: str
    budget: int
    last: Row | None
    failure: dict[str, Any]
    lacks_rows: bool = False

    @property
    def passes(self) -> int:
        """Forward passes recorded."""
        return int(self.last["forward_passes"]) if self.last else 0


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A sweep as it stands on disk.

    Attributes:
        name: The sweep's.
        driver: "runs", "has left", "was killed" or where it runs, if elsewhere.
        trials: All planned ones.
        events: All logged ones.
        eta_s: Seconds that the rest takes at most at the present rate, as if none were stopped;
            None where there is no rate.
    """

    name: str
    driver: str
    trials: list[Trial]
    events: list[dict[str, Any]]
    eta_s: float | None

    def lines(self) -> list[str]:
        """The first lines of the view."""
        counts = Counter(trial.status for trial in self.trials)
        ended = sum(counts[status] for status in ENDED)
        done, left = passes_of(self.trials)
        share = done / (done + left) if done + left else 1.0
        lines = [
            f"{self.name}: the driver {self.driver}",
            f"{ended}/{len(self.trials)} trials ended; "
            + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())),
            f"{done} forward passes done, {left} left at most ({share:.0%})",
        ]
        if self.driver == "runs" and self.eta_s is not None and left:
            lines.append(f"at most {format_duration(self.eta_s)} left at the present rate")
        if lacking := [trial.trial_id for trial in self.trials if trial.lacks_rows]:
            lines.append(describe_missing(lacking))
        return lines


def passes_of(trials: Sequence[Trial]) -> tuple[int, int]:
    """Forward passes done, and left if no further trial is stopped."""
    done = sum(trial.passes for trial in trials)
    left = sum(max(0, t.budget - t.passes) for t in trials if t.status not in ENDED)
    return done, left


def take(folder: Path) -> Snapshot:
    """Read how a sweep stands.

    Raises:
        ValueError: If the folder holds no plan.
    """
    path = folder / "plan.json"
    if not path.exists():
        raise ValueError(f"{folder}: no plan.json there; name a results folder, as results/NAME")
    plan = json.loads(path.read_text(encoding="utf-8"))
    labels = {cell["trial_id"]: label_cell(cell["values"]) for cell in reversed(plan["cells"])}
    trials = [_read(folder, entry, labels) for entry in plan["trials"]]
    events = read_events(folder / "events.jsonl")
    start = next((e for e in reversed(events) if e["event"] in STARTS), None)
    driver = "runs" if is_driven(folder) else driver_of(events)
    return Snapshot(plan["name"], driver, trials, events, _eta_s(start, trials))


def driver_of(events: Sequence[dict[str, Any]]) -> str:
    """Whether the sweep's driver runs, as far as this machine can tell."""
    marks = [event for event in events if event["event"] in (*STARTS, *ENDS)]
    if not marks:
        return "has not started any trial"
    last = marks[-1]
    if last["event"] in ENDS:
        return f"has left ({last['event']})"
    if last.get("host") != socket.gethostname():
        return f"was started on {last.get('host')}, and has not said that it left"
    return "runs" if _is_alive(int(last["pid"])) else "was killed; the same command resumes"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(folder: Path, entry: dict[str, Any], labels: dict[str, str]) -> Trial:
    trial = TrialFolder(folder / "trials" / entry["trial_id"])
    try:
        content = trial.read()
    except FileNotFoundError:
        content = {"status": "planned"}
    rows = trial.rows()
    lacks_rows = bool(missing_rungs(content, rows))
    return Trial(
        entry["trial_id"],
        labels.get(entry["trial_id"], entry["trial_id"]),
        "interrupted" if lacks_rows else content["status"],
        entry["rungs"][-1] if entry["rungs"] else 0,
        rows[-1] if rows else None,
        content.get("failure") or {},
        lacks_rows,
    )


def _eta_s(start: dict[str, Any] | None, trials: Sequence[Trial]) -> float | None:
    if start is None:
        return None
    done, left = passes_of(trials)
    made = done - int(start.get("forward_passes", 0))
    now = datetime.datetime.now(datetime.UTC)
    elapsed = (now - datetime.datetime.fromisoformat(start["time"])).total_seconds()
    return left * elapsed / made if made > 0 else None


def render(snapshot: Snapshot) -> Group:
    """The view."""
    parts: list[Any] = [Text(line) for line in snapshot.lines()]
    running = [trial for trial in snapshot.trials if trial.status == "running"]
    if running:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("running", "forward passes", "dev loss"):
            table.add_column(column, justify="left" if column == "running" else "right")
        for trial in running[:TRIALS_SHOWN]:
            loss = trial.last["dev_loss"] if trial.last else None
            shown = "-" if loss is None else f"{loss:.4f}"
            table.add_row(trial.label, f"{trial.passes} of {trial.budget}", shown)
        if len(running) > TRIALS_SHOWN:
            table.add_row(f"and {len(running) - TRIALS_SHOWN} more")
        parts += [Text(), table]
    failed = Counter(_cause(t.failure) for t in snapshot.trials if t.status == "failed")
    if failed:
        parts += [Text(), Text("failed", style="bold")]
        parts += [Text(f"{count} × {cause}") for cause, count in failed.most_common(TRIALS_SHOWN)]
    if snapshot.events:
        parts += [Text(), Text("last events", style="bold")]
        parts += [Text(describe(event)) for event in snapshot.events[-EVENTS_SHOWN:]]
    return Group(*parts)


def describe(event: dict[str, Any]) -> str:
    """An event in a line; its long fields are left out."""
    short = {
        name: value
        for name, value in event.items()
        if name not in ("time", "event") and isinstance(value, str | int | float)
    }
    fields = "  ".join(f"{name}={value}" for name, value in short.items())
    return f"{event['time']}  {event['event']:<11}  {fields}"


def _cause(failure: dict[str, Any]) -> str:
    lines = str(failure.get("message", "")).splitlines()
    return f"{failure.get('cause') or failure.get('kind', 'unknown')}: {lines[0] if lines else ''}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    names = list(sys.argv[1:] if arguments is None else arguments)
    folders = [Path(name) for name in names if not name.startswith("-")]
    if {"-h", "--help"} & set(names) or len(folders) != 1:
        print(HELP, end="")
        return 0 if folders or not names else 2
    console = Console(highlight=False)
    try:
        snapshot = take(folders[0])
        if "--follow" not in names:
            console.print(render(snapshot), soft_wrap=True)
            return 0
        with Live(render(snapshot), console=console, auto_refresh=False) as live:
            while snapshot.driver == "runs":
                time.sleep(INTERVAL_S)
                snapshot = take(folders[0])
                live.update(render(snapshot), refresh=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
