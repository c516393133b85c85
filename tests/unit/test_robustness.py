"""Robustness, responses and gaps against plain recomputations from the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from records_factory import EPSILON, LEARNING_RATE, RUNGS, SEED, SimulatedSweep
from scipy import stats

from analysis.load import Study, load_study
from analysis.margins import Margins, margins_of
from analysis.registry import FIGURES, TABLES
from analysis.sensitivity.landscapes import divergence_map, factor_by_arm, response_curves
from analysis.sensitivity.robustness import gaps, levels, robustness
from analysis.sensitivity.robustness_shown import (
    divergence_by_cell,
    gaps_between_splits,
    performance_profiles,
)
from analysis.statistics import wilson_interval

RATES = (0.001, 0.003, 0.01, 0.03)


def gain(values: Mapping[str, Any]) -> float:
    """A wide optimum for mezo, a narrow one for the other, and seeds that differ."""
    width = 0.2 if values["arm"] == "mezo" else 1.0
    seed = int(values.get(SEED, 0))
    return 0.4 - width * 0.1 * (np.log10(values[LEARNING_RATE]) + 2) ** 2 + 0.003 * seed


def lost(values: Mapping[str, Any]) -> str | None:
    is_lost = values["arm"] != "mezo" and values[LEARNING_RATE] == 0.03 and values[SEED] == 1
    return "diverged" if is_lost else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return SimulatedSweep(learning_rates=RATES, seeds=(0, 1), gain=gain, fate=lost).write(tmp_path)


@pytest.fixture
def study(folder: Path) -> Study:
    return load_study([folder])


def first_losses(folder: Path, arm: str) -> dict[tuple[float, float], list[float | None]]:
    """Setting → the losses of its seeds at the first rung, from the files; None where diverged."""
    found: dict[tuple[float, float], list[float | None]] = {}
    for path in sorted(folder.glob("trials/*/records.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            if row["arm"] == arm and row["rung"] == RUNGS[0]:
                setting = row["perturbation_scale"], row["learning_rate"]
                found.setdefault(setting, []).append(row["dev_loss"])
    return found


@pytest.mark.parametrize("arm", ["mezo", "kerzoo_paper"])
def test_the_good_share_is_that_of_a_plain_count(folder: Path, study: Study, arm: str) -> None:
    settings = first_losses(folder, arm)
    means = {k: fmean(v) for k, v in settings.items() if None not in v}  # type: ignore[type-var]
    near = [loss for loss in means.values() if loss <= min(means.values()) + 0.01]
    row = robustness(study).set_index("arm").loc[arm]
    assert (row["within"], row["settings"]) == (len(near), 8)
    assert row["share"] == len(near) / 8
    assert (row["low"], row["high"]) == pytest.approx(tuple(wilson_interval(len(near), 8))[1:])
    assert row["diverged"] == 8 - len(means)
    averages = sorted(fmean(x for x in v if x is not None) for v in settings.values())
    assert row["iqm"] == pytest.approx(fmean(averages[2:6]))


def test_the_margin_is_the_configurations(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    plan["config"] = {"margins": {"loss": 1.0, "score": -3, "cost": "much"}}
    (folder / "plan.json").write_text(json.dumps(plan))
    study = load_study([folder])
    assert margins_of(study) == Margins(loss=1.0)
    assert robustness(study).set_index("arm").loc["mezo", "share"] == 1.0


def test_responses_are_means_over_the_other_factors(folder: Path, study: Study) -> None:
    settings = first_losses(folder, "kerzoo_paper")
    frame = levels(study).set_index(["factor", "level", "arm"])
    here = [
        fmean(x for x in losses if x is not None)
        for (_, rate), losses in settings.items()
        if rate == 0.03
    ]
    row = frame.loc[("learning_rate", "0.03", "kerzoo_paper")]
    assert row["loss"] == pytest.approx(fmean(here))
    assert (row["diverged"], row["trials"], row["rate"]) == (2, 4, 0.5)
    row = frame.loc[("perturbation_scale", "0.003", "kerzoo_paper")]
    here = [
        fmean(x for x in losses if x is not None)
        for (epsilon, _), losses in settings.items()
        if epsilon == 0.003
    ]
    interval = stats.ttest_1samp(here, 0).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx(tuple(interval))
    assert row["settings"] == 4


def test_many_levels_are_put_into_bins(tmp_path: Path) -> None:
    rates = tuple(0.001 * 1.1**k for k in range(20))
    study = load_study([SimulatedSweep(learning_rates=rates, gain=gain).write(tmp_path)])
    frame = levels(study)
    mine = frame[(frame["factor"] == "learning_rate") & (frame["arm"] == "mezo")]
    assert list(mine["settings"]) == [8] * 5
    assert mine["level"].iloc[0].startswith("0.001 … ")


def test_diverged_cells_are_listed_with_their_rates(study: Study) -> None:
    table = divergence_by_cell(study)
    assert table is not None
    assert list(table.frame["learning_rate"]) == [0.03, 0.03]
    assert list(table.frame["rate"]) == [0.5, 0.5]


def test_gaps_compare_splits_at_the_checkpoint_that_dev_chose(tmp_path: Path) -> None:
    folder = SimulatedSweep(seeds=(0, 1, 2), gain=gain).write(tmp_path)
    dev_train, test_dev = [], []
    for number, path in enumerate(sorted(folder.glob("trials/*/records.jsonl"))):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[-1] |= {"test_step": rows[2]["step"], "test_loss": 0.6 + 0.001 * number**2}
        rows[-1]["train_loss"] -= 0.002 * (number % 5)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if rows[0]["arm"] == "mezo":
            dev_train.append(rows[-1]["dev_loss"] - rows[-1]["train_loss"])
            test_dev.append(rows[-1]["test_loss"] - rows[2]["dev_loss"])
    study = load_study([folder])
    row = gaps(study).set_index("arm").loc["mezo"]
    for name, differences in (("dev_train", dev_train), ("test_dev", test_dev)):
        low, high = stats.ttest_1samp(differences, 0).confidence_interval()
        assert row[name] == pytest.approx(fmean(differences))
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((low, high))
    assert gaps_between_splits(study) is not None


def test_figures_say_what_they_show(study: Study) -> None:
    for make, said in (
        (performance_profiles, "mezo"),
        (factor_by_arm, "kerzoo_paper at 0.003"),
        (divergence_map, "kerzoo_paper at 0.03 50.0 %"),
        (response_curves, "mezo is lowest at 0.01"),
    ):
        group = make(study)
        assert group is not None
        assert any(said in panel.description for panel in group.panels)


@pytest.mark.parametrize(
    "changes",
    [
        {"arms": ("mezo",), "epsilons": (0.01,), "learning_rates": (0.01,)},
        {"fate": lambda v: "diverged"},
        {"fate": lambda v: "failed"},
        {"fate": lambda v: "running", "seeds": (0, 1)},
        {"extra": {"bandwidth": ("full", "linear")}, "halving": 2},
        {"fate": lambda v: "planned" if v[EPSILON] == 0.01 else None},
    ],
    ids=["one cell", "all diverged", "all failed", "running", "a word", "half planned"],
)
def test_every_exhibit_takes_a_sweep_in_any_state(tmp_path: Path, changes: Any) -> None:
    study = load_study([SimulatedSweep(**changes).write(tmp_path)])
    for exhibits in (TABLES, FIGURES):
        for exhibit in exhibits.values():
            if exhibit.build.__module__.startswith("analysis.sensitivity"):
                exhibit.build(study)  # type: ignore[operator]
