"""The search space: which cells a sweep has."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from sweeps.compose import ConfigError
from sweeps.dimensions import Choices, Dimension, Range, read_dimension
from sweeps.sampling import Point, draw_points
from sweeps.schema import TRIAL_GROUPS, SearchOptions

Cell = dict[str, Any]
"""One combination: swept key → value."""
Block = dict[str, Dimension]
"""A mapping of a space: swept key → what it takes its values from."""

SEED = "training.seed"
SEEDS = (SEED, "task.data_seed")
"""Swept keys whose values repeat a point rather than make another one."""


@dataclasses.dataclass(frozen=True)
class Study:
    """A combination of listed values, seeds apart, and what is drawn beside it.

    Attributes:
        keys: The swept keys, in order.
        listed: Listed key → value.
        drawn: Drawn key → what it is drawn from.
        seeds: What each point is repeated with.
    """

    keys: tuple[str, ...]
    listed: Cell
    drawn: Mapping[str, Range | Choices]
    seeds: tuple[Cell, ...]

    def cells_at(self, point: Point) -> list[Cell]:
        """The cells of a point, one for each seed."""
        sample = {key: dimension.at(point[key]) for key, dimension in self.drawn.items()}
        whole = [{**self.listed, **sample, **seeds} for seeds in self.seeds]
        return [{key: values[key] for key in self.keys} for values in whole]


@dataclasses.dataclass(frozen=True)
class Space:
    """A space as read, with the command line's pins.

    Attributes:
        blocks: Its mappings.
        excluded: What is left out.
        drawn: The keys that are drawn from, those included that are pinned.
    """

    blocks: list[Block]
    excluded: list[Block]
    drawn: frozenset[str]

    @property
    def studies(self) -> list[Study]:
        """Those of all mappings that draw."""
        return [study for block in self.blocks for study in _studies(block)]

    def keep(self, cells: Collection[Cell]) -> list[Cell]:
        """The cells that are not left out."""
        return [cell for cell in cells if not any(_matches(e, cell) for e in self.excluded)]

    def cells(self, points_of: Callable[[Study], Sequence[Point]]) -> list[Cell]:
        """All cells, without repetition, in the order in which they are written.

        Args:
            points_of: The points of a study.

        Raises:
            ConfigError: If all are left out.
        """
        cells: dict[str, Cell] = {}
        for block in self.blocks:
            for cell in _cells(block, points_of):
                cells.setdefault(json.dumps(cell, sort_keys=True, default=str), cell)
        kept = self.keep(cells.values())
        if not kept:
            of = f"of the {len(cells)} cells" if cells else "of the first points"
            raise ConfigError(f"exclude: leaves none {of} of the space")
        return kept


def expand(
    space: Any,
    fixed: Mapping[str, Any],
    search: SearchOptions | None = None,
    seeds: Sequence[int] = (),
    exclude: Any = None,
) -> list[Cell]:
    """All cells of a space whose points do not hang on results.

    Args:
        space: The sweep's `space`.
        fixed: Overrides from the command line.
        search: How dimensions are drawn from; None for the grid.
        seeds: Of every cell; empty where seeds are no dimension, or one of the space.
        exclude: The sweep's `exclude`.

    Raises:
        ConfigError: As `read_space`, `draw` and `Space.cells`.
    """
    known = read_space(space, fixed, seeds, exclude)
    points = draw(search or SearchOptions("grid"), known.drawn)
    return known.cells(lambda study: points)


def read_space(
    space: Any, fixed: Mapping[str, Any], seeds: Sequence[int] = (), exclude: Any = None
) -> Space:
    """Read a space, and what the command line says of it.

    A space maps swept keys to lists of values, or to what is drawn from (`sweeps.dimensions`); its
    cells are all combinations of the listed values, each with every drawn point. A list of such
    mappings stands for the union of their cells, so that a key may be swept only where it means
    something. A key is a group, whose values are names of options, or a dotted value.

    Seeds are one more listed key of every mapping. What `exclude` matches is left out.

    An override of a swept key pins it: of the mappings in a union that have the key only those
    that list the value, or could draw it, remain; where none does, the value replaces their own.
    Mappings without the key remain as they are.

    Args:
        space: The sweep's `space`.
        fixed: Overrides from the command line.
        seeds: Of every cell; empty where seeds are no dimension, or one of the space.
        exclude: The sweep's `exclude`.

    Raises:
        ConfigError: If the space is empty or is no such mapping.
    """
    if not fixed.get("space", True):
        # Hydra merges an empty mapping into the sweep's own space, as if nothing had been said.
        raise ConfigError("space: must have at least one key with at least one value; got none")
    blocks = [_read_block(block) for block in (space if isinstance(space, list) else [space])]
    if not blocks:
        raise ConfigError("space: must have at least one key with at least one value; it is empty")
    blocks = [_with_seeds(block, seeds) for block in blocks]
    dropped = _read_exclusions(exclude, blocks)
    drawn = frozenset(key for b in blocks for key, d in b.items() if not isinstance(d, list))
    for key, value in fixed.items():
        blocks = _pin(blocks, key, value)
    return Space(blocks, dropped, drawn)


def factors_of(cells: Sequence[Cell]) -> list[str]:
    """The swept keys, in order of appearance."""
    return list(dict.fromkeys(key for cell in cells for key in cell))


def split_cell(cell: Cell) -> tuple[dict[str, str], dict[str, Any]]:
    """A cell's choices of group options, and its dotted values."""
    groups = {key: str(value) for key, value in cell.items() if key in TRIAL_GROUPS}
    return groups, {key: value for key, value in cell.items() if key not in TRIAL_GROUPS}


