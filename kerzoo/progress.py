"""Progress of long work, for people who watch a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from tqdm import tqdm

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def no_progress(what: str, done: int, total: int) -> None:
    """Say nothing."""


class ProgressBars:
    """A bar with an ETA for whatever is being done at the moment, on standard error."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: tqdm[NoReturn] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` is done; a new `what` begins a new bar."""
        if self._bar is None or what != self._what or done < self._bar.n:
            self.close()
            self._what = what
            self._bar = tqdm(desc=what, total=total, file=sys.stderr, mininterval=0.5)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def say(self, line: str) -> None:
        """Print a line on standard output, above the bar."""
        tqdm.write(line, file=sys.stdout)

    def close(self) -> None:
        """End the bar that is shown, if any."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
