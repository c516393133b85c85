"""A simulated backend: a race over known curves on so many slots, without Ray, in virtual time."""

from __future__ import annotations

import dataclasses
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from sweeps.schedulers.base import Scheduler
from sweeps.schedulers.enrolment import draw, draw_bracket
from sweeps.schedulers.race import Race
from sweeps.schedulers.standings import Entrant, Verdict


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a trial would show if it ran to its end.

    Attributes:
        trial: Its id.
        arm: Its method's label.
        stratum: Task, model and tuning.
        rungs: Forward passes at which it is evaluated.
        values: At its rungs; from the first that is not finite on it has diverged.
    """

    trial: str
    arm: str
    stratum: str
    rungs: tuple[int, ...]
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a simulated sweep did.

    Attributes:
        forward_passes: Spent by each trial.
        finished: Trials that ran to their end.
        wall_time: In units of the forward passes that one slot makes.
        controls: Trials exempt from stopping.
    """

    forward_passes: Mapping[str, int]
    finished: frozenset[str]
    wall_time: float
    controls: frozenset[str]


def simulate(
    scheduler: Scheduler,
    curves: Sequence[Curve],
    num_slots: int,
    seed: int = 0,
    watch: Callable[[Verdict, Mapping[str, int]], None] = lambda verdict, arrived: None,
) -> Outcome:
    """Run a sweep over curves.

    Trials start in shuffled order; each is up to half as fast again as another. A slot that a
    trial leaves takes up one that no longer waits, else the next that has not begun.

    Args:
        scheduler: The rule.
        curves: Of all trials.
        num_slots: Trials that run at a time.
        seed: Of order, speeds, controls and brackets.
        watch: Called with each verdict and each trial's number of rungs so far.
    """
    by_trial = {curve.trial: curve for curve in curves}
    entrants = [_enter(scheduler, curve, seed) for curve in curves]
    race = Race(scheduler, entrants)
    generator = random.Random(seed)
    speed = {trial: generator.uniform(1.0, 1.5) for trial in by_trial}
    order = list(by_trial)
    generator.shuffle(order)
    ready, paused = deque(order), set[str]()
    arrived = dict.fromkeys(by_trial, 0)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < num_slots:
            trial = ready.popleft()
            length = _segment(by_trial[trial], arrived[trial]) / speed[trial]
            heapq.heappush(running, (now + length, trial))
        now, trial = heapq.heappop(running)
        curve, index = by_trial[trial], arrived[trial]
        arrived[trial] += 1
        row = {"rung": curve.rungs[index], scheduler.metric: curve.values[index]}
        row["diverged"] = diverged = not math.isfinite(curve.values[index])
        for verdict in race.arrive(trial, row):
            watch(verdict, arrived)
            other = verdict.entrant.trial
            if other in paused:
                paused.remove(other)
                if verdict.decision == "continue":
                    ready.appendleft(other)
        if index + 1 == len(curve.rungs) or diverged:
            continue
        standing = race.standing(trial)
        if standing == "continue":
            ready.appendleft(trial)
        elif standing == "pause":
            paused.add(trial)
    assert not paused, "a rung waits for a trial that cannot come"
    spent = {t: by_trial[t].rungs[n - 1] if n else 0 for t, n in arrived.items()}
    finished = {t for t, n in arrived.items() if n == len(by_trial[t].rungs)}
    controls = frozenset(entrant.trial for entrant in entrants if entrant.exempt)
    return Outcome(spent, frozenset(finished), now, controls)


def _enter(scheduler: Scheduler, curve: Curve, seed: int) -> Entrant:
    bracket = draw_bracket(scheduler, len(curve.rungs), seed, curve.trial)
    return Entrant(
        trial=curve.trial,
        arm=curve.arm,
        rungs=curve.rungs,
        decided_rungs=scheduler.decided_rungs(curve.rungs, bracket),
        stratum=curve.stratum,
        bracket=bracket,
        exempt=draw(seed, "control", curve.trial) < scheduler.control_fraction,
    )


def _segment(curve: Curve, index: int) -> int:
    return curve.rungs[index] - (curve.rungs[index - 1] if index else 0)
