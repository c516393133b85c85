"""The confirmed comparison equals a slow, plain recomputation from the files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from confirmed_records import final_losses, find, write_confirmed
from records_factory import SEED, SimulatedSweep
from scipy import stats

from analysis.comparison import compare_arms, divergence_rates
from analysis.load import load_study


def test_every_number_is_that_of_a_plain_recomputation(tmp_path: Path) -> None:
    folder = write_confirmed(tmp_path)
    row = find(compare_arms(load_study([folder])), "b")
    ours, theirs = final_losses(folder, "b"), final_losses(folder, "a")
    reference = stats.ttest_1samp([ours[seed] - theirs[seed] for seed in ours], 0)
    low, high = reference.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["p"] == pytest.approx(reference.pvalue)
    assert row["p_holm"] == row["p"]  # c has no p, and counts for nothing
    assert row["p_sign_flip"] == 2 / 2**6
    assert (row["pairs"], row["broken_pairs"], row["verdict"]) == (6, 0, "better")


def test_an_arm_that_equals_the_baseline_is_called_identical(tmp_path: Path) -> None:
    row = find(compare_arms(load_study([write_confirmed(tmp_path)])), "c")
    assert row["verdict"] == "identical in every pair"


def test_diverged_seeds_enter_no_mean_and_are_counted(tmp_path: Path) -> None:
    def fate(values: Mapping[str, Any]) -> str | None:
        return "diverged" if (values["arm"], values[SEED]) in {("b", 1), ("a", 2)} else None

    folder = write_confirmed(tmp_path, fate=fate)
    study = load_study([folder])
    row = find(compare_arms(study), "b")
    ours, theirs = final_losses(folder, "b"), final_losses(folder, "a")
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    assert row["difference"] == pytest.approx(sum(differences) / 4)
    assert (row["pairs"], row["broken_pairs"]) == (4, 2)
    rates = divergence_rates(study)
    assert rates is not None
    assert rates.frame.set_index("arm").loc["b", "diverged"] == 1


def test_a_faster_arm_has_a_ratio_below_one(tmp_path: Path) -> None:
    def gain(values: Mapping[str, Any]) -> float:
        return 0.4 if values["arm"] == "b" else 0.1 + 0.001 * int(values[SEED])

    row = find(compare_arms(load_study([write_confirmed(tmp_path, gain=gain)])), "b")
    assert row["difference"] < 0
    passes = find(
        compare_arms(load_study([write_confirmed(tmp_path / "again", gain=gain)])),
        "b",
        "forward passes to target",
    )
    # b is there at the first rung (36); a needs all 144 with seed 0, 144 with the others
    assert passes["difference"] == pytest.approx(36 / 144)
    assert math.isnan(passes["p"])  # the ratio does not vary: no interval is invented


def test_one_seed_gives_a_verdict_without_an_interval(tmp_path: Path) -> None:
    folder = write_confirmed(tmp_path, seeds=(0, 1), fate=lambda v: "diverged" if v[SEED] else None)
    row = find(compare_arms(load_study([folder])), "b")
    assert math.isnan(row["low"])
    assert row["verdict"] == "undecided: too few pairs that vary"


def test_a_screen_is_never_compared(tmp_path: Path) -> None:
    folder = SimulatedSweep(seeds=(0, 1)).write(tmp_path)
    assert compare_arms(load_study([folder])).empty
