"""Methods: what each costs, what it refuses, and which settings make another trial of it."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kerzoo.methods import FirstOrder, LinearProbe, NoTraining, ZerothOrder
from kerzoo.options import TrainingOptions, TrialOptions
from sweeps.compose import ConfigError, compose
from sweeps.cost import GIB, estimate_trial
from sweeps.plan import Plan, make_plan
from sweeps.tables import print_plan

TRIAL = ("model=opt-tiny", "training.device=cpu")
SPACE = (
    "+space={arm:[ARM],training.learning_rate:[1e-3,1e-2],training.perturbation_scale:[1e-3,1e-2],"
    "training.seed:[0,1],training.num_directions:[1,2],kernel:[constant,legendre2],"
    "tuning:[lora,full],clipping:[none,global_norm]}"
)


def options_of(*overrides: str) -> TrialOptions:
    return TrialOptions.from_config(compose([*TRIAL, *overrides]).trial_config({}))


def plan_of(*overrides: str) -> Plan:
    return make_plan(["+sweep=quickstart", *TRIAL, *overrides], "python sweep.py")


def test_zeroth_order_uses_every_number_of_the_training_options_that_can_change_a_result() -> None:
    names = {field.name for field in dataclasses.fields(TrainingOptions)}
    others = {"rungs", "threads", "device", "micro_batch"}
    assert ZerothOrder.numbers | others == names


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FirstOrder(optimizer="lion"), "optimizer must be one of adamw, sgd, got 'lion'"),
        (lambda: FirstOrder(weight_decay=-1.0), "weight_decay must be a number ≥ 0, got -1.0"),
        (lambda: FirstOrder(betas=(0.9,)), "betas must be two numbers"),
        (lambda: FirstOrder(betas=(0.9, 1.0)), "betas must be two numbers"),
        (lambda: FirstOrder("sgd", momentum=1.0), "momentum must lie in"),
        (lambda: FirstOrder("adamw", momentum=0.9), "momentum must be 0 with adamw"),
        (lambda: NoTraining(-1), "num_demonstrations must be ≥ 0, got -1"),
        (lambda: NoTraining(1, "left"), "fit must be one of refuse, cut, got 'left'"),
        (lambda: LinearProbe(0.0), "penalty must be a number > 0, got 0.0"),
    ],
)
def test_a_value_outside_its_range_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("arm=adamw", "+task.objective=accuracy"), "task.objective=accuracy has no gradient"),
        (("arm=sgd", "+task.objective=f1"), "set task.objective=cross_entropy"),
        (("arm=sgd", "model.dtype=float16"), "model.dtype must be float32 or bfloat16"),
        (
            ("arm=adamw", "tuning=prefix", "method.gradient_checkpointing=true"),
            "must be false with tuning=prefix",
        ),
        (("arm=linear_probe", "task=copa"), "classes are the same for all examples"),
        (("arm=linear_probe", "task=squad"), "classes are the same for all examples"),
        (
            ("arm=linear_probe", "task.num_train=600", "training.forward_passes=36"),
            "less than the 38",
        ),
        *(
            ((f"tuning={tuning}", "training.points_per_forward=2"), "points_per_forward must be 1")
            for tuning in ("full_last6", "prefix", "prompt", "ia3", "head")
        ),
        (
            ("task=squad", "task.objective=f1", "training.points_per_forward=2"),
            "points_per_forward must be 1 with task.objective=f1",
        ),
        (("arm=in_context", "task.num_train=10"), "must not exceed the task's 10"),
        (("arm=in_context", "task=roberta_sst2"), "must be 0 where the prompt has a mask"),
    ],
)
def test_what_a_method_cannot_do_is_refused_when_it_is_planned(
    overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_plan([*TRIAL, *overrides], "", single=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "num_trials"),
    [("zero_shot", 1), ("in_context", 1), ("linear_probe", 1), ("adamw", 8)],
)
def test_settings_that_mean_nothing_to_a_method_make_no_further_trial(
    arm: str, num_trials: int
) -> None:
    plan = plan_of(SPACE.replace("ARM", arm), f"baseline={arm}")
    assert len(plan.content["cells"]) > num_trials
    assert len(plan.specs) == num_trials


def test_a_plan_of_all_arms_says_what_each_costs() -> None:
    arms = "mezo,adamw,sgd,zero_shot,in_context,linear_probe"
    space = f"space={{arm:[{arms}],training.learning_rate:[1e-2]}}"
    plan = plan_of(space, "task.num_train=160")
    passes = {
        s.arm: o.forward_passes_per_step for s, o in zip(plan.specs, plan.options, strict=True)
    }
    assert passes == {
        "mezo": 2,
        "adamw": 3,
        "sgd": 3,
        "zero_shot": 0,
        "in_context": 0,
        "linear_probe": 10,
    }
    rungs = {spec.arm: spec.rungs for spec in plan.specs}
    assert rungs["zero_shot"] == []
    assert rungs["linear_probe"] == [144]
    assert rungs["adamw"] == rungs["mezo"] == [36, 72, 144]
    assert plan.content["cost"]["forward_passes"] == (2 + 1 + 1) * 144 + 10
    console = Console(file=io.StringIO(), width=160)
    print_plan(plan, console)
    assert isinstance(console.file, io.StringIO)
    (line,) = (s for s in console.file.getvalue().splitlines() if s.strip().startswith("zero_shot"))
    assert line.split() == ["zero_shot", "1", "none", "0", "–", "–", "0", "0.5", "0", "s"]


def test_adamw_in_single_precision_needs_four_copies_of_the_weights() -> None:
    def memory(*overrides: str) -> float:
        return estimate_trial(options_of("tuning=full", "task.max_length=8", *overrides)).memory_gib

    weights = options_of().model.num_parameters * 4 / GIB
    untouched = memory("arm=zero_shot", "training.batch_size=1")
    activations = 8 * 32 * 16 * 4 / GIB
    adamw = memory("arm=adamw", "training.batch_size=1")
    assert adamw - untouched == pytest.approx(3 * weights + 7 * activations)
    lean = memory("arm=adamw", "training.batch_size=1", "method.gradient_checkpointing=true")
    assert lean - untouched == pytest.approx(3 * weights)
    assert memory("arm=sgd", "training.batch_size=1") - untouched == pytest.approx(
        weights + 7 * activations
    )


def test_no_step_of_a_method_without_training_takes_time() -> None:
    cost = estimate_trial(options_of("arm=zero_shot"))
    assert (cost.forward_passes, cost.device_s) == (0, 0)


def test_arms_of_one_method_are_aliases_only_with_the_same_settings(tmp_path: Path) -> None:
    space = "space={arm:[mezo,adamw,sgd,zero_shot,linear_probe],training.learning_rate:[1e-2]}"
    assert plan_of(space, "task.num_train=160").content["aliases"] == []
