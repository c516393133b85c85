"""The command of the next stage is one that the sweep itself understands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from analysis.decision import decide
from analysis.load import load_study
from analysis.stages import _write_finish, plan_next
from kerzoo.records import Row
from sweeps.plan import Plan, check_same_study, confirm_choice, make_plan
from sweeps.reuse import find_reusable


def test_the_command_that_finishes_a_sweep_lifts_the_budget_that_ended_it() -> None:
    plan = {
        "command": "python sweep.py +sweep=pilot budget.wall_time_s=9 budget.price_per_gpu_hour=2",
        "overrides": ["+sweep=pilot", "budget.wall_time_s=9", "budget.price_per_gpu_hour=2"],
        "config": {"budget": {"wall_time_s": 9, "gpu_hours": None, "price_per_gpu_hour": 2}},
    }
    assert _write_finish(plan) == (
        "python sweep.py +sweep=pilot budget.price_per_gpu_hour=2 budget.wall_time_s=null"
    )
    assert _write_finish(plan | {"config": {"budget": {}}}) == plan["command"]


@pytest.mark.slow
def test_the_command_that_confirms_plans_the_best_cells_on_fresh_seeds(tmp_path: Path) -> None:
    overrides = ["+sweep=quickstart", "model=opt-tiny", f"results_dir={tmp_path}"]
    plan = make_plan([*overrides, "report.language=ja"], "python sweep.py +sweep=quickstart")
    plan.write()
    plan.create_trials()
    _finish(plan)
    study = load_study([plan.folder])
    assert study.sweeps[0].plan["config"]["report"] == {"language": "ja"}
    decisions = decide(study)
    (stage,) = plan_next(study, decisions)
    assert (stage.kind, stage.arms, stage.trials, stage.seconds) == ("confirm", 3, 15, 15 * 144.0)
    python, script, *typed = shlex.split(stage.command)
    assert (python, script) == ("python", "sweep.py")
    confirmed = make_plan(typed, stage.command)
    assert confirmed.folder == tmp_path / "quickstart_confirm"
    assert confirmed.sweep.phase == "confirm"
    assert len(confirmed.specs) == 15
    chosen = {
        (standing.arm, cell["learning_rate"], cell["perturbation_scale"])
        for standing in decisions[0].group.standings
        for cell in study.cells[study.cells["setting"].isin(standing.settings)].to_dict("records")
    }
    planned = {
        (s.arm, s.config["training"]["learning_rate"], s.config["training"]["perturbation_scale"])
        for s in confirmed.specs
    }
    assert planned == chosen
    assert {s.config["training"]["seed"] for s in confirmed.specs} == {1, 2, 3, 4, 5}


@pytest.mark.slow
def test_more_seeds_after_both_phases_take_over_those_that_have_run(tmp_path: Path) -> None:
    overrides = ["+sweep=quickstart", "model=opt-tiny", f"results_dir={tmp_path}", "name=both"]
    plan = make_plan([*overrides, "phase=both", "confirm.seeds=4"], "python sweep.py")
    plan.write()
    plan.create_trials()
    _finish(plan.part("screen"))
    confirm = confirm_choice(plan)
    confirm.create_trials()
    _finish(confirm, seed_noise=0.01)
    study = load_study([plan.folder])
    (stage,) = plan_next(study, decide(study))
    assert stage.kind == "more"
    further = make_plan(shlex.split(stage.command)[2:], stage.command)
    check_same_study(further)
    assert further.folder == tmp_path / "both_confirm"
    assert find_reusable(further).keys() == {spec.trial_id for spec in confirm.specs}
    assert len(further.specs) == len(confirm.specs) + stage.trials


def _finish(plan: Plan, seed_noise: float = 0.0) -> None:
    """Records of all trials to their end, each a little better than the one before it."""
    for place, spec in enumerate(plan.specs):
        writer = plan.trial_folder(spec.trial_id).begin_attempt()
        facts = {"arm": spec.arm, "kernel": "x", "seed": 0, "diverged": False}
        noise = seed_noise * (place * 7 % 5)
        for rung in (0, *spec.rungs):
            loss = 0.7 - (0.001 * place + noise) * rung / 144
            counts: Row = {
                "step": rung // 2,
                "rung": rung,
                "forward_passes": rung,
                "dev_loss": loss,
            }
            counts |= {"dev_accuracy": 0.6 + noise} if seed_noise else {}
            writer.append_row({**facts, **counts, "device_time_s": 1.0 * rung, "eval_time_s": 0.0})
        writer.set_status("finished")
