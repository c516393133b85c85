"""search=optuna: what is asked for, when, from what, and never again."""

from __future__ import annotations

import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeps.check import Check
from sweeps.compose import ConfigError
from sweeps.events import EventLog, read_events
from sweeps.plan import Plan, ask_generation, confirm_choice, make_plan, recall_preparation
from sweeps.schedulers import Race, entrants_of
from sweeps.tables import print_plan

RATE, SCALE = "training.learning_rate", "training.perturbation_scale"
SPACE = f"{RATE}:{{low:1e-4,high:1e-1,log:true}},{SCALE}:{{low:1e-3,high:1e-1,log:true}}"
OPTUNA = (
    "+sweep=quickstart",
    "model=opt-tiny",
    "search=optuna",
    "search.num_samples=10",
    "search.generation=4",
    f"space={{arm:[mezo,legendre2],{SPACE}}}",
)
DIRECTIONS = "training.num_directions:{low:1,high:30,integer:true}"
RUNGS = (36, 72, 144)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Plans lie below the working folder, so that equal ones are composed once."""
    monkeypatch.chdir(tmp_path)


def plan_of(folder: Path, *overrides: str) -> Plan:
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    return make_plan([*OPTUNA, *overrides], "python sweep.py")


def planted(values: dict[str, Any]) -> float:
    """A dev loss with its optimum at a learning rate of 1e-2 and an ε of 3e-2."""
    rate, scale = (math.log10(values[key.partition(".")[2]]) for key in (RATE, SCALE))
    return 0.5 + 0.1 * (rate + 2) ** 2 + 0.01 * (scale + 1.5) ** 2


def end(plan: Plan, loss: Callable[[dict[str, Any]], float] = planted, **update: str) -> None:
    """Leave what trials leave that run to their end."""
    plan.write()
    plan.create_trials()
    for spec in plan.specs:
        folder = plan.trial_folder(spec.trial_id)
        if spec.phase == "screen" and folder.status == "planned":
            value = loss(spec.config["training"])
            rows = [
                {"rung": r, "step": r // 2, "forward_passes": r, "dev_loss": value}
                | {"diverged": False}
                for r in (0, *RUNGS)
            ]
            folder.records_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            folder.update(**{"status": "finished", **update})


def go_on(plan: Plan) -> bool:
    """Ask for a generation; whether there is one."""
    return ask_generation(plan, print) is not None


def run_through(plan: Plan) -> int:
    """All generations; returns how many there were."""
    number = 1
    end(plan)
    while go_on(plan):
        end(plan)
        number += 1
    return number


def points_of(plan: Plan) -> dict[tuple[str, int], set[tuple[float, float]]]:
    """Arm and generation → learning rates and ε."""
    found: dict[tuple[str, int], set[tuple[float, float]]] = {}
    for cell in plan.content["cells"]:
        if number := plan.content["generations"].get(cell["trial_id"]):
            point = cell["values"][RATE], cell["values"][SCALE]
            found.setdefault((cell["arm"], number), set()).add(point)
    return found


def test_the_first_generation_is_the_same_for_all_arms_and_the_later_ones_are_not(
    tmp_path: Path,
) -> None:
    plan = plan_of(tmp_path, "seeds=2")
    assert len(plan.specs) == 2 * 4 * 2
    assert run_through(plan) == 3
    points = points_of(plan)
    assert {key: len(found) for key, found in points.items()} == {
        (arm, n): size for arm in ("mezo", "legendre2") for n, size in ((1, 4), (2, 4), (3, 2))
    }
    assert points["mezo", 1] == points["legendre2", 1]
    assert not points["mezo", 2] & points["legendre2", 2]
    seeds = Counter(spec.config["training"]["seed"] for spec in plan.specs)
    assert seeds == {0: 20, 1: 20}


def test_the_same_records_ask_for_the_same_points_and_another_seed_for_others(
    tmp_path: Path,
) -> None:
    plans = []
    for name in ("one", "two"):
        plans.append(plan_of(tmp_path / name))
        run_through(plans[-1])
    other = plan_of(tmp_path / "three", "search.seed=1")
    run_through(other)
    assert plans[0].content["studies"] == plans[1].content["studies"]
    assert [s.trial_id for s in plans[0].specs] == [s.trial_id for s in plans[1].specs]
    assert not set().union(*points_of(other).values()) & set().union(*points_of(plans[0]).values())


def test_a_resume_makes_the_plan_that_was_killed_whatever_the_records_say_by_then(
    tmp_path: Path,
) -> None:
    plan = plan_of(tmp_path)
    end(plan)
    assert go_on(plan)
    (plan.folder / "trials").rename(plan.folder / "lost")  # they would lead elsewhere now
    again = plan_of(tmp_path)
    recall_preparation(again)
    volatile = ("created",)
    kept = [{k: v for k, v in p.content.items() if k not in volatile} for p in (plan, again)]
    assert kept[0] == kept[1]
    assert [s.trial_id for s in again.specs] == [s.trial_id for s in plan.specs]
    on_disk = json.loads((plan.folder / "plan.json").read_text())
    assert [t["trial_id"] for t in on_disk["trials"]] == [s.trial_id for s in plan.specs]


def test_a_killed_driver_asks_for_the_generation_that_it_would_have_asked_for(
    tmp_path: Path,
) -> None:
    through = plan_of(tmp_path / "through")
    run_through(through)
    killed = plan_of(tmp_path / "killed")
    end(killed)
    assert go_on(killed)
    killed = plan_of(tmp_path / "killed")
    assert run_through(killed) == 2
    assert killed.content["studies"] == through.content["studies"]


def test_more_points_go_on_with_what_is_known_and_fewer_are_its_beginning(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    run_through(plan)
    known = {spec.trial_id for spec in plan.specs}
    more = plan_of(tmp_path, "search.num_samples=13", "search.generation=2")
    assert {spec.trial_id for spec in more.specs} == known
    assert run_through(more) == 1 + 2
    assert known < {spec.trial_id for spec in more.specs}
    assert len(more.specs) == 2 * 13
    fewer = plan_of(tmp_path, "search.num_samples=5")
    assert len(fewer.specs) == 2 * 5
    assert {spec.trial_id for spec in fewer.specs} < known
    assert not go_on(fewer)


def test_another_search_in_the_folder_forgets_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    run_through(plan)
    grid = plan_of(tmp_path, "search=grid", f"space.{RATE}=[1e-2]", f"space.{SCALE}=[1e-2]")
    recall_preparation(grid)
    grid.write()
    assert "search" not in grid.content
    assert [s.trial_id for s in plan_of(tmp_path).specs] == [s.trial_id for s in plan.specs]


def test_a_space_with_another_range_is_another_study(tmp_path: Path) -> None:
    run_through(plan_of(tmp_path))
    wider = plan_of(tmp_path, f"space.{SCALE}={{low:1e-4,high:1e-1,log:true}}")
    assert len(wider.specs) == 2 * 4
    assert len(wider.content["studies"]) == 4


def test_another_tuning_is_another_study_and_a_pinned_arm_the_same(tmp_path: Path) -> None:
    run_through(plan_of(tmp_path))
    assert len(plan_of(tmp_path, "tuning=full").specs) == 2 * 4
    assert len(plan_of(tmp_path, "arm=legendre2", "baseline=legendre2").specs) == 10


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


def test_excluded_points_are_asked_for_again(tmp_path: Path) -> None:
    best = "{training.learning_rate:{low:5e-3,high:2e-2}}"
    plan = plan_of(tmp_path, f"exclude=[{best}]")
    assert run_through(plan) > 1
    points = set().union(*points_of(plan).values())
    assert not [rate for rate, _ in points if 5e-3 <= rate <= 2e-2]
    counts = Counter(spec.arm for spec in plan.specs)
    assert counts == {"mezo": 10, "legendre2": 10}


def test_arms_that_are_the_same_are_told_of_in_every_generation(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, f"space=[{{arm:[mezo,legendre4,kerzoo_paper],{SPACE}}}]")
    assert plan.content["aliases"] == [["kerzoo_paper", "legendre4"]]
    end(plan)
    assert go_on(plan)
    assert plan.content["aliases"] == [["kerzoo_paper", "legendre4"]]


def test_a_space_that_has_no_further_points_ends(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "space=[{arm:[mezo],tuning:{choices:[lora,full,lora_last6]}}]")
    run_through(plan)
    assert {spec.choices["tuning"] for spec in plan.specs} == {"lora", "full", "lora_last6"}
    assert len(plan.specs) == 3


def test_points_that_cannot_be_trials_are_told_of_and_asked_for_again(tmp_path: Path) -> None:
    space = f"space=[{{arm:[mezo],{SPACE},{DIRECTIONS}}}]"
    with pytest.raises(ConfigError, match="num_directions"):  # rungs below one step
        plan_of(tmp_path, space, "search.generation=16", "search.num_samples=16")
    plan = plan_of(tmp_path, space, "search.seed=1", "search.generation=1", "search.num_samples=8")
    end(plan)
    messages: list[str] = []
    while ask_generation(plan, messages.append):
        end(plan)
    assert len(plan.specs) == 8
    assert messages
    assert "points were refused and asked for again; the first: " in messages[0]


def test_where_every_trial_failed_nothing_more_is_asked_for(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    end(plan, status="failed")
    assert not go_on(plan)
    end(other := plan_of(tmp_path / "other"), status="diverged")
    assert go_on(other)


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


def race_through(plan: Plan) -> None:
    """Run the planned trials rung by rung, as the scheduler says."""
    log = EventLog(plan.folder / "events.jsonl")
    race = Race(plan.sweep.scheduler, entrants_of(plan.sweep.scheduler, plan.content), log)
    folders = {s.trial_id: plan.trial_folder(s.trial_id) for s in plan.specs}
    race.resume({trial: folder.rows() for trial, folder in folders.items()})
    running = [s for s in plan.specs if folders[s.trial_id].status == "planned"]
    for rung in RUNGS:
        for spec in [s for s in running if race.standing(s.trial_id) == "continue"]:
            row = {"rung": rung, "step": rung // 2, "forward_passes": rung, "diverged": False}
            row["dev_loss"] = planted(spec.config["training"])
            with folders[spec.trial_id].records_path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            race.arrive(spec.trial_id, row)
    for spec in running:
        stopped = race.standing(spec.trial_id) == "stop"
        folders[spec.trial_id].update(status="stopped" if stopped else "finished")


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


ENTRY = {"listed": {}, "drawn": {"a": {}}, "seed": 0, "context": ""}


@pytest.mark.parametrize(
    "studies",
    [
        3,
        [{}],
        [{**ENTRY, "generations": [[{"a": 2.0}]]}],
        [{**ENTRY, "generations": [[{"b": 0.5}]]}],
        [{**ENTRY, "generations": [[{"a": "0.5"}]]}],
        [{**ENTRY, "generations": []}, {**ENTRY, "generations": []}],
    ],
)
def test_a_plan_file_with_other_studies_is_refused(studies: Any, tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    plan.write(studies=studies)
    with pytest.raises(ConfigError, match="not a plan of this version; use name= or fresh=true"):
        plan_of(tmp_path)
