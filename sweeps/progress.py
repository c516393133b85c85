"""What a person sees while a sweep runs: a live table on a terminal, a line an event elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kerzoo.records import ENDED, Row, TrialSpec
from sweeps.halving import HalvingRule

RUNNING_SHOWN = 12


def label_cell(values: Mapping[str, Any]) -> str:
    """A cell in a few words: the last part of each swept key, and its value."""
    return "  ".join(
        str(value) if key == "arm" else f"{key.rpartition('.')[2]}={value}"
        for key, value in values.items()
    )


def format_duration(seconds: float) -> str:
    """Seconds as 42 s, 3:05 min or 2:15 h."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


class Display:
    """Follows the trials of a sweep.

    Args:
        console: Where to show it.
        specs: All trials of the plan.
        labels: A few words for each trial.
        statuses: Their present statuses.
        rows: Their rows so far.
        rule: Of early stopping, for the ETA.
    """

    def __init__(
        self,
        console: Console,
        specs: Sequence[TrialSpec],
        labels: Mapping[str, str],
        statuses: Mapping[str, str],
        rows: Mapping[str, Sequence[Row]],
        rule: HalvingRule,
    ) -> None:
        self.console = console
        self.specs = {spec.trial_id: spec for spec in specs}
        self.labels = dict(labels)
        self.statuses = dict(statuses)
        self.rows: dict[str, list[Row]] = {trial: list(rows[trial]) for trial in self.specs}
        self.rule = rule
        self._num_arms = len({spec.arm for spec in specs})
        self._start = time.monotonic()
        self._shares: dict[int, list[float]] = {}
        self._done: dict[str, float] = {}
        self._left: dict[str, float] = {}
        self._passes_done = self._passes_left = 0.0
        for trial in self.specs:
            self._account(trial)
        self._passes_before = 0.0
        self._first_arrival: float | None = None
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console, refresh_per_second=2, get_renderable=self._render
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, trial: str) -> None:
        """A worker took a trial up."""
        self.statuses[trial] = "running"

    def arrived(self, trial: str, row: Row) -> None:
        """A trial was evaluated."""
        if row["step"] in {known["step"] for known in self.rows[trial]}:
            return
        self.rows[trial].append(row)
        self._account(trial)
        if self._first_arrival is None:
            self._first_arrival = time.monotonic()
            self._passes_before = self._passes_done
        if row["step"] and not row["diverged"]:
            change = row["dev_loss"] - (self.rows[trial][0]["dev_loss"] or 0.0)
            self._line(
                f"{self.labels[trial]}: {row['forward_passes']} forward passes, "
                f"dev loss {row['dev_loss']:.4f} ({change:+.4f})"
            )

    def ended(self, trial: str, status: str) -> None:
        """A trial ended."""
        self.statuses[trial] = status
        self._account(trial)
        self._line(f"{self.labels[trial]}: {status}   [{self.summary()}]")

    def warn(self, message: str) -> None:
        """Say something that a person should know."""
        self.console.print(Text(f"warning: {message}", style="yellow"), soft_wrap=True)

    def summary(self) -> str:
        """How many trials ended and how, and when the rest will have."""
        numbers = Counter(self.statuses.values())
        counts = {status: numbers[status] for status in ("running", "paused", *sorted(ENDED))}
        ended = sum(counts[status] for status in ENDED)
        parts = [f"{ended}/{len(self.specs)} trials ended"]
        parts += [f"{count} {status}" for status, count in counts.items() if count]
        eta = self.eta_s()
        if ended < len(self.specs) and eta is not None:
            parts.append(f"about {format_duration(eta)} left")
        return ", ".join(parts)

    def eta_s(self) -> float | None:
        """Seconds until the end at the present rate; None before there is one."""
        done = self._passes_done - self._passes_before
        if self._first_arrival is None or done <= 0:
            return None
        return max(0.0, self._passes_left) * (time.monotonic() - self._first_arrival) / done

    def _account(self, trial: str) -> None:
        """Bring the sums up to date with one trial, at a cost that no other trial adds to."""
        rows = self.rows[trial]
        done = float(rows[-1]["forward_passes"]) if rows else 0.0
        ended = self.statuses[trial] in ENDED
        left = 0.0 if ended else self._expected_ahead(self.specs[trial].rungs, done)
        self._passes_done += done - self._done.get(trial, 0.0)
        self._passes_left += left - self._left.get(trial, 0.0)
        self._done[trial], self._left[trial] = done, left

    def _expected_ahead(self, rungs: Sequence[int], reached: float) -> float:
        """Forward passes that a trial which goes on from `reached` is expected to make yet."""
        number = len(rungs)
        if number not in self._shares:
            shares = self.rule.fractions_running(number, len(self.specs), self._num_arms)
            self._shares[number] = shares
        running = self._shares[number]
        ahead = [i for i, rung in enumerate(rungs) if rung > reached]
        starts = [reached, *(rungs[i] for i in ahead)]
        return sum(
            (rungs[i] - start) * running[i] / running[ahead[0]]
            for i, start in zip(ahead, starts, strict=False)
        )

    def _line(self, text: str) -> None:
        if self._live is None:
            elapsed = format_duration(time.monotonic() - self._start)
            self.console.print(Text(f"[{elapsed:>9}] {text}"), soft_wrap=True)

    def _render(self) -> Group:
        done, expected = self._passes_done, max(1.0, self._passes_done + self._passes_left)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("running", "forward passes", "dev loss", "at step 0"):
            table.add_column(column, justify="left" if column == "running" else "right")
        running = [t for t, status in self.statuses.items() if status == "running"]
        for trial in running[:RUNNING_SHOWN]:
            self._add(table, trial)
        if len(running) > RUNNING_SHOWN:
            table.add_row(f"and {len(running) - RUNNING_SHOWN} more")
        best = self._best()
        if best is not None:
            table.add_row(Text("best so far", style="bold"))
            self._add(table, best)
        elapsed = format_duration(time.monotonic() - self._start)
        return Group(
            Text(f"{self.summary()}, {elapsed} so far"),
            Padding(ProgressBar(total=expected, completed=min(done, expected), width=60), (0, 0)),
            table,
        )

    def _add(self, table: Table, trial: str) -> None:
        rows = self.rows[trial]
        last = rows[-1] if rows else None
        table.add_row(
            self.labels[trial],
            f"{last['forward_passes'] if last else 0} of {self.specs[trial].last_rung}",
            _number(last["dev_loss"] if last else None),
            _number(rows[0]["dev_loss"] if rows else None),
        )

    def _best(self) -> str | None:
        losses = {
            trial: rows[-1]["dev_loss"]
            for trial, rows in self.rows.items()
            if len(rows) > 1 and rows[-1]["dev_loss"] is not None
        }
        return min(losses, key=losses.__getitem__) if losses else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
