"""A screen and its confirmation in one plan: what is chosen, when, and never again."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kerzoo.records import write_json
from sweeps.compose import ConfigError
from sweeps.events import read_events
from sweeps.plan import (
    Plan,
    check_same_study,
    confirm_choice,
    make_plan,
    recall_choice,
    recall_preparation,
)
from sweeps.plan.confirm import Candidate, best_of
from sweeps.schedulers import entrants_of
from sweeps.tables import print_plan

BOTH = ("+sweep=quickstart", "model=opt-tiny", "phase=both", "seeds=2")
RUNGS = (36, 72, 144)


def plan_of(folder: Path, *overrides: str) -> Plan:
    return make_plan([*BOTH, f"results_dir={folder}", *overrides], "python sweep.py")


def row_at(rung: int, loss: float | None) -> dict[str, Any]:
    return {"rung": rung, "step": rung // 2, "dev_loss": loss, "diverged": loss is None}


def rows_of(*losses: float | None) -> list[dict[str, Any]]:
    """Step 0 and then a row for each loss; None where the trial diverged."""
    return [row_at(0, 1.0), *(row_at(r, loss) for r, loss in zip(RUNGS, losses, strict=False))]


def candidate(*trials: str) -> Candidate:
    return Candidate({"arm": "mezo", "training.learning_rate": len(trials)}, trials)


def best(cells: dict[tuple[str, ...], dict[str, tuple[str, list[Any]]]]) -> Any:
    """The trials of the best cell; of each cell its trials' statuses and losses."""
    told = {trial: entry for members in cells.values() for trial, entry in members.items()}
    found = best_of(
        [candidate(*trials) for trials in cells],
        {trial: status for trial, (status, _) in told.items()},
        {trial: rows_of(*losses) for trial, (_, losses) in told.items()},
    )
    return found and (found[0].trials, found[1].rung, found[1].loss)


def single(**trials: tuple[str, list[Any]]) -> Any:
    return best({(trial,): {trial: entry} for trial, entry in trials.items()})


def test_the_cell_of_lowest_dev_loss_at_its_last_rung_is_chosen() -> None:
    found = single(a=("finished", [0.1, 0.2, 0.9]), b=("finished", [0.9, 0.9, 0.8]))
    assert found == (("b",), 144, 0.8)


def test_a_finished_cell_goes_before_a_better_one_that_was_stopped() -> None:
    found = single(a=("stopped", [0.1, 0.1]), b=("finished", [0.9, 0.9, 0.8]))
    assert found == (("b",), 144, 0.8)


def test_of_stopped_cells_the_one_that_came_further_is_chosen() -> None:
    found = single(a=("stopped", [0.1]), b=("stopped", [0.5, 0.5]), c=("stopped", [0.5, 0.6]))
    assert found == (("b",), 72, 0.5)


def test_of_equal_cells_the_one_with_the_lower_id_is_chosen() -> None:
    same = ("finished", [0.5, 0.5, 0.5])
    assert single(b=same, a=same, c=same)[0] == ("a",)


def test_a_cell_that_diverged_or_failed_is_never_chosen() -> None:
    lost = {"a": ("diverged", [0.1, None]), "b": ("failed", [0.1, 0.1]), "c": ("stopped", [])}
    assert single(**lost) is None
    assert single(**lost, d=("stopped", [3.0])) == (("d",), 36, 3.0)


def test_seeds_of_a_cell_are_averaged_at_the_last_rung_that_all_reached() -> None:
    cells = {
        ("a", "b"): {"a": ("finished", [0.5, 0.5, 0.1]), "b": ("stopped", [0.5, 0.3])},
        ("c", "d"): {"c": ("stopped", [0.5, 0.35]), "d": ("stopped", [0.5, 0.35])},
        ("e", "f"): {"e": ("finished", [0.1, 0.1, 0.1]), "f": ("diverged", [0.1, None])},
    }
    assert best(cells) == (("c", "d"), 72, pytest.approx(0.35))


