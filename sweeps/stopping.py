"""How a sweep is asked to stop, and how its workers hear of it.

The file `.stop` in the results folder is the request: workers look for it between two steps, finish
an evaluation that is under way, and end their attempt; the trajectory on disk is the checkpoint.
Ctrl-C, SIGTERM, a budget that is spent, a full disk and failures that are all alike make it; so
does `touch results/NAME/.stop` from another terminal.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_S = 0.5
"""How often a worker looks for the file, at most: a stat on a shared file system has a price."""


class StopRequested(BaseException):
    """Ends an attempt between two steps; nothing that catches errors catches it."""


class StopFile:
    """The request as a worker sees it.

    Args:
        path: `.stop` of the results folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._looked = 0.0

    @property
    def exists(self) -> bool:
        """Whether the sweep is to stop."""
        return self.path.exists()

    def check(self, activity: str, done: int, total: int) -> None:
        """To be told of a trial's progress.

        Raises:
            StopRequested: Between two steps, once the sweep is to stop.
        """
        now = time.monotonic()
        if activity != "training" or now - self._looked < POLL_S:
            return
        self._looked = now
        if self.exists:
            raise StopRequested


@contextlib.contextmanager
def stop_file(path: Path) -> Iterator[StopFile]:
    """The request over all parts of a sweep: an old one is none, and none is left behind."""
    path.unlink(missing_ok=True)
    try:
        yield StopFile(path)
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


class StopSignal:
    """The request as the driver makes it. The first reason counts.

    Args:
        path: `.stop` of the results folder.
        say: Tells a person.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self.say = say
        self.reason: str | None = None
        self.is_failure = False
        self._looked = 0.0

    @property
    def requested(self) -> bool:
        """Whether the sweep is to stop; looks for a file that another terminal made."""
        now = time.monotonic()
        if self.reason is None and now - self._looked >= POLL_S:
            self._looked = now
            if self.path.exists():
                self.request(f"{self.path} is there")
        return self.reason is not None

    def request(self, reason: str, is_failure: bool = False) -> None:
        """Stop the sweep between two steps of every trial.

        Args:
            reason: Is said at once.
            is_failure: Running the same command again would not help.
        """
        if self.reason is not None:
            return
        self.reason, self.is_failure = reason, is_failure
        with contextlib.suppress(OSError):  # a full disk; then the driver ends the trials itself
            self.path.touch()
        self.say(f"{reason}; the sweep stops after the steps and evaluations under way")

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within the block Ctrl-C and SIGTERM request a stop; a second one raises at once."""

        def handle(signum: int, frame: object) -> None:
            if self.reason is not None:
                raise KeyboardInterrupt
            self.request(f"{signal.Signals(signum).name}: once more stops at once")

        before = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
