"""Spaces that are drawn from, seeds as a dimension, and combinations that are left out."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.compose import ConfigError, compose
from sweeps.dimensions import Choices, Range, read_dimension
from sweeps.plan import Plan, make_plan
from sweeps.sampling import draw_points
from sweeps.schema import SearchOptions, read_seeds
from sweeps.space import expand

RATE = {"low": 1e-4, "high": 1e-1, "log": True}
DRAWN = st.sampled_from(["random", "sobol"])
UNIT = st.floats(0, 1, exclude_max=True)


def search(name: str = "sobol", num_samples: int = 8, seed: int = 0) -> SearchOptions:
    return SearchOptions(name, num_samples=num_samples, seed=seed)


def plan_of(*overrides: str) -> Plan:
    return make_plan(["+sweep=quickstart", "model=opt-tiny", *overrides], "")


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), UNIT)
def test_a_drawn_number_lies_between_its_bounds(low: float, width: float, u: float) -> None:
    drawn = Range(low, low + width)
    assert drawn.at(u) in drawn
    assert drawn.at(0.0) == pytest.approx(low, rel=1e-5, abs=1e-5)


@given(st.floats(1e-9, 1e3), st.floats(1.01, 1e6), UNIT)
def test_the_logarithm_of_a_drawn_number_is_uniform(low: float, ratio: float, u: float) -> None:
    drawn = Range(low, low * ratio, log=True)
    assert drawn.at(u) in drawn
    assert math.log(drawn.at(u) / low) == pytest.approx(u * math.log(ratio), abs=2e-5)


@given(st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_every_integer_of_a_range_is_drawn_and_no_other(low: int, width: int, log: bool) -> None:
    drawn = Range(low, low + width, log=log, integer=True)
    values = Counter(drawn.at(i / 5000) for i in range(5000))
    assert set(values) == set(range(low, low + width + 1))
    assert all(isinstance(value, int) for value in values)
    if not log:
        assert max(values.values()) - min(values.values()) <= 2


@given(st.lists(st.integers(), min_size=1, max_size=9, unique=True))
def test_every_choice_is_as_likely(values: list[int]) -> None:
    drawn = Counter(Choices(tuple(values)).at(i / 900) for i in range(900))
    assert set(drawn) == set(values)
    assert max(drawn.values()) - min(drawn.values()) <= 1


@given(DRAWN, st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_more_points_change_no_earlier_one(name: str, few: int, more: int, seed: int) -> None:
    keys = ["training.learning_rate", "training.batch_size"]
    points = draw_points(search(name, few + more, seed), keys)
    assert draw_points(search(name, few, seed), keys) == points[:few]
    assert len({tuple(p.values()) for p in points}) == few + more


def test_another_key_changes_no_random_point_and_another_seed_all() -> None:
    one = draw_points(search("random"), ["a"])
    two = draw_points(search("random"), ["b", "a"])
    assert [p["a"] for p in two] == [p["a"] for p in one]
    for name in ("random", "sobol"):
        others = draw_points(search(name, seed=1), ["a"])
        assert not {p["a"] for p in others} & {p["a"] for p in draw_points(search(name), ["a"])}


def test_a_power_of_two_of_sobol_points_has_one_in_each_slice_of_every_axis() -> None:
    points = draw_points(search("sobol", 16), ["a", "b", "c"])
    for key in ("a", "b", "c"):
        assert sorted(int(point[key] * 16) for point in points) == list(range(16))


@given(DRAWN, st.integers(1, 9))
def test_every_listed_combination_has_the_same_points(name: str, number: int) -> None:
    space = {
        "arm": ["mezo", "legendre2"],
        "training.learning_rate": RATE,
        "tuning": ["lora", "full"],
        "training.perturbation_scale": {"low": 1e-3, "high": 1e-2},
    }
    cells = expand(space, {}, search(name, number), seeds=[0, 7])
    assert len(cells) == 2 * 2 * 2 * number
    assert list(cells[0]) == [*space, "training.seed"]
    points: dict[Any, set[Any]] = {}
    for cell in cells:
        listed = (cell["arm"], cell["tuning"], cell["training.seed"])
        drawn = (cell["training.learning_rate"], cell["training.perturbation_scale"])
        points.setdefault(listed, set()).add(drawn)
    assert len(points) == 8
    assert all(found == points["mezo", "full", 0] for found in points.values())


def test_a_key_has_one_coordinate_a_point_whatever_its_range_in_a_union() -> None:
    low, high = {"low": 0.0, "high": 1.0}, {"low": 10.0, "high": 20.0}
    cells = expand(
        [
            {"tuning": ["full"], "training.learning_rate": low, "bandwidth.half_width": low},
            {"tuning": ["lora"], "training.learning_rate": high},
            {"tuning": ["head"]},
        ],
        {},
        search(),
    )
    rates = {
        tuning: [c["training.learning_rate"] for c in cells if c["tuning"] == tuning]
        for tuning in ("full", "lora")
    }
    assert [10 + 10 * rate for rate in rates["full"]] == pytest.approx(rates["lora"], rel=1e-5)
    assert len(cells) == 8 + 8 + 1


def test_a_pinned_key_is_drawn_no_longer_and_the_others_keep_their_points() -> None:
    space = {
        "arm": ["mezo"],
        "training.learning_rate": RATE,
        "training.perturbation_scale": {"low": 1e-3, "high": 1e-2},
    }
    free = expand(space, {}, search())
    pinned = expand(space, {"training.perturbation_scale": 5e-3}, search())
    assert {c["training.perturbation_scale"] for c in pinned} == {5e-3}
    assert [c["training.learning_rate"] for c in pinned] == [
        c["training.learning_rate"] for c in free
    ]
    both = {"training.perturbation_scale": 5e-3, "training.learning_rate": 1.0}
    assert expand(space, both, search()) == [{"arm": "mezo", **dict(reversed(both.items()))}]


def test_a_pin_keeps_the_members_of_a_union_that_could_draw_the_value() -> None:
    space = [
        {"tuning": ["full"], "training.learning_rate": {"low": 1e-7, "high": 1e-6}},
        {"tuning": ["lora"], "training.learning_rate": {"low": 1e-4, "high": 1e-3}},
    ]
    assert expand(space, {"training.learning_rate": 3e-4}, search()) == [
        {"tuning": "lora", "training.learning_rate": 3e-4}
    ]


def test_points_that_mean_the_same_are_one_trial() -> None:
    """MeZO has no kernel with a bandwidth: all its points differ in nothing."""
    plan = plan_of(
        "search=sobol",
        "search.num_samples=4",
        "space={arm:[mezo,legendre2],training.learning_rate:[1e-2],"
        "training.perturbation_scale:[1e-2]}",
        "+space={bandwidth.half_width:{low:0.2,high:1.0}}",
    )
    assert len(plan.content["cells"]) == 8
    assert Counter(spec.arm for spec in plan.specs) == {"mezo": 1, "legendre2": 4}


def test_equal_integers_and_choices_are_one_cell() -> None:
    space = {"training.num_directions": {"low": 1, "high": 2, "integer": True}}
    assert len(expand(space, {}, search(num_samples=32))) == 2
    assert len(expand({"tuning": {"choices": ["lora"]}}, {}, search(num_samples=32))) == 1


def test_a_drawn_trial_has_a_command_of_its_own_that_makes_it_again() -> None:
    plan = plan_of(
        "search=random",
        "search.num_samples=3",
        "search.seed=5",
        "seeds=2",
        "space.training.learning_rate={low:1e-4,high:1e-1,log:true}",
        "exclude=[{arm:kerzoo_paper,training.seed:1}]",
    )
    assert len(plan.specs) == 2 * 3 * (2 + 2 + 1)
    for spec in plan.specs[:5]:
        assert not any(o.startswith(("space", "seeds", "exclude")) for o in spec.overrides)
        (again,) = make_plan(spec.overrides, "", single=True).specs
        assert (again.trial_id, again.config) == (spec.trial_id, spec.config)


@pytest.mark.parametrize(
    ("seeds", "listed"), [(3, [0, 1, 2]), ([5, 2], [5, 2]), (None, []), (1, [0])]
)
def test_seeds_are_a_number_or_a_list(seeds: Any, listed: list[int]) -> None:
    assert read_seeds("seeds", seeds) == listed


@pytest.mark.parametrize("seeds", [0, -1, 1.5, True, "3", [], [1, 1], [-1], [True], ["0"], {}])
def test_seeds_that_are_neither_are_refused(seeds: Any) -> None:
    with pytest.raises(ValueError, match="seeds must be a number of seeds ≥ 1 or a list of"):
        read_seeds("seeds", seeds)


def test_seeds_pair_all_arms_and_make_no_trial_where_there_is_no_chance() -> None:
    plan = plan_of("seeds=[3,4,5]", "+space.arm=[mezo,legendre2,zero_shot]")
    seeds: dict[str, Counter[int]] = {}
    for spec in plan.specs:
        seeds.setdefault(spec.arm, Counter())[spec.config["training"]["seed"]] += 1
    assert seeds["mezo"] == seeds["legendre2"] == Counter({3: 4, 4: 4, 5: 4})
    assert seeds["zero_shot"].total() == 1
    assert plan.content["cost"]["seeds"] == 3


def test_seeds_in_two_places_are_refused_and_the_command_line_pins_them() -> None:
    with pytest.raises(ConfigError, match=r"seeds: the space lists training\.seed as well"):
        expand({"arm": ["mezo"], "training.seed": [0]}, {}, seeds=[1])
    assert expand({"arm": ["mezo"]}, {"training.seed": 9}, seeds=[0, 1]) == [
        {"arm": "mezo", "training.seed": 9}
    ]


KEYS = ("arm", "tuning", "training.seed", "training.batch_size")
BLOCK = st.fixed_dictionaries(
    {key: st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True) for key in KEYS}
)


@given(BLOCK, st.data())
def test_what_an_exclusion_matches_in_every_key_is_left_out(
    block: dict[str, list[int]], data: st.DataObject
) -> None:
    entries = data.draw(
        st.lists(
            st.dictionaries(st.sampled_from(KEYS), st.none(), min_size=1).map(sorted), max_size=3
        )
    )
    exclude: list[dict[str, Any]] = []
    for keys in entries:
        entry: dict[str, Any] = {}
        for key in keys:
            some = data.draw(st.lists(st.sampled_from(block[key]), min_size=1, unique=True))
            entry[key] = some[0] if len(some) == 1 else some
        exclude.append(entry)
    expected = []
    for values in itertools.product(*block.values()):
        cell = dict(zip(block, values, strict=True))
        hit = [
            all(cell[k] == v or (isinstance(v, list) and cell[k] in v) for k, v in entry.items())
            for entry in exclude
        ]
        if not any(hit):
            expected.append(cell)
    if expected:
        assert expand(block, {}, exclude=exclude) == expected
    else:
        with pytest.raises(ConfigError, match=r"exclude: leaves none of the \d+ cells"):
            expand(block, {}, exclude=exclude)


def test_a_range_of_drawn_values_can_be_excluded() -> None:
    space = {"arm": ["mezo", "legendre2"], "training.learning_rate": RATE}
    exclude = [{"arm": "mezo", "training.learning_rate": {"low": 1e-2, "high": 1.0}}]
    kept = expand(space, {}, search(num_samples=30), exclude=exclude)
    assert {c["arm"] for c in kept if c["training.learning_rate"] > 1e-2} == {"legendre2"}
    assert len(kept) == 50


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ([{"training.sed": 0}], r"exclude\.training\.sed: not a swept key .*'training\.seed'"),
        ([{"kernel": "constant"}], r"exclude\.kernel: not a swept key; swept are arm, training"),
        ([{"arm": "adamw"}], r"exclude\.arm: the space has no 'adamw' there"),
        ([{"training.seed": [0, 5]}], r"exclude\.training\.seed: the space has no 5 there"),
        ([{}], "exclude: must be a list of mappings"),
        ({"arm": "mezo"}, "exclude: must be a list of mappings"),
        ([{"arm": []}], r"exclude\.arm: must be a list with at least one value"),
    ],
)
def test_an_exclusion_that_can_match_nothing_is_refused(exclude: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand({"arm": ["mezo"], "training.seed": [0, 1]}, {}, exclude=exclude)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 1}, "a range has low and high"),
        ({"low": 1, "high": 2, "step": 1}, "got low, high, step"),
        ({"low": 2, "high": 1}, "space.x.low must be below high, got 2 and 1"),
        ({"low": 0, "high": 1, "log": True}, "space.x.low must be > 0 where log is true, got 0"),
        ({"low": 0, "high": 1, "log": 1}, "space.x.log must be true or false"),
        ({"low": 0.5, "high": 1, "integer": True}, "space.x.low must be whole"),
        ({"low": "a", "high": 1}, "space.x.low must be a finite number, got 'a'"),
        ({"low": 0, "high": math.inf}, "space.x.high must be a finite number"),
        ({"choices": []}, "space.x.choices: must be a list with at least one value"),
        ({"choices": [1], "low": 0}, "a range has low and high"),
        ({}, "got nothing"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_dimension("space.x", values)


def test_a_search_and_a_space_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"space\.training\.learning_rate: is drawn from, and"):
        expand({"arm": ["mezo"], "training.learning_rate": RATE}, {})
    with pytest.raises(ConfigError, match="search=sobol: no key of the space is drawn from"):
        expand({"arm": ["mezo"]}, {}, search())
    with pytest.raises(ConfigError, match=r"space\.arm: arms are compared, not drawn"):
        expand({"arm": {"choices": ["mezo"]}}, {}, search())
    with pytest.raises(ConfigError, match=r"search\.num_samples must be ≥ 1, got 0"):
        plan_of("search=random", "search.num_samples=0")


def test_the_command_line_changes_a_space_key_by_key() -> None:
    def space_of(*overrides: str) -> Any:
        return compose(["+sweep=quickstart", *overrides]).sweep.space

    own = space_of()
    rate = "training.learning_rate"
    assert space_of(f"space.{rate}={{low:1e-3,high:1}}") == {**own, rate: {"low": 1e-3, "high": 1}}
    assert space_of(f"space.{rate}=[1,2]") == {**own, rate: [1, 2]}
    assert space_of(f"space={{{rate}:[3]}}", "+space={tuning:[lora]}") == {
        **own,
        rate: [3],
        "tuning": ["lora"],
    }
    assert space_of("~space.arm") == {k: v for k, v in own.items() if k != "arm"}
    assert space_of("space=[{arm:[mezo]}]") == [{"arm": ["mezo"]}]
    assert compose(["+sweep=opt2.7b", "space={arm:[mezo]}"]).sweep.space == {"arm": ["mezo"]}
    with pytest.raises(ConfigError, match=r"space\.training\.batch_size: not swept so far"):
        space_of("space.training.batch_size=[1]")