def _read_block(block: Any) -> Block:
    if not isinstance(block, Mapping) or not block:
        raise ConfigError(
            "space: must map swept keys to lists of values, or be a list of such mappings; "
            f"got {block!r}"
        )
    read = {}
    for key, values in block.items():
        read[str(key)] = read_dimension(f"space.{key}", values)
        group = str(key).partition(".")[0]
        if group not in TRIAL_GROUPS or str(key) == "training":
            raise ConfigError(
                f"space.{key}: cannot be swept; a key is one of the groups "
                f"{', '.join(TRIAL_GROUPS[:-1])}, or a value inside one, such as "
                "training.learning_rate"
            )
        if key == "arm" and not isinstance(read["arm"], list):
            raise ConfigError("space.arm: arms are compared, not drawn; give a list")
    return read


def _with_seeds(block: Block, seeds: Sequence[int]) -> Block:
    if not seeds:
        return block
    if SEED in block:
        raise ConfigError(f"seeds: the space lists {SEED} as well; give seeds in one of the two")
    return {**block, SEED: list(seeds)}


def draw(search: SearchOptions, drawn: Collection[str]) -> list[Point]:
    """The points that are drawn before any trial has run.

    Raises:
        ConfigError: If the search and the space do not fit.
    """
    if search.name == "grid":
        if drawn:
            raise ConfigError(
                f"space.{min(drawn)}: is drawn from, and search=grid draws nothing; set "
                "search=random or search=sobol, or list the values"
            )
        return [{}]
    if not drawn:
        raise ConfigError(
            f"search={search.name}: no key of the space is drawn from; write "
            "{low: …, high: …} or {choices: […]} in place of a list, or set search=grid"
        )
    return draw_points(search, drawn)


def _pin(blocks: list[Block], key: str, value: Any) -> list[Block]:
    is_listed = any(value in block.get(key, ()) for block in blocks)
    kept = [b for b in blocks if not is_listed or value in b.get(key, [value])]
    return [{**b, key: [value]} if key in b else b for b in kept]


def _cells(block: Block, points_of: Callable[[Study], Sequence[Point]]) -> Iterator[Cell]:
    listed = {key: d for key, d in block.items() if isinstance(d, list)}
    if len(listed) == len(block):
        yield from _combine(listed)
        return
    for study in _studies(block):
        for point in points_of(study):
            yield from study.cells_at(point)


def _studies(block: Block) -> Iterator[Study]:
    """The studies of a mapping; none of one that only lists."""
    drawn = {key: d for key, d in block.items() if not isinstance(d, list)}
    if not drawn:
        return
    listed = {key: d for key, d in block.items() if isinstance(d, list) and key not in SEEDS}
    seeds = {key: d for key, d in block.items() if isinstance(d, list) and key in SEEDS}
    for chosen in _combine(listed):
        yield Study(tuple(block), chosen, drawn, tuple(_combine(seeds)))


def _combine(listed: Mapping[str, list[Any]]) -> Iterator[Cell]:
    for values in itertools.product(*listed.values()):
        yield dict(zip(listed, values, strict=True))


def _read_exclusions(exclude: Any, blocks: Sequence[Block]) -> list[Block]:
    """Each entry as key → what its value is to be among, for the entry to match."""
    if exclude is None:
        return []
    if not isinstance(exclude, list) or not all(isinstance(e, Mapping) and e for e in exclude):
        raise ConfigError(
            "exclude: must be a list of mappings from swept keys to a value or a list of values, "
            f"got {exclude!r}"
        )
    known = list(dict.fromkeys(key for block in blocks for key in block))
    read = []
    for entry in exclude:
        for key in entry:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                meant = f" (did you mean {close[0]!r}?)" if close else ""
                raise ConfigError(
                    f"exclude.{key}: not a swept key{meant}; swept are {', '.join(known)}"
                )
        read.append({str(key): _read_excluded(str(key), v, blocks) for key, v in entry.items()})
    return read


def _read_excluded(key: str, values: Any, blocks: Sequence[Block]) -> Dimension:
    if isinstance(values, Mapping):
        return read_dimension(f"exclude.{key}", values)
    listed = values if isinstance(values, list) else [values]
    for value in listed:
        if not any(value in block.get(key, ()) for block in blocks):
            raise ConfigError(f"exclude.{key}: the space has no {value!r} there")
    return read_dimension(f"exclude.{key}", listed)


def _matches(entry: Block, cell: Cell) -> bool:
    return all(key in cell and cell[key] in values for key, values in entry.items())
