"""From one generation to the next: what a search that learns asks for once all trials ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from sweeps.compose import ConfigError, compose
from sweeps.events import EventLog
from sweeps.plan.assembly import make_plan
from sweeps.plan.base import Plan
from sweeps.plan.confirm import recall_choice
from sweeps.plan.folder import recall_preparation
from sweeps.plan.outcomes import Outcome, outcome_of
from sweeps.plan.studies import NAME, Asked
from sweeps.plan.tpe import ask
from sweeps.plan.trials import TrialFactory
from sweeps.sampling import Point
from sweeps.space import Study


def ask_generation(plan: Plan, warn: Callable[[str], None]) -> Plan | None:
    """Ask for the next points of every study, write them down, and make them part of the plan.

    Generations are those of the whole sweep: all trials of the last one have ended. Each study's
    points follow from the records, `search.seed`, the study and how many generations it had: the
    same records give the same ones, on any machine. A point that is excluded, that is refused as
    a trial, or whose trials its study has already, is asked for again.

    Args:
        plan: A whole plan whose screen, or only phase, has ended.
        warn: Told of points that were refused.

    Returns:
        The plan as the same command now makes it, which `plan` has become as well; None where
        every study has all its points, no other points are found, or every trial failed.
    """
    if plan.sweep.search.name != NAME:
        return None
    statuses = {spec.trial_id: plan.trial_folder(spec.trial_id).status for spec in plan.specs}
    if set(statuses.values()) == {"failed"}:
        return None
    asker = _Asker(plan, dict(statuses))
    found = [asker.ask(study) for study in asker.asked.space.studies]
    for message in asker.refusals[:1]:
        warn(f"{len(asker.refusals)} points were refused and asked for again; the first: {message}")
    if not any(found):
        plan.content["search"]["unknown"] = []  # there is nothing more to find
        plan.write()
        return None
    plan.write(studies=asker.asked.entries)
    further = make_plan([*plan.content["overrides"], "fresh=false"], plan.content["command"])
    further.content["overrides"] = plan.content["overrides"]
    recall_choice(further)
    recall_preparation(further)
    number_before = len(plan.specs)
    plan.become(further)
    plan.write()
    EventLog(plan.folder / "events.jsonl").write(
        "generation",
        number=max(plan.content["generations"].values()),
        points=sum(found),
        trials=len(plan.specs) - number_before,
    )
    return further


class _Asker:
    """Asks for the points of one generation.

    Attributes:
        asked: What was asked for, this generation included.
        refusals: Why points could not be trials.
    """

    def __init__(self, plan: Plan, statuses: dict[str, str]) -> None:
        base = compose(plan.content["overrides"])
        self.asked = Asked(base, plan.content["studies"])
        self.refusals: list[str] = []
        self._plan = plan
        self._statuses = statuses
        self._factory = TrialFactory(base, base.sweep.phase)

    def ask(self, study: Study) -> int:
        """Ask for points of a study; returns how many there are."""
        known = self.asked.points_of(study)
        number = min(self.asked.search.generation, self.asked.num_missing(study))
        if number <= 0:
            return 0
        trials = [self._trials_at(study, point) for point in known]
        if self.asked.is_one(study, len(set().union(*trials))):
            return 0
        told = [(p, self._outcome(own)) for p, own in zip(known, trials, strict=True)]
        seen = set(trials)

        def is_new(point: Point) -> bool:
            try:
                own = self._trials_at(study, point)
            except ConfigError as error:
                self.refusals.append(str(error))
                return False
            if not own or own in seen:
                return False
            seen.add(own)
            return True

        generations = self.asked.generations(study)
        about = [self.asked.search.seed, study.listed, sorted(study.drawn), len(generations)]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).digest()
        points = ask(study.drawn, told, number, int.from_bytes(digest[:4], "big"), is_new)
        generations.extend([points] if points else [])
        return len(points)

    def _trials_at(self, study: Study, point: Point) -> tuple[str, ...]:
        """The trials of a point that are not left out."""
        cells = self.asked.space.keep(study.cells_at(point))
        return tuple(self._factory.make(cell)[0].trial_id for cell in cells)

    def _outcome(self, trials: tuple[str, ...]) -> Outcome | None:
        rows = {trial: self._plan.trial_folder(trial).rows() for trial in trials}
        return outcome_of(trials, self._statuses, rows)
