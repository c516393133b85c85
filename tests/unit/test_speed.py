"""Time to a target and cost against plain recomputations, and the settings that they follow."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from confirmed_records import find, write_confirmed
from records_factory import LEARNING_RATE, SEED, START, SimulatedSweep

from analysis.comparison import TUNED, compare_arms
from analysis.load import load_study
from analysis.speed import cost_of_arms, reaching_the_target, speed, times_to_target
from analysis.standings import list_standings
from sweeps.compose import ConfigError, compose


def gain(values: Mapping[str, Any]) -> float:
    """Arm b falls twice as fast as the baseline; seeds differ."""
    return (0.2 if values["arm"] == "b" else 0.1) + 0.005 * int(values[SEED])


def rows_of(folder: Path, arm: str) -> list[list[dict[str, Any]]]:
    trials = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("trials/*/records.jsonl"))
    ]
    return [rows for rows in trials if rows[0]["arm"] == arm]


def test_medians_are_those_of_a_plain_search_for_the_first_row_below(tmp_path: Path) -> None:
    folder = write_confirmed(tmp_path, gain=gain)
    base = rows_of(folder, "a")
    start, best = START, max(min(row["dev_loss"] for row in rows[1:]) for rows in base)
    frame = [row for row, _ in times_to_target(load_study([folder]))]
    for name, share in (("half of the way", 0.5), ("the baseline's best", 1.0)):
        target = start - share * (start - best)
        for arm in ("a", "b"):
            passes = [
                next(
                    (r["forward_passes"] for r in rows[1:] if r["dev_loss"] <= target + 1e-12), None
                )
                for rows in rows_of(folder, arm)
            ]
            (row,) = [r for r in frame if (r["arm"], r["target"]) == (arm, name)]
            assert row["loss"] == pytest.approx(target)
            assert (row["trials"], row["reached"]) == (6, sum(p is not None for p in passes))
            known = sorted(p if p is not None else math.inf for p in passes)
            assert row["median"] == known[2]  # half of six have reached it


def test_a_baseline_that_loses_again_what_it_gained_is_measured_at_its_best(
    tmp_path: Path,
) -> None:
    folder = write_confirmed(tmp_path, gain=gain)
    steady = times_to_target(load_study([folder]))
    targets = {row["target"]: row["loss"] for row, _ in steady}
    for path in folder.glob("trials/*/records.jsonl"):
        *before, last = [json.loads(line) for line in path.read_text().splitlines()]
        if last["arm"] == "a":
            rows = [*before, last | {"dev_loss": last["dev_loss"] + 5.0}]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = load_study([folder])
    for row, _ in times_to_target(study):
        assert targets[row["target"]] < row["loss"] < START
        if row["arm"] == "a" and row["target"] == "the baseline's best":
            assert row["reached"] == row["trials"] == 6
            lowest = [min(r["dev_loss"] for r in rows[1:]) for rows in rows_of(folder, "a")]
            assert row["loss"] == max(lowest)
    (group,) = list_standings(study)
    assert [standing.reached for standing in group.standings[:2]] == [6, 6]
    paired = compare_arms(study)
    ratios = paired[(paired["arm"] == "b") & (paired["outcome"] == "forward passes to target")]
    assert set(ratios["pairs"]) == {6}


def test_no_interval_of_a_duration_goes_below_zero(tmp_path: Path) -> None:
    folder = write_confirmed(tmp_path, gain=gain, seeds=range(2))
    for path in folder.glob("trials/*/records.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        slow = [
            row | {"device_time_s": row["device_time_s"] * (1 + 9 * row["seed"])} for row in rows
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in slow))
    (group,) = list_standings(load_study([folder]))
    for standing in group.standings:
        assert standing.seconds.low == 0.0 < standing.seconds.mean < standing.seconds.high


def test_stopped_trials_leave_a_gap_between_the_curve_and_the_worst_case(tmp_path: Path) -> None:
    sweep = SimulatedSweep(
        learning_rates=tuple(0.001 * k for k in range(1, 9)), halving=2, epsilons=(0.01,)
    )
    rows = [row for row, _ in times_to_target(load_study([sweep.write(tmp_path)]))]
    (row,) = [r for r in rows if (r["arm"], r["target"]) == ("mezo", "the baseline's best")]
    assert (row["trials"], row["reached"], row["stopped"]) == (8, 2, 6)
    assert row["share"] > row["reached"] / row["trials"]
    assert math.isnan(row["worst_median"])


def test_a_diverged_trial_never_reaches_the_target(tmp_path: Path) -> None:
    folder = write_confirmed(
        tmp_path, gain=gain, fate=lambda v: "diverged" if v["arm"] == "b" and v[SEED] < 4 else None
    )
    rows = [row for row, _ in times_to_target(load_study([folder])) if row["arm"] == "b"]
    assert {row["diverged"] for row in rows} == {4}
    assert all(math.isnan(row["median"]) for row in rows)
    assert rows[0]["share"] == pytest.approx(2 / 6)


def test_a_baseline_that_does_not_improve_sets_no_target(tmp_path: Path) -> None:
    study = load_study([write_confirmed(tmp_path, gain=lambda values: -0.1)])
    assert speed(study) is None
    assert reaching_the_target(study) is None


def test_hours_and_money_are_sums_over_trials(tmp_path: Path) -> None:
    folder = write_confirmed(tmp_path)
    plan = json.loads((folder / "plan.json").read_text())
    plan["config"] = {"budget": {"price_per_gpu_hour": 2.5}}
    (folder / "plan.json").write_text(json.dumps(plan))
    hours = sum(
        (rows[-1]["device_time_s"] + rows[-1]["eval_time_s"]) / 3600
        for rows in rows_of(folder, "b")
    )
    table = cost_of_arms(load_study([folder]))
    assert table is not None
    row = table.frame.set_index("arm").loc["b"]
    assert row["hours"] == pytest.approx(hours)
    assert row["money"] == pytest.approx(2.5 * hours)
    assert row["trials"] == 6


def test_cells_that_dev_chose_are_compared_in_what_dev_did_not_see(tmp_path: Path) -> None:
    folder = write_confirmed(
        tmp_path, learning_rates=(0.003, 0.01), gain=lambda v: v[LEARNING_RATE] * 10
    )
    for number, path in enumerate(sorted(folder.glob("trials/*/records.jsonl"))):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        is_b = rows[0]["arm"] == "b"
        rows[-1] |= {"test_step": 72, "test_loss": 0.5 - 0.1 * is_b + 0.001 * (number % 7)}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    frame = compare_arms(load_study([folder]))
    tuned = frame[(frame["question"] == TUNED) & (frame["arm"] == "b")]
    assert "test loss" in set(tuned["outcome"])
    assert not {"dev loss", "dev score", "dev AUC"} & set(tuned["outcome"])
    chosen = {
        arm: {
            r[-1]["seed"]: r[-1]["test_loss"]
            for r in rows_of(folder, arm)
            if r[0]["learning_rate"] == 0.01
        }
        for arm in ("a", "b")
    }
    d = [chosen["b"][seed] - chosen["a"][seed] for seed in chosen["a"]]
    row = tuned[tuned["outcome"] == "test loss"].iloc[0]
    assert row["difference"] == pytest.approx(fmean(d))
    assert (row["pairs"], row["judgement"]) == (6, "better")


def test_the_margin_of_equivalence_is_a_setting(tmp_path: Path) -> None:
    folder = write_confirmed(tmp_path)
    narrow = find(compare_arms(load_study([folder])), "b")
    plan = json.loads((folder / "plan.json").read_text())
    plan["config"] = {"margins": {"loss": 0.2}}
    (folder / "plan.json").write_text(json.dumps(plan))
    wide = find(compare_arms(load_study([folder])), "b")
    assert narrow["p_equivalence"] > 0.05 > wide["p_equivalence"]
    assert wide["verdict"] == "better, but within ±0.2"


def test_margins_reach_the_plan_and_must_be_positive() -> None:
    assert compose(["margins.loss=0.002"]).config["margins"]["loss"] == 0.002
    with pytest.raises(ConfigError, match=r"margins\.score must be > 0, got -1"):
        compose(["margins.score=-1"]).sweep  # noqa: B018


def test_the_curve_is_described_in_words(tmp_path: Path) -> None:
    group = reaching_the_target(load_study([write_confirmed(tmp_path, gain=gain)]))
    assert group is not None
    assert "b 6 of 6" in group.panels[0].description
