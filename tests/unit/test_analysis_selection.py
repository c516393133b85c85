from __future__ import annotations

from pathlib import Path

import pytest
from records_factory import LEARNING_RATE, SEED, START, SimulatedSweep

from analysis.decision import decide
from analysis.load import Study, load_study
from analysis.selection import best_cells, last_of_settings, rung_counts
from analysis.summary import ENGLISH, list_cautions, list_costs


def load(root: Path, **options: object) -> Study:
    return load_study([SimulatedSweep(**options).write(root)])  # type: ignore[arg-type]


def test_the_best_cell_of_each_arm_is_set_against_the_baselines_best(tmp_path: Path) -> None:
    best = best_cells(load(tmp_path, halving=2), "final").set_index("arm")
    assert best.loc["mezo", "dev_loss"] == pytest.approx(START - 0.12)
    assert best.loc["kerzoo_paper", "dev_loss"] == pytest.approx(START - 0.16)
    assert best.loc["kerzoo_paper", "loss_difference"] == pytest.approx(-0.04)
    assert best.loc["kerzoo_paper", "cells"] == 1
    assert best.loc["kerzoo_paper", "planned_cells"] == 4


def test_the_first_rung_compares_all_trials_stopped_ones_included(tmp_path: Path) -> None:
    best = best_cells(load(tmp_path, halving=4), "first")
    assert set(best["rung"]) == {36}
    assert set(best["cells"]) == {4}


def test_a_trial_that_was_stopped_never_competes_at_the_final_rung(tmp_path: Path) -> None:
    study = load(tmp_path, fate=lambda v: "running" if v["arm"] == "kerzoo_paper" else None)
    assert list(best_cells(study, "final")["arm"]) == ["mezo"]


def test_seeds_are_averaged_with_their_spread(tmp_path: Path) -> None:
    best = best_cells(load(tmp_path, seeds=(0, 10, 20)), "final").set_index("arm")
    assert best.loc["mezo", "dev_loss"] == pytest.approx(START - 0.12 + 0.010)
    assert best.loc["mezo", "dev_loss_sd"] == pytest.approx(0.010)
    assert best.loc["mezo", "seeds"] == 3


def test_a_cell_that_lost_seeds_does_not_win_by_its_lucky_ones(tmp_path: Path) -> None:
    study = load(
        tmp_path,
        seeds=(0, 1),
        fate=lambda v: "diverged" if v[LEARNING_RATE] == 0.01 and v[SEED] == 1 else None,
    )
    assert set(best_cells(study, "final")["learning_rate"]) == {0.003}
    cells = last_of_settings(study)
    mixed = cells[cells["learning_rate"] == 0.01]
    assert set(mixed["status"]) == {"1 finished, 1 diverged"}
    assert set(mixed["seeds"]) == {1}


def test_cells_without_evaluation_stay_in_the_table(tmp_path: Path) -> None:
    study = load(tmp_path, fate=lambda v: "planned" if v["arm"] == "kerzoo_paper" else None)
    cells = last_of_settings(study)
    assert len(cells) == 8
    assert cells.loc[cells["status"] == "planned", "dev_loss"].isna().all()


def test_a_cell_that_diverged_at_once_shows_what_was_spent_and_no_outcome(tmp_path: Path) -> None:
    cells = last_of_settings(load(tmp_path, fate=lambda values: "diverged"))
    assert set(cells["forward_passes"]) == {36}
    assert cells["dev_loss"].isna().all()
    assert set(cells["dev_loss_start"]) == {START}


def test_rungs_count_arrivals_and_call_the_rest_survivors(tmp_path: Path) -> None:
    counts = rung_counts(load(tmp_path, halving=2)).set_index(["rung", "arm"])
    assert list(counts["arrived"]) == [4, 4, 2, 2, 1, 1]
    assert list(counts["stopped"]) == [2, 2, 1, 1, 0, 0]
    assert set(counts.loc[36, "sample"]) == {"all"}
    assert set(counts.loc[72, "sample"]) == {"among survivors"}


def test_rungs_that_open_trials_have_not_reached_are_incomplete(tmp_path: Path) -> None:
    counts = rung_counts(load(tmp_path, fate=lambda v: "running" if v["arm"] == "mezo" else None))
    assert list(counts.drop_duplicates("rung")["sample"]) == [
        "all",
        "arrived so far",
        "arrived so far",
    ]


def test_diverged_trials_are_counted_and_not_averaged(tmp_path: Path) -> None:
    study = load(tmp_path, fate=lambda v: "diverged" if v[LEARNING_RATE] == 0.01 else None)
    counts = rung_counts(study).set_index(["rung", "arm"])
    assert counts.loc[(36, "mezo"), "diverged"] == 2
    assert counts.loc[(36, "mezo"), "arrived"] == 2


def test_one_seed_is_said_to_decide_nothing(tmp_path: Path) -> None:
    assert any(
        "One seed decides nothing" in text
        for text in list_cautions(load(tmp_path / "a"), [], ENGLISH)
    )
    study = load(tmp_path / "b", seeds=(0, 1))
    cautions = list_cautions(study, decide(study), ENGLISH)
    assert not any("One seed" in text for text in cautions)


def test_costs_set_the_plan_beside_the_bill(tmp_path: Path) -> None:
    (costs,) = list_costs(load(tmp_path, halving=2))
    rows = {what: (planned, used) for what, planned, used in costs.rows}
    assert rows["Trials"] == ("8", "2 finished, 6 stopped")
    assert rows["Forward passes"] == ("1,152", f"{2 * (2 * 36 + 72 + 144)}")
    assert dict(costs.facts)["Scheduler's savings"].startswith("576 forward passes, 50 %")
