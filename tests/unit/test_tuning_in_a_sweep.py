"""search=optuna in a sweep: its phases, schedulers and records, and what is refused."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from tuned_plans import (
    SPACE,
    end,
    go_on,
    plan_of,
    planted,
    race_through,
    run_through,
)

from analysis.decision import decide
from analysis.load import load_study
from analysis.stages import plan_next
from sweeps import phases
from sweeps.check import Check
from sweeps.compose import ConfigError
from sweeps.events import read_events
from sweeps.plan import (
    Plan,
    confirm_choice,
    recall_choice,
)
from sweeps.tables import print_plan


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Plans lie below the working folder, so that equal ones are composed once."""
    monkeypatch.chdir(tmp_path)


def test_plan_and_trials_say_that_cells_were_chosen_for_tuning(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    end(plan)
    assert go_on(plan)
    plan.create_trials()
    content = json.loads((plan.folder / "plan.json").read_text())
    assert content["search"]["name"] == "optuna"
    assert content["search"]["purpose"] == "tuning, not sensitivity"
    for spec in plan.specs:
        assert plan.trial_folder(spec.trial_id).read()["search"] == {
            "name": "optuna",
            "purpose": "tuning, not sensitivity",
            "generation": content["generations"][spec.trial_id],
        }
    (event,) = read_events(plan.folder / "events.jsonl", "generation")
    assert (event["number"], event["points"], event["trials"]) == (2, 8, 8)


def test_the_printed_plan_says_that_later_points_are_not_known_and_prices_them(
    tmp_path: Path,
) -> None:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    plan = plan_of(tmp_path)
    print_plan(plan, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "optuna, for tuning, not sensitivity; 10 points for each arm" in printed
    assert "the points of 8 trials of at most 20 are known" in printed
    assert "8 cells, 20 trials" in printed
    assert plan.content["cost"]["forward_passes"] == 20 * 144
    run_through(plan)
    assert plan.content["search"]["unknown"] == []
    assert plan.content["cost"]["forward_passes"] == 20 * 144


def test_arms_that_are_the_same_are_told_of_in_every_generation(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, f"space=[{{arm:[mezo,legendre4,kerzoo_paper],{SPACE}}}]")
    assert plan.content["aliases"] == [["kerzoo_paper", "legendre4"]]
    end(plan)
    assert go_on(plan)
    assert plan.content["aliases"] == [["kerzoo_paper", "legendre4"]]


def test_an_arm_to_which_all_points_are_the_same_has_one_trial(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, f"space=[{{arm:[mezo,zero_shot],{SPACE}}}]", "phase=both")
    assert Counter(spec.arm for spec in plan.specs) == {"mezo": 4, "zero_shot": 1}
    assert [entry["trials"] for entry in plan.content["search"]["unknown"]] == [6]
    run_through(plan)
    assert Counter(spec.arm for spec in plan.specs) == {"mezo": 10, "zero_shot": 1}


def test_where_every_trial_failed_nothing_more_is_asked_for(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    end(plan, status="failed")
    assert not go_on(plan)
    end(other := plan_of(tmp_path / "other"), status="diverged")
    assert go_on(other)


def test_a_report_between_generations_says_that_the_sweep_is_not_finished(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    end(plan)
    stages = []
    for _ in range(3):
        study = load_study([plan.folder])
        (stage,) = plan_next(study, decide(study))
        stages.append((stage.kind, stage.trials))
        go_on(plan)
        end(plan)
    study = load_study([plan.folder])
    (last,) = plan_next(study, decide(study))
    assert stages == [("finish", 12), ("finish", 4), (last.kind, last.trials)]
    assert last.kind == "confirm"


@pytest.mark.parametrize("phase", ["screen", "both"])
def test_a_stop_that_is_requested_while_a_part_ends_begins_no_other(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[bool] = []

    def run_to_the_end(part: Plan, console: Console) -> int:
        end(part)
        if requests and requests.pop():
            (part.folder / ".stop").touch()
        return 0

    monkeypatch.setattr(phases, "run_plan", run_to_the_end)
    console = Console(file=io.StringIO())
    for size in (8, 16, 20):  # the next generation is planned by then
        plan = plan_of(tmp_path, f"phase={phase}")
        requests.append(True)
        code = phases.run_phases(plan, console)
        assert not (plan.folder / ".stop").exists()
        statuses = Counter(plan.trial_folder(s.trial_id).status for s in plan.specs)
        assert statuses["finished"] == size
        assert code == (0 if size == 20 and phase == "screen" else 130)
    plan = plan_of(tmp_path, f"phase={phase}", "search.num_samples=12")
    recall_choice(plan)
    assert phases.run_phases(plan, console) == 0
    assert Counter(s.phase for s in plan.specs)["screen"] == 24


def test_the_best_of_all_generations_is_confirmed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "phase=both")
    run_through(plan)
    losses = {s.trial_id: planted(s.config["training"]) for s in plan.specs if s.arm == "mezo"}
    part = confirm_choice(plan)
    assert len(part.specs) == 2 * 5
    chosen = next(c for c in plan.content["confirm"]["chosen"] if c["arm"] == "mezo")
    assert chosen["trial_ids"] == [min(losses, key=lambda trial: losses[trial])]
    assert plan.content["generations"].keys() == {s.trial_id for s in plan.part("screen").specs}


def test_a_fresh_sweep_goes_on_with_its_own_points(tmp_path: Path) -> None:
    run_through(plan_of(tmp_path))
    fresh = plan_of(tmp_path, "fresh=true")
    assert len(fresh.specs) == 8
    fresh.folder.rename(tmp_path / "archived")
    assert run_through(fresh) == 3
    assert len(fresh.specs) == 20


def test_generations_are_judged_apart_and_every_decision_holds(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "scheduler=halving", "scheduler.survivors_per_arm=0", "seeds=2")
    while True:
        plan.write()
        plan.create_trials()
        race_through(plan)
        if not go_on(plan):
            break
    check = Check(plan.folder)
    assert list(check.problems()) == []
    assert check.num_decisions > 20
    strata = Counter(name.partition(" · generation ")[2] for name in plan.content["strata"])
    assert strata == {"": 1, "2": 1, "3": 1}
    for event in read_events(plan.folder / "events.jsonl", "decision"):
        numbers = {plan.content["generations"][t] for t in (event["trial_id"], *event["compared"])}
        assert len(numbers) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.generation=0"], r"search\.generation must be ≥ 1, got 0"),
        (["search.num_samples=0"], r"search\.num_samples must be ≥ 1, got 0"),
        (["space=[{arm:[mezo]}]"], "search=optuna: no key of the space is drawn from"),
        (["phase=confirm", "scheduler=fifo"], "search=optuna: .* confirms nothing; set phase=both"),
        (
            ["+space.training.seed={low:0,high:99,integer:true}"],
            r"space\.training\.seed: seeds are averaged over, not tuned; list them",
        ),
        (["exclude=[{arm:[mezo,legendre2]}]"], "exclude: leaves none of the first points"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(tmp_path, *overrides)


def test_without_optuna_the_search_is_refused_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="optuna is not installed; `pip install"):
        plan_of(tmp_path)
