"""Composition: which choice wins, what wrong input is told, and that both ways agree."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.compose import CONF, ConfigError, compose, format_override, parse_overrides
from sweeps.plan import Plan, make_plan

QUICK = ("+sweep=quickstart", "model=opt-tiny")

KERNELS, ARMS = (
    ", ".join(sorted(path.name.removesuffix(".yaml") for path in (CONF / group).glob("*.yaml")))
    for group in ("kernel", "arm")
)

WRONG_INPUTS = {
    "unknown kernel": (["kernel=legendre5"], ["kernel: no option 'legendre5'", KERNELS]),
    "unknown arm": (["arm=mezzo"], ["arm: no option 'mezzo' (did you mean 'mezo'?)", ARMS]),
    "unknown sweep": (["+sweep=quickstar"], ["sweep: no option", "'quickstart'", "opt2.7b"]),
    "odd order": (
        ["kernel=legendre4", "kernel.order=3"],
        ["kernel", "order must be even", "got 3"],
    ),
    "order of a kernel that has none": (["kernel.order=4"], ["kernel.order: no such key"]),
    "negative epsilon": (
        ["training.perturbation_scale=-1e-3"],
        ["training.perturbation_scale", "> 0", "got -0.001"],
    ),
    "epsilon that is no number": (
        ["training.perturbation_scale=nan"],
        ["training.perturbation_scale", "got nan"],
    ),
    "misspelt group": (["trainning.seed=1"], ["trainning", "did you mean 'training'?"]),
    "misspelt key": (["nam=x"], ["nam: no such key (did you mean 'name'?)", "fresh, kernel"]),
    "misspelt nested key": (
        ["training.sed=1"],
        ["training.sed: no such key (did you mean 'seed'?)", "batch_size, device"],
    ),
    "misspelt doubly nested key": (
        ["task.source.min_rating=1"],
        ["task.source.min_rating: no such key (did you mean 'min_abs_rating'?)"],
    ),
    "misspelt key of the schema": (
        ["scheduler.reduction_facto=2"],
        ["scheduler.reduction_facto: no such key (did you mean 'reduction_factor'?)"],
    ),
    "added key": (["+foo=1"], ["foo: no such key", "time_budget_s"]),
    "key added to a component": (["+task.foo=1"], ["task.foo: no such key", "num_train"]),
    "text for a number": (
        ["training.batch_size=many"],
        ["training.batch_size", "integer", "got 'many'"],
    ),
    "fraction for a count": (["training.batch_size=1.5"], ["training.batch_size", "got 1.5"]),
    "text for a number of the schema": (
        ["scheduler.reduction_factor=two"],
        ["scheduler.reduction_factor: must be a number, got 'two'"],
    ),
    "text for a switch": (["plan_only=maybe"], ["plan_only: Value 'maybe' is not a valid bool"]),
    "null for a group": (["model=null"], ["must be a string or a list"]),
    "reduction factor of 1": (
        ["scheduler.reduction_factor=1"],
        ["scheduler: reduction_factor must be > 1, got 1"],
    ),
    "unknown mode": (["tracking.mode=off"], ["tracking.mode must be one of offline, online"]),
    "unknown dtype": (["model.dtype=int8"], ["model", "dtype", "float32, bfloat16", "int8"]),
    "value list": (
        ["training.learning_rate=1e-2,1e-3"],
        ["training.learning_rate: takes one value, got 1e-2,1e-3", "'+space="],
    ),
    "list of options": (["arm=mezo,legendre2"], ["arm: takes one value, got mezo,legendre2"]),
    "range": (["training.seed=range(0,3)"], ["training.seed: takes one value, got range(0,3)"]),
    "yaml list": (["training.seed=[0,1]"], ["training.seed", "integer", "got [0, 1]"]),
    "rung below one step": (
        ["training.forward_passes=4"],
        ["training.rungs", "below one step", "raise forward_passes"],
    ),
    "decreasing rungs": (
        ["training.rungs=[0.5,0.2,1.0]"],
        ["training.rungs", "increasing", "[0.5, 0.2, 1.0]"],
    ),
    "half-width above 1": (
        ["arm=legendre2", "bandwidth.half_width=2"],
        ["bandwidth", "half_width must lie in (0, 1], got 2"],
    ),
    "foreign class": (["kernel._target_=os.system"], ["must name a class inside kerzoo"]),
    "name with a slash": (["name=a/b"], ["name must be a plain folder name, got 'a/b'"]),
    "empty name": (["name="], ["name must be a plain folder name, got ''"]),
    "no CPU": (["cluster.num_cpus=0"], ["cluster.num_cpus must be at least 1 or null, got 0"]),
    "no override": (["seed"], ["seed: an override is written KEY=VALUE"]),
    "option with dashes": (["--plan_only"], ["without dashes: plan_only=true"]),
    "option with dashes and a value": (["--time-budget-s=5"], ["dashes: time_budget_s=5"]),
    "sweep without its key": (["pilot"], ["pilot: a sweep is chosen by +sweep=pilot"]),
    "key of another task": (
        ["task.source.labels=[a,b]"],
        [
            "task.source.labels: no such key; task.source of task=movie_reviews has:",
            "into its file, conf/task/NAME.yaml",
        ],
    ),
    "misspelt key of a chosen task": (
        ["task=csv", "task.source.label=[a,b]"],
        ["did you mean 'labels'?", "task.source of task=csv has: _target_, fields, label_column"],
    ),
    "sweep without a plus": (["sweep=quickstart"], ["+sweep=quickstart"]),
    "baseline that is no arm": (
        ["baseline=adamw"],
        ["baseline=kerzoo_paper: kerzoo_paper, legendre2, mezo"],
    ),
    "key that the space lacks": (["space={tuning:[lora]}"], ["'+space={tuning:[VALUE,VALUE]}'"]),
    "empty list in the space": (["space.arm=[]"], ["space.arm", "at least one value, got []"]),
    "value in the space": (["space.arm=mezo"], ["space.arm", "got 'mezo'"]),
    "space that is gone": (["~space"], ["space: must have at least one key", "got none"]),
    "swept scheduler": (["+space.scheduler=[asha]"], ["space.scheduler: cannot be swept", "arm,"]),
    "swept misspelt key": (
        ["+space={training.sed:[1]}"],
        ["training.sed: no such key (did you mean 'seed'?)"],
    ),
    "swept unknown option": (["+space={kernel:[foo]}"], ["kernel: no option 'foo'", KERNELS]),
    "swept odd order": (
        ["+space={kernel:[legendre4],kernel.order:[3]}"],
        ["kernel", "order must be even and ≥ 2, got 3"],
    ),
    "swept negative epsilon": (
        ["space={training.perturbation_scale:[-1]}"],
        ["training.perturbation_scale", "> 0", "got -1", "in the cell arm=mezo"],
    ),
    "model folder that is none": (
        ["model=smollm2-135m", "model.path=/nowhere"],
        ["model.path must be a Hugging Face model's folder", "/nowhere"],
    ),
    "data folder that is none": (
        ["task=sst2", "task.data_dir=/nowhere"],
        ["task.data_dir: no stsa.binary.train or train.tsv in /nowhere"],
    ),
}


@pytest.mark.parametrize("kind", WRONG_INPUTS)
def test_wrong_input_is_refused_naming_the_key_and_what_is_allowed(kind: str) -> None:
    overrides, told = WRONG_INPUTS[kind]
    base = QUICK if "sweep=" not in overrides[0] else QUICK[1:]
    with pytest.raises(ConfigError) as refused:
        make_plan([*base, *overrides], "test")
    message = str(refused.value)
    assert [part for part in told if part not in message] == [], message
    assert "multirun" not in message


@pytest.mark.parametrize(
    ("overrides", "kernel", "half_width"),
    [
        (["arm=kerzoo_paper"], 4, 1.0),
        (["arm=kerzoo_paper", "kernel=legendre6"], 6, 1.0),
        (["kernel=legendre6", "arm=kerzoo_paper"], 6, 1.0),
        (["arm=kerzoo_paper", "bandwidth=half"], 4, 0.5),
        (["bandwidth=half", "arm=kerzoo_paper", "kernel=legendre2"], 2, 0.5),
        (["arm=kerzoo_paper", "kernel.order=8"], 8, 1.0),
        (["arm=legendre2", "bandwidth.half_width=0.25"], 2, 0.25),
    ],
)
def test_a_part_overridden_on_the_command_line_wins_over_the_arms_own(
    overrides: list[str], kernel: int, half_width: float
) -> None:
    composed = compose(overrides)
    assert composed.config["kernel"]["order"] == kernel
    assert composed.config["bandwidth"]["half_width"] == half_width
    arm = next(o for o in overrides if o.startswith("arm=")).removeprefix("arm=")
    assert composed.config["arm"]["name"] == arm


def test_a_part_overridden_on_the_command_line_wins_in_every_swept_arm() -> None:
    plan = make_plan([*QUICK, "bandwidth=half"], "test")
    assert {spec.choices["bandwidth"] for spec in plan.specs} == {"half"}
    assert {spec.arm for spec in plan.specs} == {"mezo", "legendre2", "kerzoo_paper"}


def test_a_key_of_one_arms_kernel_may_be_overridden_where_only_that_arm_runs() -> None:
    plan = make_plan([*QUICK, "arm=legendre2", "baseline=legendre2", "kernel.order=6"], "test")
    assert {spec.config["kernel"]["order"] for spec in plan.specs} == {6}


def test_composing_twice_gives_equal_plain_dicts() -> None:
    first, second = compose(["arm=legendre4"]), compose(["arm=legendre4"])
    assert first == second
    assert type(first.config["task"]["label_words"]) is list
    assert type(first.config["task"]) is dict


def test_a_trial_config_leaves_the_composition_as_it_was() -> None:
    composed = compose(["arm=legendre4"])
    changed = composed.trial_config({"training.rungs": [1.0], "kernel.order": 8})
    assert changed["kernel"]["order"] == 8
    changed["task"]["label_words"].append("x")
    assert composed.config["kernel"]["order"] == 4
    assert composed.config["task"]["label_words"] == [" terrible", " great"]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)


@settings(deadline=None)
@given(SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(KEYS, SCALARS, max_size=3))
def test_an_override_written_for_any_value_reads_as_that_value(value: object) -> None:
    read = parse_overrides([format_override("key", value)])["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("word", ["null", "True", "1", "1e-3", "nan", "it's", "a\\'b", "", "end\\"])
def test_text_that_looks_like_something_else_stays_text(word: str) -> None:
    assert parse_overrides([format_override("key", word)])["key"] == word


MIXED_SPACE = (
    "+space={arm:[mezo,legendre2,kerzoo_paper],bandwidth:[full,linear],tuning:[lora,lora_last6,full],"
    "training.learning_rate:[1e-2,3e-7],training.perturbation_scale:[1e-2,1],"
    "training.rungs:[[0.5,1.0],[0.25,1.0]],tuning.last_layers:[null,4],"
    "task.prompt:['{text} It was','Review: {text}, it\\'s']}"
)


def assert_cells_agree(plan: Plan, count: int) -> None:
    """For some trials: merging dicts gave what Hydra gives for the trial's own overrides."""
    for spec in random.Random(3).sample(plan.specs, count):
        composed = compose(spec.overrides)
        assert composed.trial_config({}) == spec.config, spec.overrides
        assert composed.choices.items() >= spec.choices.items()


def test_a_few_cells_merged_as_dicts_equal_their_full_composition() -> None:
    assert_cells_agree(make_plan(QUICK, "test"), 2)


@pytest.mark.slow
def test_fifty_cells_of_a_mixed_space_equal_their_full_composition() -> None:
    plan = make_plan([*QUICK, MIXED_SPACE], "test")
    assert len(plan.content["cells"]) == 3 * 2 * 3 * 2**5
    assert_cells_agree(plan, 50)


@pytest.mark.parametrize("override", ["cluster.resources={GPU:0.5}", "+cluster.resources.GPU=0.5"])
def test_resources_have_the_names_that_ray_gives_them(override: str) -> None:
    assert compose([*QUICK, override]).sweep.cluster.resources == {"GPU": 0.5}


def test_a_key_that_a_file_leaves_at_its_default_can_be_set() -> None:
    overrides = ["task=sst2", "task.objective=accuracy", "task.shots=4"]
    task = compose(overrides).config["task"]
    assert (task["objective"], task["shots"]) == ("accuracy", 4)
    with pytest.raises(ConfigError, match=r"task\.objectiv: no such key"):
        compose([*overrides, "task.objectiv=accuracy"])
