"""The search space: all combinations, once each, pinned by the command line."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.compose import ConfigError
from sweeps.schema import TRIAL_GROUPS
from sweeps.space import expand, factors_of, split_cell

SWEPT = (
    "arm",
    "tuning",
    "bandwidth",
    "training.seed",
    "training.learning_rate",
    "bandwidth.half_width",
)
VALUES = st.one_of(st.integers(0, 5), st.sampled_from(["mezo", "full", "lora"]))
BLOCKS = st.dictionaries(
    st.sampled_from(SWEPT), st.lists(VALUES, min_size=1, max_size=4, unique=True), min_size=1
)
Block = dict[str, list[Any]]


@given(BLOCKS)
def test_a_mapping_has_all_combinations_of_its_values_once(block: Block) -> None:
    cells = expand(block, {})
    assert len(cells) == math.prod(map(len, block.values()))
    assert len({tuple(cell.items()) for cell in cells}) == len(cells)
    for cell in cells:
        assert list(cell) == list(block)
        assert all(cell[key] in block[key] for key in block)


@given(BLOCKS)
def test_cells_come_in_the_order_in_which_they_are_written(block: Block) -> None:
    ranks = [
        tuple(block[key].index(value) for key, value in cell.items()) for cell in expand(block, {})
    ]
    assert ranks == sorted(ranks)


@given(st.lists(BLOCKS, min_size=1, max_size=4))
def test_a_union_has_the_cells_of_its_members_without_repetition(blocks: list[Block]) -> None:
    cells = expand(blocks, {})
    members = [cell for block in blocks for cell in expand(block, {})]
    assert all(cell in members for cell in cells)
    assert all(member in cells for member in members)
    assert all(a != b for a, b in itertools.combinations(cells, 2))
    assert expand(blocks + blocks, {}) == cells


@given(BLOCKS, st.data())
def test_an_override_pins_a_swept_key_to_its_value(block: Block, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(block)))
    value = data.draw(st.sampled_from(block[key]) | VALUES)
    pinned = expand(block, {key: value})
    assert {cell[key] for cell in pinned} == {value}
    assert len(pinned) == math.prod(len(v) for k, v in block.items() if k != key)
    if value in block[key]:
        assert pinned == [cell for cell in expand(block, {}) if cell[key] == value]


@given(BLOCKS, VALUES)
def test_overrides_of_keys_that_are_not_swept_change_no_cell(block: Block, value: Any) -> None:
    assert expand(block, {"model": value, "training.batch_size": value}) == expand(block, {})


def test_of_a_union_only_the_members_that_list_the_value_remain() -> None:
    blocks = [
        {"tuning": ["full"], "training.learning_rate": [1e-7]},
        {"tuning": ["lora"], "training.learning_rate": [1e-4, 3e-4]},
    ]
    assert expand(blocks, {"tuning": "lora"}) == [
        {"tuning": "lora", "training.learning_rate": 1e-4},
        {"tuning": "lora", "training.learning_rate": 3e-4},
    ]
    assert expand(blocks, {"training.learning_rate": 1e-7}) == [
        {"tuning": "full", "training.learning_rate": 1e-7}
    ]
    assert expand(blocks, {"training.learning_rate": 5.0}) == [
        {"tuning": "full", "training.learning_rate": 5.0},
        {"tuning": "lora", "training.learning_rate": 5.0},
    ]


def test_a_member_without_the_pinned_key_remains_as_it_is() -> None:
    blocks = [{"arm": ["mezo"]}, {"arm": ["legendre2"], "bandwidth": ["full", "half"]}]
    assert expand(blocks, {"bandwidth": "half"}) == [
        {"arm": "mezo"},
        {"arm": "legendre2", "bandwidth": "half"},
    ]


def test_the_space_itself_is_never_changed() -> None:
    space = {"arm": ["mezo", "legendre2"], "training.seed": [0, 1]}
    expand(space, {"arm": "mezo"})
    assert space == {"arm": ["mezo", "legendre2"], "training.seed": [0, 1]}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (None, "space: must map swept keys to lists of values"),
        ({}, "space: must map swept keys to lists of values"),
        ([], "space: must have at least one key"),
        ([{}], "space: must map swept keys"),
        ("arm", "space: must map swept keys"),
        ({"arm": []}, "space.arm: must be a list with at least one value, got \\[\\]"),
        ({"arm": "mezo"}, "space.arm: must be a list with at least one value, got 'mezo'"),
        ({"training.seed": 3}, "space.training.seed: must be a list"),
        ({"scheduler": ["asha"]}, "space.scheduler: cannot be swept"),
        ({"training": ["default"]}, "space.training: cannot be swept"),
        ({"name": ["a"]}, "space.name: cannot be swept"),
        ({"seed": [1]}, "space.seed: cannot be swept; a key is one of the groups arm, method"),
    ],
)
def test_a_space_that_is_none_is_refused(space: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(space, {})


@given(BLOCKS)
def test_a_cell_splits_into_options_and_values_without_loss(block: Block) -> None:
    for cell in expand(block, {}):
        groups, values = split_cell(cell)
        assert set(groups) <= set(TRIAL_GROUPS)
        assert all("." in key for key in values)
        assert groups | values == {k: str(v) if k in TRIAL_GROUPS else v for k, v in cell.items()}


@given(st.lists(BLOCKS, min_size=1, max_size=3))
def test_factors_are_the_swept_keys_in_order_of_appearance(blocks: list[Block]) -> None:
    factors = factors_of(expand(blocks, {}))
    assert factors == list(dict.fromkeys(key for block in blocks for key in block))


@pytest.mark.parametrize("nothing", [{}, [], None])
def test_a_space_emptied_on_the_command_line_is_refused(nothing: object) -> None:
    with pytest.raises(ConfigError, match="space: must have at least one key"):
        expand({"arm": ["mezo"]}, {"space": nothing})


def test_a_pin_that_no_member_lists_goes_to_those_with_the_key_and_drops_none() -> None:
    space = [
        {"arm": ["mezo"], "training.learning_rate": [0.1, 0.2]},
        {"arm": ["adamw"], "training.learning_rate": [0.3]},
        {"arm": ["zero_shot"]},
    ]
    assert expand(space, {"training.learning_rate": 0.5}) == [
        {"arm": "mezo", "training.learning_rate": 0.5},
        {"arm": "adamw", "training.learning_rate": 0.5},
        {"arm": "zero_shot"},
    ]
    assert expand(space, {"training.learning_rate": 0.3}) == [
        {"arm": "adamw", "training.learning_rate": 0.3},
        {"arm": "zero_shot"},
    ]
