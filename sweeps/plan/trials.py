"""From cells to trials: composed, validated, identified."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kerzoo.identity import signature, trial_id
from kerzoo.options import TrialOptions
from kerzoo.records import TrialSpec
from sweeps import schema
from sweeps.compose import Composed, ConfigError, compose, format_override
from sweeps.space import Cell, split_cell

_SWEEP_KEYS = (
    frozenset(field.name for field in dataclasses.fields(schema.SweepConfig))
    - frozenset(schema.TRIAL_GROUPS)
    - {"phase", "data_root"}
)
"""Overrides that a trial of its own does not need."""


def compose_cell(base: Composed, cell: Cell) -> tuple[TrialSpec, TrialOptions]:
    """The trial of a cell.

    Raises:
        ConfigError: Naming the cell and what is wrong in it.
    """
    groups, values = split_cell(cell)
    kept = [o for o in base.overrides if _key(o) not in groups]
    composed = compose([*kept, *(f"{group}={option}" for group, option in groups.items())])
    config = composed.trial_config(values)
    try:
        options = TrialOptions.from_config(config)
        identity = _identify(config, options)
    except ValueError as error:
        raise ConfigError(_describe(error, cell)) from error
    own = [o for o in kept if _key(o).partition(".")[0] not in _SWEEP_KEYS and _key(o) not in cell]
    overrides = own + [format_override(key, value) for key, value in cell.items()]
    choices = {g: composed.choices[g] for g in schema.TRIAL_GROUPS}
    spec = TrialSpec(
        trial_id=identity,
        arm=str(config["arm"]["name"]),
        phase=base.sweep.phase,
        overrides=overrides,
        choices=choices,
        config=config,
        rungs=options.rungs,
        command=shlex.join(["python", "-m", "sweeps.trial", *overrides]),
    )
    return spec, options


def list_cell(cell: Cell, spec: TrialSpec, options: TrialOptions) -> dict[str, Any]:
    """A cell as plan.json lists it."""
    return {
        "values": cell,
        "trial_id": spec.trial_id,
        "arm": spec.arm,
        "signature": signature(options, spec.config),
    }


def find_aliases(cells: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Groups of arms that do the same up to the learning rate, cell by cell."""
    signatures: dict[str, set[str]] = {}
    for cell in cells:
        signatures.setdefault(cell["arm"], set()).add(cell["signature"])
    groups: dict[frozenset[str], list[str]] = {}
    for arm in sorted(signatures):
        groups.setdefault(frozenset(signatures[arm]), []).append(arm)
    return [arms for arms in groups.values() if len(arms) > 1]


def _identify(config: dict[str, Any], options: TrialOptions) -> str:
    return trial_id(config, options.kernel, fingerprint(options.model), fingerprint(options.task))


@functools.lru_cache(maxsize=64)
def fingerprint(source: Any) -> str:
    """Fingerprint of a model's weights or of a task's data, computed once."""
    return str(source.fingerprint())


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _describe(error: ValueError, cell: Mapping[str, Any]) -> str:
    where = ", ".join(f"{key}={value}" for key, value in cell.items())
    return f"{error} (in the cell {where})" if where else str(error)
