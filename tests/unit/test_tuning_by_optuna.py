"""search=optuna: what is asked for, from what, and never again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tuned_plans import (
    DIRECTIONS,
    RATE,
    SCALE,
    SPACE,
    end,
    go_on,
    plan_of,
    points_of,
    run_through,
)

from sweeps.compose import ConfigError
from sweeps.plan import (
    ask_generation,
    recall_preparation,
)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Plans lie below the working folder, so that equal ones are composed once."""
    monkeypatch.chdir(tmp_path)


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


def test_excluded_points_are_asked_for_again(tmp_path: Path) -> None:
    best = "{training.learning_rate:{low:5e-3,high:2e-2}}"
    plan = plan_of(tmp_path, f"exclude=[{best}]")
    assert run_through(plan) > 1
    points = set().union(*points_of(plan).values())
    assert not [rate for rate, _ in points if 5e-3 <= rate <= 2e-2]
    counts = Counter(spec.arm for spec in plan.specs)
    assert counts == {"mezo": 10, "legendre2": 10}


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
