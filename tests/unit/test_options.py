"""A trial's resolved configuration: every wrong value is refused, and names its key."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from tiny_trials import FULL, LORA, MEZO, trial_config

from kerzoo.kernels import ConstantKernel, PolynomialKernel
from kerzoo.options import PARTS, TrainingOptions, TrialOptions
from kerzoo.schedules import Bandwidth

CONFIG = trial_config("no/such/folder")
MISSING = object()


def options(changes: dict[str, Any]) -> TrialOptions:
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        if value is MISSING:
            del node[last]
        else:
            node[last] = value
    return TrialOptions.from_config(config)


def training(**changes: Any) -> TrainingOptions:
    return TrainingOptions(**CONFIG["training"] | changes)


def test_a_configuration_becomes_objects_and_reads_no_data() -> None:
    built = options({})
    assert built.kernel == PolynomialKernel("uniform", 4)
    assert built.bandwidth == Bandwidth(1.0)
    assert built.training.rungs == (0.25, 0.5, 1.0)


def test_the_configuration_is_not_changed() -> None:
    config = copy.deepcopy(CONFIG)
    TrialOptions.from_config(config)
    assert config == CONFIG


@pytest.mark.parametrize("name", ["learning_rate", "perturbation_scale"])
@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf, "0.1", None, True, [0.1], {}])
def test_a_scale_that_is_no_positive_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^training\.{name}:? must be a number"):
        options({f"training.{name}": value})


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("forward_passes", 2),
        ("batch_size", 1),
        ("seed", 0),
        ("num_directions", 1),
        ("threads", 1),
        ("points_per_forward", 1),
    ],
)
@pytest.mark.parametrize("value", ["too small", 2.0, "2", None, True, math.nan])
def test_a_count_that_is_no_integer_in_its_range_is_refused(
    name: str, least: int, value: Any
) -> None:
    value = least - 1 if value == "too small" else value
    with pytest.raises(ValueError, match=rf"^training\.{name}:? must be an integer"):
        options({f"training.{name}": value})


def test_a_seed_that_fits_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.seed must be an integer < 2\^63"):
        options({"training.seed": 1 << 63})
    assert options({"training.seed": (1 << 63) - 1}).estimator().draw(0, 0)


@pytest.mark.parametrize("device", ["auto", "gpu", "cuda:1", None, 0])
def test_an_unknown_device_is_refused(device: Any) -> None:
    with pytest.raises(ValueError, match=r"^training\.device:? must be"):
        options({"training.device": device})


@pytest.mark.parametrize(
    "rungs",
    [
        [],
        [0.5],
        [0.0, 1.0],
        [-0.5, 1.0],
        [0.5, 0.5, 1.0],
        [1.0, 0.5],
        [0.5, 1.1],
        [0.5, math.nan, 1.0],
        ["0.5", 1.0],
        "1.0",
        1.0,
        None,
        [True],
    ],
)
def test_rungs_that_are_no_increasing_fractions_up_to_one_are_refused(rungs: Any) -> None:
    with pytest.raises(ValueError, match=r"^training\.rungs:? must be"):
        options({"training.rungs": rungs})


def test_a_rung_below_one_step_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        ValueError,
        match=r"training\.rungs must not lie below one step: the first, 5 forward passes "
        r"\(0\.1 of 48\), is less than the 6 of one step",
    ):
        options(
            {
                "training.rungs": [0.1, 1.0],
                "training.forward_passes": 48,
                "training.num_directions": 3,
            }
        )


def test_a_rung_of_exactly_one_step_is_allowed() -> None:
    assert training(rungs=[0.125, 1.0], forward_passes=48, num_directions=3).nominal_rungs[0] == 6


def test_rungs_within_one_step_of_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rungs must be at least one step apart, got \[22, 23, 2"):
        options({"training.rungs": [22 / 24, 23 / 24, 1.0]})


@pytest.mark.parametrize(
    ("fractions", "budget", "nominal"),
    [
        ([0.25, 0.5, 1.0], 144, [36, 72, 144]),
        ([1.0], 50, [50]),
        ([1 / 3, 2 / 3, 1.0], 36, [12, 24, 36]),
        ([1], 10, [10]),
    ],
)
def test_nominal_rungs_are_fractions_of_the_budget(
    fractions: list[float], budget: int, nominal: list[int]
) -> None:
    assert training(rungs=fractions, forward_passes=budget).nominal_rungs == nominal


def test_a_step_costs_two_passes_a_direction_and_only_whole_steps_count() -> None:
    budget = {"training.forward_passes": 50, "training.rungs": [1.0]}
    three = options(budget | {"training.num_directions": 3})
    assert (three.forward_passes_per_step, three.num_steps) == (6, 8)
    richardson = {"_target_": "kerzoo.kernels.RichardsonKernel", "order": 4}
    four = options(budget | {"kernel": richardson})
    assert (four.forward_passes_per_step, four.num_steps) == (4, 12)


def test_adapters_of_a_half_precision_model_are_in_single_precision_and_may_move_in_place() -> None:
    half = {"model.dtype": "bfloat16", "training.precision": "inplace"}
    assert options(half | {"tuning": LORA}).training.precision == "inplace"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.r_scope": "layer"}, r"^training\.r_scope must be step or tensor, got 'layer'"),
        ({"training.precision": "half"}, r"^training\.precision must be master, inplace or "),
        ({"training.weight_decay": -0.1}, r"^training\.weight_decay must be a number ≥ 0"),
        (
            {"training.precision": "inplace", "model.dtype": "bfloat16", "tuning": FULL},
            r"^training\.precision=inplace with bfloat16 .*just measured.*precision=inplace_half",
        ),
        (
            {"training.points_per_forward": 2, "tuning": FULL},
            r"^training\.points_per_forward must be 1 with FullTuning, got 2: .*tuning=lora",
        ),
        ({"training.precision": "inplace_half"}, r"^training\.precision=inplace_half is for half"),
        (
            {
                "training.weight_decay": 0.1,
                "momentum": {"_target_": "kerzoo.momentum.CoupledCopy"},
            },
            r"^training\.weight_decay must be 0 with CoupledCopy",
        ),
    ],
)
def test_methods_that_cannot_be_are_refused_before_any_work(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        options(changes)


@pytest.mark.parametrize("name", [*PARTS, "training"])
def test_a_missing_part_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: missing in the configuration$"):
        options({name: MISSING})


@pytest.mark.parametrize("name", sorted(PARTS))
@pytest.mark.parametrize("node", [None, {}, "text", []])
def test_a_part_that_names_no_class_is_refused(name: str, node: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\._target_: must be a {PARTS[name].__name__}"):
        options({name: node})


@pytest.mark.parametrize(("name", "node"), [("kernel", LORA), ("model", MEZO), ("tuning", MEZO)])
def test_a_part_of_another_kind_is_refused(name: str, node: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\._target_: must be a {PARTS[name].__name__}"):
        options({name: node})


@pytest.mark.parametrize("node", [None, 3, "text", []])
def test_training_must_be_a_mapping(node: Any) -> None:
    with pytest.raises(ValueError, match=r"^training: must be a mapping, got"):
        options({"training": node})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.learningrate", 1, "training.learningrate: no such key; training takes: batch"),
        ("training.threads", MISSING, "training.threads: missing; training needs it"),
        ("kernel.order", "4", "kernel.order: must be an integer, got '4'"),
        ("kernel.order", 3, "kernel: order must be even and ≥ 2, got 3"),
        ("kernel.density", ["uniform"], "kernel.density: must be text"),
        ("bandwidth.half_width", "half", "bandwidth.half_width: must be a number, got 'half'"),
        ("bandwidth.half_width", None, "bandwidth.half_width: must be a number, got None"),
        ("bandwidth.half_width", 0, "bandwidth: half_width must lie in (0, 1], got 0"),
        ("bandwidth.rescale", "no", "bandwidth.rescale: must be true or false, got 'no'"),
        ("bandwidth.rescale", 1, "bandwidth.rescale: must be true or false, got 1"),
        ("tuning.last_layers", "six", "tuning.last_layers: must be an integer or null, got 'six'"),
        ("tuning.last_layers", 1.5, "tuning.last_layers: must be an integer or null, got 1.5"),
        ("tuning.last_layers", 0, "tuning: last_layers must be at least 1 or null, got 0"),
        ("tuning.rank", 0, "tuning: rank must be at least 1, got 0"),
        ("tuning.alpha", 0, "tuning: alpha must be > 0, got 0"),
        ("tuning.target_modules", "q_proj", "tuning.target_modules: must be a list of texts"),
        ("tuning.target_modules", [], "tuning: target_modules must name at least one module"),
        ("model.dtype", "float64", "model: dtype must be one of float32, bfloat16, float16"),
        ("model.path", 7, "model.path: must be text or null, got 7"),
        ("task.source._target_", "os.system", "task.source._target_: must name a class inside"),
        ("task.source", None, "task.source: must be an instance of ExampleSource, got None"),
        ("task.num_train", -1, "task: num_train must be an integer ≥ 0, got -1"),
    ],
)
def test_a_wrong_value_of_a_part_names_its_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole beginning is compared
        options({key: value})
    assert str(caught.value).startswith(message)


def test_the_estimator_takes_the_numbers_of_the_trial() -> None:
    estimator = options(
        {
            "kernel": MEZO,
            "training.num_directions": 3,
            "training.perturbation_scale": 0.25,
            "training.seed": 7,
        }
    ).estimator()
    assert estimator.kernel == ConstantKernel()
    assert (estimator.num_directions, estimator.num_steps) == (3, 4)
    assert (estimator.perturbation_scale, estimator.seed) == (0.25, 7)
