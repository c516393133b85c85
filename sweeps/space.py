"""The search space: which cells a sweep has."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.compose import ConfigError
from sweeps.schema import TRIAL_GROUPS

Cell = dict[str, Any]
"""One combination: swept key → value."""


def expand(space: Any, fixed: Mapping[str, Any]) -> list[Cell]:
    """All cells of a space, without repetition, in the order in which they are written.

    A space maps swept keys to lists of values; its cells are all combinations. A list of such
    mappings stands for the union of their cells, so that a key may be swept only where it means
    something. A key is a group, whose values are names of options, or a dotted value.

    An override of a swept key pins it: of the mappings in a union that have the key only those
    that list the value remain; where none does, the value replaces their lists. Mappings without
    the key remain as they are.

    Args:
        space: The sweep's `space`.
        fixed: Overrides from the command line.

    Raises:
        ConfigError: If the space is empty or is no such mapping.
    """
    if not fixed.get("space", True):
        # Hydra merges an empty mapping into the sweep's own space, as if nothing had been said.
        raise ConfigError("space: must have at least one key with at least one value; got none")
    blocks = [_check_block(block) for block in (space if isinstance(space, list) else [space])]
    if not blocks:
        raise ConfigError("space: must have at least one key with at least one value; it is empty")
    for key, value in fixed.items():
        if not any(key in block for block in blocks):
            continue
        is_listed = any(value in block.get(key, []) for block in blocks)
        kept = [b for b in blocks if not is_listed or value in b.get(key, [value])]
        blocks = [{**b, key: [value]} if key in b else b for b in kept]
    cells: dict[str, Cell] = {}
    for block in blocks:
        for values in itertools.product(*block.values()):
            cell = dict(zip(block, values, strict=True))
            cells.setdefault(json.dumps(cell, sort_keys=True, default=str), cell)
    return list(cells.values())


def factors_of(cells: Sequence[Cell]) -> list[str]:
    """The swept keys, in order of appearance."""
    return list(dict.fromkeys(key for cell in cells for key in cell))


def split_cell(cell: Cell) -> tuple[dict[str, str], dict[str, Any]]:
    """A cell's choices of group options, and its dotted values."""
    groups = {key: str(value) for key, value in cell.items() if key in TRIAL_GROUPS}
    return groups, {key: value for key, value in cell.items() if key not in TRIAL_GROUPS}


def _check_block(block: Any) -> dict[str, list[Any]]:
    if not isinstance(block, Mapping) or not block:
        raise ConfigError(
            "space: must map swept keys to lists of values, or be a list of such mappings; "
            f"got {block!r}"
        )
    for key, values in block.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(
                f"space.{key}: must be a list with at least one value, got {values!r}"
            )
        group = str(key).partition(".")[0]
        if group not in TRIAL_GROUPS or str(key) == "training":
            raise ConfigError(
                f"space.{key}: cannot be swept; a key is one of the groups "
                f"{', '.join(TRIAL_GROUPS[:-1])}, or a value inside one, such as "
                "training.learning_rate"
            )
    return {str(key): list(values) for key, values in block.items()}