def end(plan: Plan, losses: dict[str, float], status: str = "finished") -> None:
    """Leave what a finished screen leaves: each trial's loss is that of its arm and rate."""
    plan.write()
    plan.create_trials()
    for spec in plan.part("screen").specs:
        rate = spec.config["training"]["learning_rate"]
        rows = rows_of(1.0, 1.0, losses[spec.arm] + rate)
        folder = plan.trial_folder(spec.trial_id)
        folder.records_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder.update(status=status)


LOSSES = {"mezo": 0.3, "legendre2": 0.2, "kerzoo_paper": 0.4}


def test_each_arms_best_cell_is_confirmed_with_all_fresh_seeds(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert {spec.phase for spec in plan.specs} == {"screen"}
    end(plan, LOSSES)
    part = confirm_choice(plan)
    assert part.sweep.scheduler.name == "fifo"
    assert {spec.phase for spec in part.specs} == {"confirm"}
    assert {spec.config["training"]["learning_rate"] for spec in part.specs} == {5e-3}
    seeds: dict[str, list[int]] = {}
    for spec in part.specs:
        seeds.setdefault(spec.arm, []).append(spec.config["training"]["seed"])
    assert seeds == {arm: [1000, 1001, 1002, 1003, 1004] for arm in LOSSES}
    assert [spec.arm for spec in part.specs[:3]] == list(dict.fromkeys(s.arm for s in part.specs))
    content = json.loads((plan.folder / "plan.json").read_text())
    assert len(content["trials"]) == 24 + 15
    assert {c["arm"] for c in content["confirm"]["chosen"]} == set(LOSSES)
    assert [c["dev_loss"] for c in content["confirm"]["chosen"]] == [
        pytest.approx(LOSSES[c["arm"]] + 5e-3) for c in content["confirm"]["chosen"]
    ]
    assert len(read_events(plan.folder / "events.jsonl", "choice")) == 3
    assert content["strata"] == plan_of(tmp_path).content["strata"]  # they decide nothing there
    entrants = {e.trial: e for e in entrants_of(plan.sweep.scheduler, content)}
    assert all(entrants[spec.trial_id].decided_rungs == () for spec in part.specs)


def test_a_confirming_trial_has_a_command_of_its_own_that_makes_it_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    end(plan, LOSSES)
    confirm_choice(plan)
    for spec in (plan.specs[0], plan.specs[-1]):
        (again,) = make_plan(spec.overrides, "", single=True).specs
        assert (again.trial_id, again.phase) == (spec.trial_id, spec.phase)


def test_a_choice_is_recalled_and_not_made_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    end(plan, LOSSES)
    confirm_choice(plan)
    for spec in plan.part("screen").specs:  # other records would lead to another choice
        rate = spec.config["training"]["learning_rate"]
        folder = plan.trial_folder(spec.trial_id)
        rows = rows_of(1.0, 1.0, 1 - rate)
        folder.records_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = plan_of(tmp_path)
    recall_choice(again)
    assert again.content["confirm"]["chosen"] == plan.content["confirm"]["chosen"]
    assert [s.trial_id for s in again.specs] == [s.trial_id for s in plan.specs]
    part = confirm_choice(again)
    assert [s.trial_id for s in part.specs] == [s.trial_id for s in plan.part("confirm").specs]
    assert len(read_events(plan.folder / "events.jsonl", "choice")) == 3


def test_more_confirming_seeds_and_arms_extend_what_was_chosen(tmp_path: Path) -> None:
    few = plan_of(tmp_path, "space.arm=[mezo,legendre2]", "confirm.seeds=2")
    end(few, LOSSES)
    confirm_choice(few)
    more = plan_of(tmp_path, "confirm.seeds=3")
    recall_choice(more)
    end(more, LOSSES)
    part = confirm_choice(more)
    assert Counter(s.arm for s in part.specs) == dict.fromkeys(LOSSES, 3)
    assert {s.trial_id for s in few.part("confirm").specs} < {s.trial_id for s in part.specs}
    assert more.content["confirm"]["chosen"][:2] == few.content["confirm"]["chosen"]


def test_an_arm_without_a_cell_to_take_is_passed_over(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    end(plan, LOSSES, status="failed")
    part = confirm_choice(plan)
    assert part.specs == []
    assert {entry["arm"] for entry in plan.content["confirm"]["passed_over"]} == set(LOSSES)


def test_arms_that_draw_no_seed_are_confirmed_from_the_beginning(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "space.arm=[mezo,zero_shot]")
    assert {(s.arm, s.phase) for s in plan.specs} == {("mezo", "screen"), ("zero_shot", "confirm")}
    end(plan, LOSSES)
    assert Counter(s.arm for s in confirm_choice(plan).specs) == {"mezo": 5, "zero_shot": 1}


def test_a_screen_may_get_a_confirmation_later_and_keeps_its_choice(tmp_path: Path) -> None:
    screen = plan_of(tmp_path, "phase=screen")
    end(screen, LOSSES)
    both = plan_of(tmp_path)
    check_same_study(both)
    confirm_choice(both)
    screen = plan_of(tmp_path, "phase=screen")
    check_same_study(screen)
    recall_choice(screen)
    screen.write()
    again = plan_of(tmp_path)
    recall_choice(again)
    assert again.content["confirm"]["chosen"] == both.content["confirm"]["chosen"]


def test_a_screened_trial_that_draws_no_seed_is_not_confirmed_in_the_same_folder(
    tmp_path: Path,
) -> None:
    arms = "space.arm=[mezo,zero_shot]"
    screen = plan_of(tmp_path, "phase=screen", arms)
    end(screen, LOSSES | {"zero_shot": 1.0})
    with pytest.raises(ConfigError, match="was screened, and has no test figure: zero_shot draws"):
        check_same_study(plan_of(tmp_path, arms))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["confirm.seeds=[1,2]"], r"confirm\.seeds: must be fresh, .* \[1\] are in both"),
        (["seeds=[1000,7]"], r"confirm\.seeds: must be fresh, .* \[1000\] are in both"),
        (["confirm.seeds=0"], r"confirm\.seeds must be a number of seeds"),
        (["confirm.seeds=null"], r"confirm\.seeds must be a number of seeds or a list, got null"),
        (["+space.task.data_seed=[0,1]"], r"space\.task\.data_seed: phase=both chooses one cell"),
        (["task.num_test=0"], r"task\.num_test: phase=both reads the test split"),
    ],
)
def test_what_could_not_be_confirmed_is_refused_beforehand(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(tmp_path, *overrides)


def test_the_printed_plan_has_both_phases_and_what_the_second_can_see(tmp_path: Path) -> None:
    def printed(plan: Plan) -> str:
        console = Console(file=io.StringIO(), width=160, highlight=False)
        print_plan(plan, console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    plan = plan_of(tmp_path)
    for part in (
        "screen: 24 cells, 24 trials, at most 144 forward passes each",
        "confirm: each arm's best cell by dev, seeds 1000, 1001, 1002, 1003, 1004: 15 trials",
        "at most 2,160 forward passes, no early stopping",
        "smallest detectable effect: 3.4 (accuracy points, two-sided 5 %, power .80, 5 paired",
        "equivalent within ±1 points with power 0.02",
    ):
        assert part in printed(plan), part
    end(plan, LOSSES)
    confirm_choice(plan)
    plan.write(preparation={"forward_pass_s": 0.5})
    again = plan_of(tmp_path)
    recall_choice(again)
    recall_preparation(again)
    assert "the cells chosen by dev" in printed(again)
    assert "mezo (" in printed(again)
    assert again.content["confirm"]["cost"]["device_hours"] == pytest.approx(2160 * 0.5 / 3600)
    assert again.content["cost"]["trials"] == 24


def test_a_plan_file_that_was_torn_away_is_no_choice(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    recall_choice(plan)
    plan.folder.mkdir()
    write_json(plan.folder / "plan.json", {"fixed": {}})
    recall_choice(plan)
    assert plan.content["confirm"]["chosen"] == []
