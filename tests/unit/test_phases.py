"""Screening and confirming plans; sweeps over several tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from public_rows import write_opt_tasks

from kerzoo.records import write_json
from sweeps import cost
from sweeps.compose import ConfigError
from sweeps.halving import HalvingRule
from sweeps.plan import Plan, check_same_study, make_plan
from sweeps.schedulers import Entrant, Race, StratifiedASHA

ONE = ("model=opt-tiny", "+sweep=quickstart", "arm=mezo", "training.learning_rate=5e-3")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_opt_tasks(tmp_path_factory.mktemp("public"))


def plan_of(*overrides: str) -> Plan:
    return make_plan([*ONE, *overrides], "python sweep.py")


def plan_of_tasks(data: Path, folder: Path, tasks: str) -> Plan:
    return make_plan(
        [
            "model=opt-tiny",
            "+sweep=quickstart",
            "space={arm:[mezo],training.learning_rate:[1e-2],training.perturbation_scale:[1e-2]}",
            f"+space.task=[{tasks}]",
            f"data_root={data}",
            f"results_dir={folder}",
            "name=several",
        ],
        "python sweep.py",
    )


def test_a_confirmation_with_early_stopping_is_refused_with_what_helps() -> None:
    with pytest.raises(ConfigError, match="set scheduler=fifo, got asha"):
        plan_of("phase=confirm")


def test_a_phase_is_screen_confirm_or_both() -> None:
    with pytest.raises(ConfigError, match="phase must be one of screen, confirm, both; got 'test'"):
        plan_of("phase=test")


def test_a_confirmation_without_test_examples_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.num_test: .* at least 1 for movie_reviews"):
        plan_of("phase=confirm", "scheduler=fifo", "task.num_test=0")


def test_all_baselines_can_be_confirmed() -> None:
    arms = ["mezo", "adamw", "sgd", "zero_shot", "in_context", "linear_probe"]
    plan = make_plan(
        [
            "model=opt-tiny",
            "+sweep=quickstart",
            f"space.arm=[{','.join(arms)}]",
            "phase=confirm",
            "scheduler=fifo",
        ],
        "python sweep.py",
    )
    assert {spec.arm for spec in plan.specs} == set(arms)
    assert {spec.phase for spec in plan.specs} == {"confirm"}


def test_confirming_changes_no_id_and_stands_in_the_command_of_a_trial() -> None:
    screened, confirmed = plan_of(), plan_of("phase=confirm", "scheduler=fifo")
    assert [s.trial_id for s in confirmed.specs] == [s.trial_id for s in screened.specs]
    assert {s.phase for s in screened.specs} == {"screen"}
    assert {s.phase for s in confirmed.specs} == {"confirm"}
    spec = confirmed.specs[0]
    assert "phase=confirm" in spec.overrides
    (again,) = make_plan(spec.overrides, "", single=True).specs
    assert (again.trial_id, again.phase) == (spec.trial_id, "confirm")


def test_the_test_files_are_looked_for_before_a_confirmation_starts(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text((data / "COPA" / "train.jsonl").read_text())
    local = ("task=copa", f"task.data_dir={tmp_path}", "scheduler=fifo")
    plan_of(*local).check_available()
    with pytest.raises(ConfigError, match=r"no val\.jsonl"):
        plan_of(*local, "phase=confirm").check_available()


def test_a_confirmation_does_not_join_the_folder_of_a_screen(tmp_path: Path) -> None:
    screened = plan_of(f"results_dir={tmp_path}")
    pretend_results(screened)
    check_same_study(plan_of(f"results_dir={tmp_path}"))
    with pytest.raises(ConfigError, match="phase was screen and is now confirm"):
        check_same_study(plan_of(f"results_dir={tmp_path}", "phase=confirm", "scheduler=fifo"))


def pretend_results(plan: Plan) -> None:
    trial = plan.folder / "trials" / "x"
    trial.mkdir(parents=True)
    (trial / "records.jsonl").touch()
    write_json(plan.folder / "plan.json", plan.content)


def test_each_task_reads_its_own_folder_of_the_data_root(data: Path, tmp_path: Path) -> None:
    plan = plan_of_tasks(data, tmp_path, "sst2,rte,movie_reviews")
    found = {o.task.name: o.task.data_dir for o in plan.options}
    assert found == {
        "sst2": str(data / "SST-2"),
        "rte": str(data / "RTE"),
        "movie_reviews": None,  # it comes with a package
    }
    rte = next(s for s in plan.specs if s.choices["task"] == "rte")
    (again,) = make_plan(rte.overrides, "", single=True).specs
    assert again.trial_id == rte.trial_id


def test_a_tasks_own_folder_goes_before_the_data_root(data: Path) -> None:
    own = f"task.data_dir={data / 'RTE'}"
    plan = plan_of("task=rte", own, "data_root=/nowhere")
    assert {o.task.data_dir for o in plan.options} == {str(data / "RTE")}


def test_a_folder_takes_fewer_or_more_tasks_of_the_same_data_and_no_others(
    data: Path, tmp_path: Path
) -> None:
    pretend_results(plan_of_tasks(data, tmp_path, "sst2,rte"))
    check_same_study(plan_of_tasks(data, tmp_path, "rte"))
    check_same_study(plan_of_tasks(data, tmp_path, "sst2,rte,copa"))
    with pytest.raises(ConfigError, match="task was"):
        check_same_study(plan_of_tasks(data, tmp_path, "copa"))
    other = write_opt_tasks(tmp_path / "other", num_train=17)
    with pytest.raises(ConfigError, match="data was"):
        check_same_study(plan_of_tasks(other, tmp_path, "sst2,rte"))


def test_trials_of_different_tasks_or_tunings_never_stop_each_other() -> None:
    strata = {"a": "sst2", "b": "sst2", "c": "rte", "d": "rte"}
    race = Race(
        StratifiedASHA("asha", reduction_factor=2.0, survivors_per_arm=0),
        [Entrant(trial, "mezo", (36, 144), (36,), name) for trial, name in strata.items()],
    )
    losses = {"a": 0.1, "c": 5.0, "b": 0.2, "d": 4.0}
    for trial, loss in losses.items():
        race.arrive(trial, {"rung": 36, "dev_loss": loss})
    decided = {trial: race.standing(trial) for trial in losses}
    assert decided == {"a": "continue", "c": "continue", "b": "stop", "d": "continue"}


def test_the_expected_cost_of_early_stopping_is_that_of_each_task_alone(
    data: Path, tmp_path: Path
) -> None:
    plan = plan_of_tasks(data, tmp_path, "sst2,rte")
    rule = HalvingRule(3.0)
    both = cost.summarise(plan.options * 6, rule, num_arms=1, num_seeds=1)
    alone = [
        cost.summarise([o] * 6, rule, num_arms=1, num_seeds=1)["forward_passes_expected"]
        for o in plan.options
    ]
    assert both["forward_passes_expected"] == sum(alone)
