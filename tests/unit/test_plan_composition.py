"""Cells merged from options that were composed once each, against whole compositions."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from sweeps.compose import ConfigError, compose
from sweeps.plan import Plan, make_plan
from sweeps.plan.trials import TrialFactory
from sweeps.schema import SearchOptions
from sweeps.space import expand, split_cell

BASE = ["+sweep=quickstart", "model=opt-tiny", "task.num_train=40", "name=mixed"]
SPACE = [
    {
        "arm": ["mezo", "kerzoo_code", "kerzoo_paper", "adamw"],
        "task": ["sst2", "rte", "movie_reviews"],
        "tuning": ["lora", "full_last6"],
        "training.learning_rate": [1e-3, 1e-2],
    },
    {
        "arm": ["legendre4", "kerzoo_code"],
        "bandwidth": ["full", "linear"],
        "model": ["opt-tiny", "roberta-tiny"],
        "perturbation": ["gaussian", "sphere"],
        "training.num_directions": [1, 2],
        "kernel": ["legendre6", "gaussian4"],
    },
    {
        "arm": ["legendre2", "kerzoo_paper"],
        "bandwidth": {"choices": ["full", "linear"]},
        "bandwidth.half_width": {"low": 0.25, "high": 1.0},
        "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "training.batch_size": {"low": 2, "high": 8, "integer": True},
    },
]
SOBOL = SearchOptions("sobol", num_samples=32)


@pytest.mark.slow  # Hydra composes every cell whole
def test_fifty_cells_of_a_mixed_space_are_those_of_a_whole_composition() -> None:
    base = compose(BASE)
    composer = TrialFactory(base, "screen")
    everything = expand(SPACE, {}, SOBOL, seeds=[0, 1])
    cells = random.Random(0).sample(everything, 50)
    assert 5 < sum("bandwidth.half_width" in cell for cell in cells) < 45  # drawn ones
    for cell in cells:
        groups, values = split_cell(cell)
        kept = [o for o in BASE if o.partition("=")[0] not in groups]
        whole = compose([*kept, *(f"{g}={o}" for g, o in groups.items())])
        spec, _ = composer.make(cell)
        assert spec.config == whole.trial_config(values)
        assert spec.choices == {g: whole.choices[g] for g in spec.choices}
        assert spec.trial_id == TrialFactory(base, "screen").make(cell)[0].trial_id


def plan_of_size(num_rates: int) -> tuple[Plan, float]:
    rates = ",".join(str(1e-6 * (i + 1)) for i in range(num_rates))
    scales = "training.perturbation_scale:[1e-3,1e-2]"
    space = f"space={{arm:[mezo,legendre2],{scales},training.learning_rate:[{rates}]}}"
    start = time.perf_counter()
    plan = make_plan([*BASE, space], "")
    return plan, time.perf_counter() - start


@pytest.mark.slow
def test_the_cost_of_planning_grows_linearly() -> None:
    plan_of_size(2)
    sizes = (500, 2000)
    (few, few_s), (many, many_s) = (plan_of_size(size) for size in sizes)
    assert len(many.specs) == 4 * len(few.specs) == 8000
    assert many_s < 8 * max(few_s, 0.5)


def test_a_filled_template_has_the_id_of_a_trial_planned_alone() -> None:
    cells = expand(
        {"arm": ["mezo"], "training.learning_rate": [1e-3, 1], "training.seed": [0, 5]}, {}
    )
    factory = TrialFactory(compose(BASE), "screen")
    for cell in cells:
        alone = TrialFactory(compose(BASE), "screen").make(cell)
        together = factory.make(cell)
        assert together[0] == alone[0]
        assert together[1] == alone[1]


def test_a_cell_that_leaves_a_swept_value_out_has_the_configurations_own() -> None:
    factory = TrialFactory(compose(BASE), "screen")
    swept, own = (
        factory.make(cell)[0] for cell in ({"arm": "mezo", "training.seed": 7}, {"arm": "mezo"})
    )
    assert (swept.config["training"]["seed"], own.config["training"]["seed"]) == (7, 0)


@pytest.mark.parametrize("value", [-1.0, 0, "much", None, True])
def test_a_value_outside_its_range_is_refused_in_every_cell(value: object) -> None:
    factory = TrialFactory(compose(BASE), "screen")
    factory.make({"arm": "mezo", "training.learning_rate": 1e-3})
    with pytest.raises(ConfigError, match=r"training\.learning_rate.*in the cell arm=mezo"):
        factory.make({"arm": "mezo", "training.learning_rate": value})


def test_ids_of_all_pairs_of_cells_differ() -> None:
    plan, _ = plan_of_size(3)
    ids = [cell["trial_id"] for cell in plan.content["cells"]]
    assert all(a != b for a, b in itertools.combinations(ids, 2))
