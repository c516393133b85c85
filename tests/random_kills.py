"""A sweep whose driver is killed again and again, at moments that nobody chose."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Callable
from pathlib import Path

from sweep_process import SweepProcess, trials_of

FILES = ("records.jsonl", "trajectory.msgpack", "trial.json")
PATIENCE_S = 3.0
"""How long a kill waits for something to be written."""


@dataclasses.dataclass(frozen=True)
class Kill:
    """What is done to a driver.

    Attributes:
        after_s: Not before so many seconds from its start.
        writing: At the next change of a trial's files after that, if one comes soon.
        all_at_once: Its workers and Ray's processes die with it; otherwise they notice by
            themselves, while the next driver starts.
    """

    after_s: float
    writing: bool
    all_at_once: bool


class Killer:
    """Starts a sweep, kills its driver and starts it again, until so many kills are made.

    A moment is uniform over a driver's undisturbed life: within imports, planning, preparation,
    the start of Ray, between any two writes, within the report. A driver that ends before its
    moment has ended its sweep; the kills that are left go to another sweep of the same trials.
    All draws follow from the seed, which is printed with every kill.

    Args:
        logs: Where the drivers' outputs go.
        command_of: The overrides of a sweep that is to have a given name.
        life_s: How long a driver lives undisturbed.
        seed: Of the moments.
    """

    def __init__(
        self, logs: Path, command_of: Callable[[str], list[str]], life_s: float, seed: int
    ) -> None:
        self.logs = logs
        self.command_of = command_of
        self.life_s = life_s
        self.num_made = 0
        self._generator = random.Random(seed)
        print(f"seed {seed}, moments uniform over {life_s:.1f} s")

    def run(self, name: str, number: int, check: Callable[[str], None]) -> list[str]:
        """Make all kills; every sweep runs to its end.

        Args:
            name: The first part of the sweeps' names.
            number: Of kills.
            check: Called with the name of the sweep after each kill.

        Returns:
            The names of the sweeps.
        """
        names: list[str] = []
        with contextlib.ExitStack() as leftovers:  # whatever a killed driver left is ended here
            while self.num_made < number:
                names.append(f"{name}_{len(names)}")
                while not self._ends(names[-1], number, leftovers):
                    check(names[-1])
        return names

    def _ends(self, name: str, number: int, leftovers: contextlib.ExitStack) -> bool:
        """Start a driver; whether it ended before it was killed, as it must after the last."""
        log = self.logs / f"{name}.{self.num_made}.log"
        driver = leftovers.enter_context(SweepProcess(log, self.command_of(name)))
        if self.num_made < number:
            kill = self._draw()
            if not _lives(driver, kill.after_s):
                assert driver.process.returncode == 0, driver.output()
                return True
            self._make(kill, driver, self.logs / name)
            return False
        assert driver.wait() == 0, driver.output()
        return True

    def _draw(self) -> Kill:
        moment = self._generator.uniform(0.0, self.life_s)
        return Kill(moment, self._generator.random() < 0.25, self._generator.random() < 0.5)

    def _make(self, kill: Kill, driver: SweepProcess, folder: Path) -> None:
        self.num_made += 1
        print(f"{self.num_made}: {kill}")
        others = driver.remember()
        if kill.writing:
            _wait_for_a_write(folder)
        driver.process.kill()
        for process in others if kill.all_at_once else ():
            with contextlib.suppress(Exception):  # it has left by itself
                process.kill()
        driver.process.wait()


def _lives(driver: SweepProcess, seconds: float) -> bool:
    """Whether a driver that was just started still runs after so long."""
    end = time.monotonic() + seconds
    while driver.process.poll() is None and time.monotonic() < end:
        time.sleep(min(0.02, max(0.0, end - time.monotonic())))
    return driver.process.poll() is None


def _wait_for_a_write(folder: Path) -> None:
    before, end = _written(folder), time.monotonic() + PATIENCE_S
    while _written(folder) == before and time.monotonic() < end:
        pass


def _written(folder: Path) -> list[tuple[int, int]]:
    """Sizes and times of what the trials write."""
    found = []
    for where in trials_of(folder).values():
        for name in FILES:
            with contextlib.suppress(FileNotFoundError):
                stat = (where.path / name).stat()
                found.append((stat.st_size, stat.st_mtime_ns))
    return found
