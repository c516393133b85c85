"""Who is told what happens in a sweep, without ever standing in its way.

An observer (W&B, TensorBoard, a mirror, a message to a person) learns which trial has something
new on disk and which events were logged. It works on a thread of its own behind a queue: a slow
one is late, a broken one is said once and switched off, and no trial waits for either.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from sweeps.events import EventLog

Warn = Callable[[str], None]


class Observer:
    """Follows a sweep. All hooks are called on one thread, in this order: open, …, close.

    Attributes:
        label: Its name in messages.
        close_timeout_s: How long the end of a sweep waits for it.
    """

    label = "an observer"
    close_timeout_s = 60.0

    def open(self, warn: Warn) -> None:
        """The sweep begins; `warn` says something that a person should know."""

    def changed(self, trial: str) -> None:
        """A trial has new rows or a new status on disk."""

    def event(self, entry: dict[str, Any]) -> None:
        """An event was logged."""

    def close(self) -> None:
        """The sweep is over, ended or interrupted."""


class Observers:
    """Passes on what happens to all observers, and writes events down first.

    Args:
        log: The sweep's event log.
        observers: Each gets a thread.
        warn: Told once for each observer that fails.
    """

    def __init__(self, log: EventLog, observers: Sequence[Observer], warn: Warn) -> None:
        self.log = log
        self._followers = [_Follower(observer, warn) for observer in observers]

    def changed(self, trial: str) -> None:
        """A trial has new rows or a new status; returns at once."""
        for follower in self._followers:
            follower.tell("changed", trial)

    def event(self, event: str, **fields: Any) -> None:
        """Log an event and pass it on; returns at once."""
        entry = self.log.write(event, **fields)
        for follower in self._followers:
            follower.tell("event", entry)

    def close(self) -> None:
        """Let all finish, each for as long as its `close_timeout_s`."""
        for follower in self._followers:
            follower.tell("close", None)
        for follower in self._followers:
            follower.join()


class _Follower:
    """An observer, its queue and its thread."""

    def __init__(self, observer: Observer, warn: Warn) -> None:
        self.observer = observer
        self.warn = warn
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name=observer.label, daemon=True)
        self._thread.start()

    def tell(self, hook: str, value: Any) -> None:
        self._queue.put((hook, value))

    def join(self) -> None:
        self._thread.join(self.observer.close_timeout_s)
        if self._thread.is_alive():
            self.warn(f"{self.observer.label} did not finish in time and is left behind")

    def _work(self) -> None:
        try:
            self.observer.open(self.warn)
            while (item := self._queue.get())[0] != "close":
                getattr(self.observer, item[0])(item[1])
            self.observer.close()
        except Exception as error:
            self.warn(f"{self.observer.label} failed and is switched off for this run: {error}")
