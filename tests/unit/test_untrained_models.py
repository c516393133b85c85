"""A model that is not trained needs the val file alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from public_rows import write_opt_tasks

from kerzoo.tasks import Task
from sweeps.compose import ConfigError
from sweeps.plan import Plan, make_plan


@pytest.fixture
def val_alone(tmp_path: Path) -> Path:
    folder = write_opt_tasks(tmp_path, num_val=12) / "BoolQ"
    (folder / "train.jsonl").unlink()
    return folder


def plan_of(folder: Path, arm: str, *overrides: str) -> Plan:
    sizes = ("task.num_train=16", "task.num_dev=4", "task.num_test=6")
    own = (f"arm={arm}", "model=opt-tiny", "task=boolq", f"task.data_dir={folder}")
    return make_plan([*own, *sizes, *overrides], "test", single=True)


def task_of(plan: Plan) -> Task:
    (options,) = plan.options
    return options.task


@pytest.mark.parametrize("phase", ["screen", "confirm"])
def test_zero_shot_asks_for_the_val_file_alone(val_alone: Path, phase: str) -> None:
    plan_of(val_alone, "zero_shot", f"phase={phase}").check_available()


@pytest.mark.parametrize("arm", ["mezo", "linear_probe", "in_context"])
def test_whatever_learns_from_examples_asks_for_train(val_alone: Path, arm: str) -> None:
    extra = ["method.num_demonstrations=2"] if arm == "in_context" else []
    with pytest.raises(ConfigError, match=r"no train\.jsonl"):
        plan_of(val_alone, arm, *extra).check_available()


def test_dev_is_then_the_other_end_of_val_and_says_so(val_alone: Path) -> None:
    plan = plan_of(val_alone, "zero_shot")
    task, model = task_of(plan), plan.options[0].model
    dev, test = task.examples("dev"), task.examples("test")
    assert (len(dev), len(test)) == (4, 6)
    assert not {str(e) for e in dev} & {str(e) for e in test}
    sequences = task.encode(model.load("cpu").tokenizer, "dev").sequences
    (line,) = task.describe_losses("dev", sequences)
    assert line == "boolq dev: drawn from the val data, there being no train data"


def test_more_dev_examples_than_val_has_are_refused(val_alone: Path) -> None:
    task = task_of(plan_of(val_alone, "zero_shot", "task.num_dev=13"))
    with pytest.raises(ValueError, match=r"task\.num_dev must not exceed the 12 labelled .* val"):
        task.examples("dev")
