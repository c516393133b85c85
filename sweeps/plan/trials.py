"""From cells to trials: merged, validated, identified."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kerzoo.identity import hash_numbers, numbers_of_trial, signature
from kerzoo.models.placement import num_gpus_of
from kerzoo.options import NUMBERS, TrialOptions
from kerzoo.records import TrialSpec
from sweeps import schema
from sweeps.compose import CellComposer, Composed, ConfigError, format_override
from sweeps.space import Cell, split_cell

_SWEEP_KEYS = (
    frozenset(field.name for field in dataclasses.fields(schema.SweepConfig))
    - frozenset(schema.TRIAL_GROUPS)
    - {"phase", "data_root"}
)
"""Overrides that a trial of its own does not need."""
NO_TUNING = "none"
"""The tuning of a trial that leaves the model as it is."""
FREE = frozenset(f"training.{name}" for name in NUMBERS)
"""What no check of a method looks at beyond its range."""
SIGNED_CELLS = 500
"""Of larger plans the aliases are sought among the combinations of this many first cells."""

Entry = tuple[TrialSpec, TrialOptions]


class TrialFactory:
    """Makes the trials of cells, at a cost that is linear in their number and small for each.

    Options are composed once each (`CellComposer`), objects are built, validated and identified
    once for each combination of all but `FREE`; a further cell of a combination merges plain
    dicts and is hashed.

    Args:
        base: The sweep's configuration.
        phase: Of the trials; "both" for a screen that is followed by a confirmation, of which
            trials that draw no seed are a part from the beginning: others would repeat them.
    """

    def __init__(self, base: Composed, phase: str) -> None:
        self.phase = phase
        self._base = base
        self._composer = CellComposer(base)
        self._templates: dict[tuple[Any, ...], _Template] = {}
        num_gpus = num_gpus_of(base.config["cluster"]["gpus_per_trial"])
        self._spread = [f"cluster.gpus_per_trial={num_gpus}"] if num_gpus > 1 else []
        self._typed = [
            (key, override)
            for override in base.overrides
            if (key := _key(override)).partition(".")[0] not in _SWEEP_KEYS
        ]

    def make(self, cell: Cell) -> Entry:
        """The trial of a cell.

        Raises:
            ConfigError: Naming the cell and what is wrong in it.
        """
        groups, values = split_cell(cell)
        free = {key: value for key, value in values.items() if key in FREE}
        bound = {key: value for key, value in values.items() if key not in FREE}
        key = (*groups.items(), json.dumps(bound, sort_keys=True), *sorted(free))
        try:
            if key in self._templates:
                config, options, identity = self._templates[key].fill(free)
            else:
                config = self._composer.compose(groups).trial_config(values)
                self._templates[key] = _Template.build(config)
                config, options, identity = self._templates[key].fill({})
        except ValueError as error:
            raise ConfigError(_describe(error, cell)) from error
        return self._specify(cell, groups, config, options, identity), options

    def _specify(
        self,
        cell: Cell,
        groups: Mapping[str, str],
        config: dict[str, Any],
        options: TrialOptions,
        identity: str,
    ) -> TrialSpec:
        overrides = [override for key, override in self._typed if key not in cell]
        overrides += [format_override(key, value) for key, value in cell.items()]
        phase = self.phase
        if phase == "both":
            phase = "screen" if options.uses("seed") else "confirm"
        if self._base.config["phase"] == "both":
            overrides = [o for o in overrides if _key(o) != "phase"] + [f"phase={phase}"]
        return TrialSpec(
            trial_id=identity,
            arm=str(config["arm"]["name"]),
            phase=phase,
            overrides=overrides,
            choices=_name_choices(self._composer.choose(groups), options),
            config=config,
            rungs=options.rungs,
            command=shlex.join(["python", "-m", "sweeps.trial", *overrides, *self._spread]),
        )


@dataclasses.dataclass(frozen=True)
class _Template:
    """A validated trial, for others that differ from it in `FREE` alone."""

    config: dict[str, Any]
    options: TrialOptions
    numbers: dict[str, Any]

    @classmethod
    def build(cls, config: dict[str, Any]) -> _Template:
        options = TrialOptions.from_config(config)
        model, data = fingerprint(options.model), fingerprint(options.task)
        return cls(config, options, numbers_of_trial(config, options.kernel, model, data))

    def fill(self, free: Mapping[str, Any]) -> tuple[dict[str, Any], TrialOptions, str]:
        """The trial with other values of `FREE`, which its method only has to find in range."""
        if not free:
            return self.config, self.options, hash_numbers(self.numbers)
        changes = {key.removeprefix("training."): value for key, value in free.items()}
        training = {**self.config["training"], **changes}
        options = self.options.with_numbers(changes)
        used = self.numbers["training"]
        now = {k: v if k == "seed" else float(v) for k, v in changes.items() if k in used}
        numbers = {**self.numbers, "training": {**used, **now}}
        return {**self.config, "training": training}, options, hash_numbers(numbers)


def _name_choices(choices: dict[str, str], options: TrialOptions) -> dict[str, str]:
    """The options chosen; a tuning that the method makes nothing of is "none"."""
    return choices if options.uses("tuning") else {**choices, "tuning": NO_TUNING}


def list_cell(cell: Cell, spec: TrialSpec) -> dict[str, Any]:
    """A cell as plan.json lists it."""
    return {"values": cell, "trial_id": spec.trial_id, "arm": spec.arm}


def find_aliases(
    cells: Sequence[Cell], entries: Sequence[Entry], apart: Collection[str] = ()
) -> list[list[str]]:
    """Groups of arms that do the same up to the learning rate, cell by cell.

    Of a plan with more than `SIGNED_CELLS` cells only those are compared that share all but the
    arm with one of the first so many. The trials `apart` are at points that their arm alone has.
    """
    others = [json.dumps({k: v for k, v in cell.items() if k != "arm"}) for cell in cells]
    compared = set(others[:SIGNED_CELLS])
    signatures: dict[str, set[str]] = {}
    for other, (spec, options) in zip(others, entries, strict=True):
        known = signatures.setdefault(spec.arm, set())
        if other in compared and spec.trial_id not in apart:
            known.add(signature(options, spec.config))
    groups: dict[frozenset[str], list[str]] = {}
    for arm in sorted(signatures):
        groups.setdefault(frozenset(signatures[arm]), []).append(arm)
    return [arms for signed, arms in groups.items() if signed and len(arms) > 1]


@functools.lru_cache(maxsize=64)
def fingerprint(source: Any) -> str:
    """Fingerprint of a model's weights or of a task's data, computed once."""
    return str(source.fingerprint())


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _describe(error: ValueError, cell: Mapping[str, Any]) -> str:
    where = ", ".join(f"{key}={value}" for key, value in cell.items())
    return f"{error} (in the cell {where})" if where else str(error)
