"""The sweeps that make the papers' tables: their plans, and a rehearsal on tiny models."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from public_rows import OPT_TASKS, ROBERTA_TASKS, write_opt_tasks, write_roberta_tasks
from rich.console import Console

from analysis import build_report
from kerzoo.records import TrialSpec
from kerzoo.training import run_trials
from sweeps.plan import Plan, make_plan
from sweeps.tables import print_plan

TINY = ("training.batch_size=2", "training.forward_passes=12", "training.rungs=[0.5,1.0]")
OPT_GRIDS = {
    "full": (1e-3, {1e-6, 1e-7}),
    "lora": (1e-2, {1e-4, 5e-5}),
    "prefix": (1e-1, {1e-2, 1e-3}),
}


def plan_of(sweep: str, *overrides: str) -> Plan:
    return make_plan([f"+sweep={sweep}", *overrides], f"python sweep.py +sweep={sweep}")


def check_grids(plan: Plan, grids: dict[str, tuple[float, set[float]]]) -> None:
    for tuning, (scale, rates) in grids.items():
        mine = [
            o
            for s, o in zip(plan.specs, plan.options, strict=True)
            if s.choices["tuning"] == tuning
        ]
        assert {o.training.perturbation_scale for o in mine} == {scale}
        assert {o.training.learning_rate for o in mine} == rates


def check_shown(plan: Plan, *parts: str) -> None:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    print_plan(plan, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for part in (*parts, "trainable", "GiB a trial", "GPU time", "FLOP/s"):
        assert part in shown


@pytest.mark.slow
def test_the_plan_of_the_opt_table_has_the_protocols_numbers() -> None:
    plan = plan_of("table_opt2.7b", "arm=mezo")
    assert len(plan.specs) == 11 * (2 + 2 + 2) * 5
    assert [c["values"]["task"] for c in plan.content["cells"][::10]][:11] == OPT_TASKS
    assert {spec.phase for spec in plan.specs} == {"confirm"}
    assert Counter(o.training.seed for o in plan.options) == dict.fromkeys(range(5), 66)
    assert {o.num_steps for o in plan.options} == {20_000}
    assert {o.training.batch_size for o in plan.options} == {16}
    assert {tuple(o.training.nominal_rungs) for o in plan.options} == {
        (8_000, 16_000, 24_000, 32_000, 40_000)
    }
    assert {(o.model.name, o.model.dtype) for o in plan.options} == {("opt-2.7b", "float16")}
    check_grids(plan, OPT_GRIDS)
    check_shown(plan, "330 trials", "13,200,000 forward passes")


@pytest.mark.slow
def test_the_plan_of_the_roberta_table_has_the_protocols_numbers() -> None:
    plan = plan_of("table_roberta_large", "arm=mezo")
    assert len(plan.specs) == 6 * (3 + 3 + 3) * 5
    assert {o.task.name for o in plan.options} == set(ROBERTA_TASKS)
    draws = Counter(o.task.data_seed for o in plan.options)
    assert draws == dict.fromkeys((13, 21, 42, 87, 100), 54)
    assert {o.task.shots for o in plan.options} == {16}
    assert {o.num_steps for o in plan.options} == {100_000}
    assert {o.training.batch_size for o in plan.options} == {64}
    assert plan.content["cost"]["seeds"] == 5
    check_grids(plan, {"full": (1e-3, {1e-7, 1e-6, 1e-5})})
    check_shown(plan, "270 trials", "54,000,000 forward passes")


@pytest.mark.slow
def test_the_tables_have_the_papers_baselines_each_with_its_own_grid() -> None:
    plan = plan_of("table_opt2.7b", "training.seed=0", "task=rte")
    trainers, tunings = {"mezo", "kerzoo_paper", "kerzoo_code"}, ("full", "lora", "prefix")
    counts = Counter(spec.arm for spec in plan.specs)
    assert counts == {
        **dict.fromkeys(trainers, 3 * 2),
        "zero_shot": 1,
        "in_context": 1,
        "linear_probe": 3,
        "adamw": 3 * 3,
    }
    pairs = list(zip(plan.specs, plan.options, strict=True))
    first_order = [(s, o) for s, o in pairs if s.arm == "adamw"]
    assert {s.choices["tuning"] for s, _ in first_order} == set(tunings)
    assert {o.num_steps for _, o in first_order} == {625}
    assert {o.training.batch_size for _, o in first_order} == {8}
    assert {o.model.dtype for _, o in first_order} == {"bfloat16"}
    shown = [o for s, o in pairs if s.arm == "in_context"]
    assert {o.method.demonstrations for o in shown} == {(32, "cut")}
    assert {o.task.max_length for o in shown} == {2048}
    check_shown(plan, "32 trials")


@pytest.mark.slow
def test_the_roberta_table_takes_512_examples_a_class_under_another_name() -> None:
    plan = plan_of(
        "table_roberta_large",
        "task=roberta_sst2",
        "task.data_seed=13",
        "task.shots=512",
        "name=table_roberta_large_k512",
    )
    counts = Counter(spec.arm for spec in plan.specs)
    assert {counts.pop(arm) for arm in ("mezo", "kerzoo_paper", "kerzoo_code")} == {9}
    assert counts == {"zero_shot": 1, "linear_probe": 3, "adamw": 9 + 9 + 3}
    assert {o.task.shots for o in plan.options} == {512}
    assert {o.task.num_examples("train") for o in plan.options} == {1024}
    first_order = [o for s, o in zip(plan.specs, plan.options, strict=True) if s.arm == "adamw"]
    assert {o.num_steps for o in first_order} == {1000}
    assert plan.folder.name == "table_roberta_large_k512"


def choose_pairwise(plan: Plan, *once: str) -> list[TrialSpec]:
    """Trials of a plan in which every two of arm, tuning and task that meet in it meet.

    Greedy: always the trial with the most new pairs, the first of equals.

    Args:
        plan: The plan.
        once: Arms of which all trials are taken.
    """
    pairs = {
        spec.trial_id: set(
            itertools.combinations(
                enumerate((spec.arm, spec.choices["tuning"], spec.config["task"]["name"])), 2
            )
        )
        for spec in plan.specs
    }
    chosen = [spec for spec in plan.specs if spec.arm in once]
    met = set().union(*(pairs[spec.trial_id] for spec in chosen))
    while True:
        best = max(plan.specs, key=lambda spec: len(pairs[spec.trial_id] - met))
        if pairs[best.trial_id] <= met:
            return chosen
        met |= pairs[best.trial_id]
        chosen.append(best)


def rehearse(plan: Plan, specs: Sequence[TrialSpec]) -> pd.DataFrame:
    """Run some trials of a plan without Ray, and report; the table of scores in long form."""
    plan.check_available()
    plan.write()
    plan.create_trials()
    assert run_trials(specs, plan.folder) == 0
    assert {plan.trial_folder(spec.trial_id).status for spec in specs} == {"finished"}
    build_report([plan.folder])
    table = pd.read_csv(
        plan.folder / "report" / "tables" / "scores_by_task.csv", keep_default_na=False
    )
    assert set(table["split"]) == {"test"}
    tasks = [name for name in table.columns if f"{name}_sd" in table.columns]
    long = table.melt(["arm", "tuning"], tasks, var_name="task", value_name="score")
    return long[long["score"] != ""].astype({"score": float})


def met_in(table: pd.DataFrame) -> set[tuple[str, str]]:
    """All pairs of arm, tuning and task that have a score."""
    names = ("arm", "tuning", "task")
    pairs = itertools.combinations(names, 2)
    return {pair for a, b in pairs for pair in zip(table[a], table[b], strict=True)}


TRAINING_ARMS = ("mezo", "kerzoo_paper", "kerzoo_code", "adamw")
TUNINGS = ("full", "lora", "prefix")
PINNED = ("training.learning_rate=2e-3", "training.device=cpu", "task.max_length=64", *TINY)


def all_pairs(tasks: Sequence[str], untrained: Sequence[str]) -> set[tuple[str, str]]:
    """What must meet: every arm with every task, and every tuning with both."""
    tuned = {*itertools.product(TRAINING_ARMS, TUNINGS), *itertools.product(TUNINGS, tasks)}
    return tuned | set(itertools.product([*TRAINING_ARMS, *untrained], tasks))


@pytest.mark.slow
def test_the_opt_table_is_rehearsed_with_every_task_arm_and_tuning(
    tmp_path: Path, own_cache: Path
) -> None:
    plan = plan_of(
        "table_opt2.7b",
        "model=opt-tiny",
        "model.num_layers=2",
        "training.seed=0",
        f"data_root={write_opt_tasks(tmp_path / 'data', num_train=40)}",
        f"results_dir={tmp_path}",
        "task.num_train=32",
        "task.num_dev=4",
        "task.num_test=4",
        *PINNED,
        "training.forward_passes=16",
    )
    chosen = choose_pairwise(plan)
    assert len(chosen) < 100
    table = rehearse(plan, chosen)
    assert all_pairs(OPT_TASKS, ["zero_shot", "in_context"]) <= met_in(table)
    assert ("linear_probe", "boolq") in met_in(table)
    assert set(table.loc[~table["arm"].isin(TRAINING_ARMS), "tuning"]) == {"none"}


@pytest.mark.slow
def test_the_roberta_table_is_rehearsed_with_every_task_arm_and_tuning(
    tmp_path: Path, own_cache: Path
) -> None:
    plan = plan_of(
        "table_roberta_large",
        "model=roberta-tiny",
        "model.num_layers=2",
        f"data_root={write_roberta_tasks(tmp_path / 'data')}",
        f"results_dir={tmp_path}",
        "task.shots=4",
        "task.num_test=6",
        *PINNED,
        "training.batch_size=3",
    )
    chosen = choose_pairwise(plan, "zero_shot")
    assert len(chosen) < 100
    table = rehearse(plan, chosen)
    assert all_pairs(ROBERTA_TASKS, ["zero_shot", "linear_probe"]) <= met_in(table)
    scores = pd.read_csv(plan.folder / "report" / "tables" / "scores_by_task.csv")
    (row,) = scores[scores["arm"] == "zero_shot"].to_dict("records")
    assert (str(row["seeds"]), pd.notna(row["roberta_trec_sd"])) == ("5", True)
