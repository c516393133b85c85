"""The contract of conf/: every option of every group composes, builds and says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kerzoo.build import build
from kerzoo.options import PARTS, TrialOptions
from sweeps.compose import CONF, compose, list_sweeps
from sweeps.plan import Plan, make_plan
from sweeps.schema import GROUPS

PASSES_OF_A_RUNG = 12
"""A multiple of the cost of one step with 1, 2, 3 or 6 directions."""
PROTOCOL_BUDGETS = {
    "table_opt2.7b": {"ZerothOrder": 2 * 20_000, "FirstOrder": 3 * 625},
    "table_roberta_large": {"ZerothOrder": 2 * 100_000, "FirstOrder": 3 * 1_000},
}
"""Published budgets by method, which are kept as they are; other methods train nothing."""


def options_of(group: str) -> list[str]:
    return sorted(path.name.removesuffix(".yaml") for path in (CONF / group).glob("*.yaml"))


def file_of(group: str, option: str) -> Path:
    return CONF / group / f"{option}.yaml"


SWEEPS = options_of("sweep")
QUICK = "quickstart"
PLANNED = [s if s == QUICK else pytest.param(s, marks=pytest.mark.slow) for s in SWEEPS]
OPTIONS = [(group, option) for group in (*GROUPS, "sweep") for option in options_of(group)]
COMPONENTS = [(group, option) for group, option in OPTIONS if group in PARTS]


@pytest.fixture(scope="module", params=PLANNED)
def plan(request: pytest.FixtureRequest) -> Plan:
    overrides = [f"+sweep={request.param}"]
    return make_plan(overrides, " ".join(overrides))


def test_every_folder_of_conf_is_a_group_with_options() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders == {*GROUPS, "sweep"}
    assert all(options_of(group) for group in folders)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_file_begins_with_a_line_that_says_what_it_is(group: str, option: str) -> None:
    lines = file_of(group, option).read_text(encoding="utf-8").splitlines()
    said = next(line for line in lines if line != "# @package _global_")
    assert said.startswith("# ")
    assert len(said) > len("# MeZO")
    assert (lines[0] == "# @package _global_") == (group in ("arm", "sweep"))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_a_name_is_that_of_its_file(group: str, option: str) -> None:
    content = yaml.safe_load(file_of(group, option).read_text(encoding="utf-8"))
    node = content["arm"] if group == "arm" else content
    assert node.get("name", option) == option
    needs_name = ("arm", "model", "task", "search", "scheduler", "cluster", "tracking", "sweep")
    assert ("name" in node) == (group in needs_name)


@pytest.mark.parametrize(("group", "option"), [pair for pair in OPTIONS if pair[0] != "sweep"])
def test_every_option_composes_and_is_the_one_chosen(group: str, option: str) -> None:
    composed = compose([f"{group}={option}"])
    assert composed.choices[group] == option
    assert composed.sweep.name == "trial"


@pytest.mark.parametrize(("group", "option"), COMPONENTS)
def test_every_component_builds_into_its_contract(group: str, option: str) -> None:
    built = build(compose([f"{group}={option}"]).config[group], group)
    assert isinstance(built, PARTS[group])
    assert build(compose([f"{group}={option}"]).config[group], group) == built


@pytest.mark.parametrize("arm", options_of("arm"))
def test_every_arm_builds_a_trial_and_keeps_its_label(arm: str) -> None:
    composed = compose([f"arm={arm}"])
    options = TrialOptions.from_config(composed.trial_config({}))
    assert composed.config["arm"]["name"] == arm
    assert composed.config["arm"]["description"]
    assert build(composed.config["kernel"]) == options.kernel


@pytest.mark.parametrize("arm", options_of("arm"))
def test_an_arms_first_line_is_its_description(arm: str) -> None:
    content = yaml.safe_load(file_of("arm", arm).read_text(encoding="utf-8"))
    assert file_of("arm", arm).read_text(encoding="utf-8").splitlines()[1] == (
        f"# {content['arm']['description']}"
    )


def test_every_sweep_becomes_a_plan_without_a_network(plan: Plan) -> None:
    assert plan.specs
    assert len(plan.specs) == len(plan.options) == len({s.trial_id for s in plan.specs})
    assert plan.sweep.name == plan.content["choices"]["sweep"]
    assert plan.sweep.description
    assert not plan.sweep.fresh
    assert not plan.sweep.plan_only


def test_rungs_and_budgets_of_every_sweep_are_multiples_of_twelve(plan: Plan) -> None:
    if plan.sweep.name in PROTOCOL_BUDGETS:
        protocol = PROTOCOL_BUDGETS[plan.sweep.name]
        budgets = {
            (type(options.method).__name__, options.training.forward_passes)
            for options in plan.options
            if type(options.method).__name__ in protocol
        }
        assert budgets == set(protocol.items())
        return
    for options in plan.options:
        assert options.training.forward_passes % PASSES_OF_A_RUNG == 0
        assert [rung % PASSES_OF_A_RUNG for rung in options.training.nominal_rungs] == [0] * len(
            options.training.rungs
        )


def test_the_baseline_is_an_arm_of_every_sweep(plan: Plan) -> None:
    assert plan.content["baseline"] in {cell["arm"] for cell in plan.content["cells"]}


def test_every_sweep_compares_at_least_two_arms_over_a_scale_and_a_rate(plan: Plan) -> None:
    assert len({cell["arm"] for cell in plan.content["cells"]}) >= 2
    assert {"arm", "training.perturbation_scale", "training.learning_rate"} <= set(
        plan.content["factors"]
    )


def test_the_default_budget_has_rungs_that_are_multiples_of_twelve() -> None:
    training = TrialOptions.from_config(compose([]).trial_config({})).training
    assert all(rung % PASSES_OF_A_RUNG == 0 for rung in training.nominal_rungs)


def test_every_sweep_is_listed_with_a_line() -> None:
    listed = list_sweeps()
    assert sorted(listed) == SWEEPS
    assert {"quickstart", "opt2.7b"} <= set(listed)
    for line in listed.values():
        assert 20 < len(line) <= 120
        assert "@package" not in line
