"""What a search that learns has asked for: studies, their generations, and points.

    plan.json  search:       name, purpose, unknown (trials whose points are not known yet)
               studies:      listed, drawn, seed, context, generations; one entry for each study
               generations:  trial → its generation, counted from 1

A study is a combination of listed values, seeds apart: every arm, task and tuning has its own, and
all have the same number of points. Its context is a hash of all else that trials are made of: under
another `tuning=` the same listed values are another study. A generation is a list of points, a
point a coordinate for each drawn key. What was asked for is written down before any of its trials
starts, is never asked for again, and is all that a resume has to know: a point's values follow
from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerzoo.options import TrialOptions
from sweeps import cost
from sweeps.compose import CellComposer, Composed, ConfigError, parse_overrides
from sweeps.dimensions import Choices, Range
from sweeps.plan.base import Plan
from sweeps.plan.tpe import check_installed
from sweeps.plan.trials import Entry
from sweeps.sampling import Point
from sweeps.space import SEEDS, Cell, Study, draw, read_space, split_cell

NAME = "optuna"
PURPOSE = "tuning, not sensitivity"
"""What cells are good for that were chosen by the results of others."""

_PLACES = ("model.path", "task.data_dir")
"""Where something lies decides no number."""

Entries = list[dict[str, Any]]


class Asked:
    """The points of a space's studies, the first generation of new ones included.

    Args:
        base: The sweep's configuration.
        before: The entry `studies` of an earlier plan in the same folder; those that this space
            does not have are kept.

    Raises:
        ConfigError: If the search and the space do not fit, or optuna is missing.
    """

    def __init__(self, base: Composed, before: Entries) -> None:
        check_installed()
        sweep, fixed = base.sweep, parse_overrides(base.overrides)
        self.space = read_space(sweep.space, fixed, sweep.seed_list, sweep.exclude)
        self.search = sweep.search
        self._composer = CellComposer(base)
        self._entries = {_key(entry): entry for entry in before}
        first = draw(self.search, self.space.drawn)
        for study in self.space.studies:
            if tuned := sorted(set(SEEDS) & set(study.drawn)):
                raise ConfigError(
                    f"space.{tuned[0]}: seeds are averaged over, not tuned; list them"
                )
            points = [{key: point[key] for key in study.drawn} for point in first]
            generation = [p for p in points if self.space.keep(study.cells_at(p))]
            self._entries.setdefault(
                self._key_of(study), {**self._describe(study), "generations": [generation]}
            )

    @property
    def entries(self) -> Entries:
        """What plan.json holds."""
        return list(self._entries.values())

    def generations(self, study: Study) -> list[list[Point]]:
        """All that was asked for, whether or not it is left out by now."""
        found: list[list[Point]] = self._entries[self._key_of(study)]["generations"]
        return found

    def points_of(self, study: Study) -> list[Point]:
        """The first `search.num_samples` points that are not left out."""
        asked = [point for generation in self.generations(study) for point in generation]
        kept = [point for point in asked if self.space.keep(study.cells_at(point))]
        return kept[: self.search.num_samples]

    def num_missing(self, study: Study) -> int:
        """How many points are still to be asked for."""
        return self.search.num_samples - len(self.points_of(study))

    def is_one(self, study: Study, num_trials: int) -> bool:
        """Whether all points mean the same, as to a method that uses nothing that is drawn."""
        return num_trials <= len(study.seeds) and len(self.points_of(study)) > 1

    def describe(self, cells: Sequence[Cell], entries: Sequence[Entry]) -> dict[str, Any]:
        """The entries of plan.json.

        Args:
            cells: All of the space.
            entries: The trial of each.
        """
        trials = {_dump(c): (s.trial_id, o) for c, (s, o) in zip(cells, entries, strict=True)}
        numbers: dict[str, int] = {}
        unknown = []
        for study in self.space.studies:
            own: dict[str, TrialOptions] = {}
            for number, generation in enumerate(self.generations(study), start=1):
                at = [trials.get(_dump(c)) for p in generation for c in study.cells_at(p)]
                own |= dict(found := [entry for entry in at if entry])
                numbers |= {t: min(number, numbers.get(t, number)) for t, _ in found}
            number = self.num_missing(study) * len(study.seeds)
            if own and number > 0 and not self.is_one(study, len(own)):
                unknown.append({"like": cost.dearest(own), "trials": number})
        about = {"name": NAME, "purpose": PURPOSE, "unknown": unknown}
        return {"search": about, "studies": self.entries, "generations": numbers}

    def _describe(self, study: Study) -> dict[str, Any]:
        drawn = {key: _read(dimension) for key, dimension in study.drawn.items()}
        about = {"listed": study.listed, "drawn": drawn, "seed": self.search.seed}
        return {**about, "context": self._context_of(study)}

    def _context_of(self, study: Study) -> str:
        groups, values = split_cell(study.listed)
        config = self._composer.compose(groups).trial_config(values)
        for key in (*study.drawn, *SEEDS, *_PLACES):
            node, (*path, last) = config, key.split(".")
            for part in path:
                node = node.get(part, {})
            node.pop(last, None)
        return hashlib.sha256(_dump(config).encode()).hexdigest()[:12]

    def _key_of(self, study: Study) -> str:
        return _key(self._describe(study))


def recall_studies(folder: Path) -> Entries:
    """The studies of the plan in a results folder; none where there is no plan.

    Raises:
        ConfigError: If they cannot be read.
    """
    path = folder / "plan.json"
    if not path.exists():
        return []
    try:
        entries: Entries = json.loads(path.read_text()).get("studies", [])
        sound = all(
            set(point) == set(entry["drawn"]) and all(0 <= u <= 1 for u in point.values())
            for entry in entries
            for generation in entry["generations"]
            for point in generation
        )
        keys = {_key(entry) for entry in entries}
    except (ValueError, TypeError, KeyError, AttributeError):
        sound, keys, entries = False, set(), []
    if not sound or len(keys) < len(entries):
        raise ConfigError(f"{path}: not a plan of this version; use name= or fresh=true")
    return entries


def expect_generations(plan: Plan) -> Plan:
    """The plan with the trials of later generations, each like its study's dearest so far."""
    planned = zip(plan.specs, plan.options, strict=True)
    trials = {spec.trial_id: (spec, options) for spec, options in planned}
    unknown = plan.content.get("search", {}).get("unknown", [])
    further = [trials[entry["like"]] for entry in unknown for _ in range(entry["trials"])]
    return dataclasses.replace(
        plan,
        specs=[*plan.specs, *(spec for spec, _ in further)],
        options=[*plan.options, *(options for _, options in further)],
    )


def _key(entry: Mapping[str, Any]) -> str:
    return _dump([entry[name] for name in ("listed", "drawn", "seed", "context")])


def _read(dimension: Range | Choices) -> dict[str, Any]:
    if isinstance(dimension, Choices):
        return {"choices": list(dimension.values)}
    return dataclasses.asdict(dimension)


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
