"""Importances against plain recomputations, and what is said where they mean little."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from confirmed_records import write_confirmed
from records_factory import EPSILON, LEARNING_RATE, RUNGS, SimulatedSweep

from analysis.language import load_language
from analysis.load import load_study
from analysis.sensitivity.importance import EXACT, PED, SURROGATE, importances
from analysis.sensitivity.importance_shown import importance, importance_of_factors
from analysis.statistics.variance import (
    bins_of,
    contrasts,
    is_balanced,
    polynomials,
    surrogate_shares,
    top_divergences,
    with_pairs,
)
from analysis.summary import list_cautions, list_costs


def crossed_gain(values: Mapping[str, Any]) -> float:
    """An interaction of arm and ε, a little of the learning rate, and noise over cells."""
    sign = 1 if (values["arm"] == "mezo") == (values[EPSILON] == 0.003) else -1
    noise = sum(map(ord, repr(sorted(values.items(), key=str)))) % 7 / 700
    return 0.15 + 0.05 * sign + values[LEARNING_RATE] + noise


def test_on_a_balanced_grid_the_shares_are_those_of_plain_means(tmp_path: Path) -> None:
    folder = SimulatedSweep(seeds=(0, 1), gain=crossed_gain).write(tmp_path)
    rows = [
        row
        for path in folder.glob("trials/*/records.jsonl")
        for row in map(json.loads, path.read_text().splitlines())
        if row["rung"] == RUNGS[0]
    ]
    losses = [row["dev_loss"] for row in rows]
    total = sum((loss - fmean(losses)) ** 2 for loss in losses)

    def mean_at(**levels: Any) -> float:
        return fmean(r["dev_loss"] for r in rows if all(r[k] == v for k, v in levels.items()))

    epsilon = sum(
        (mean_at(perturbation_scale=r["perturbation_scale"]) - fmean(losses)) ** 2 for r in rows
    )
    pair = sum(
        (
            mean_at(arm=r["arm"], perturbation_scale=r["perturbation_scale"])
            - mean_at(arm=r["arm"])
            - mean_at(perturbation_scale=r["perturbation_scale"])
            + fmean(losses)
        )
        ** 2
        for r in rows
    )
    frame = importances(load_study([folder])).set_index("effect")
    assert set(frame["method"]) == {EXACT}
    assert frame.loc["perturbation_scale", "value"] == pytest.approx(epsilon / total)
    assert frame.loc["arm × perturbation_scale", "value"] == pytest.approx(pair / total)
    assert frame.index[0] == "arm × perturbation_scale"
    assert frame.loc["arm × perturbation_scale", "p"] == 0.001
    assert frame.loc["dummy", "value"] < frame.loc["dummy", "null"]


def test_diverged_trials_have_the_last_rank(tmp_path: Path) -> None:
    folder = SimulatedSweep(
        gain=crossed_gain, fate=lambda v: "diverged" if v[LEARNING_RATE] == 0.01 else None
    ).write(tmp_path)
    frame = importances(load_study([folder]))
    assert set(frame["outcome"]) == {"dev loss at the first rung (ranks)"}
    assert frame["effect"].iloc[0] == "learning_rate"


def test_arms_with_factors_of_their_own_are_looked_at_once_more(tmp_path: Path) -> None:
    folder = SimulatedSweep(
        arms=("mezo", "a", "b"), gain=crossed_gain, extra={"bandwidth": ("full", "linear")}
    ).write(tmp_path)
    plan = json.loads((folder / "plan.json").read_text())
    plan["cells"] = [
        c for c in plan["cells"] if c["arm"] != "mezo" or c["values"]["bandwidth"] == "full"
    ]
    for cell in plan["cells"]:
        if cell["arm"] == "mezo":
            del cell["values"]["bandwidth"]
    (folder / "plan.json").write_text(json.dumps(plan))
    frame = importances(load_study([folder]))
    assert set(frame["method"]) == {EXACT}
    by_block = frame.groupby("block")["effect"].agg(set)
    assert "bandwidth" not in by_block["all arms"]
    assert {"bandwidth", "arm × bandwidth"} <= by_block["arms with bandwidth"]
    assert set(frame.groupby("block")["trials"].first()) == {20, 16}


def searched(root: Path, noise: float, **changes: Any) -> Path:
    """A plan whose settings are drawn at random."""
    generator = np.random.default_rng(3)
    rates = tuple(float(r) for r in 10 ** generator.uniform(-4, -2, 60))
    errors = {rate: float(e) for rate, e in zip(rates, generator.normal(0, noise, 60), strict=True)}
    epsilon = {
        rate: float(e) for rate, e in zip(rates, 10 ** generator.uniform(-3, -1, 60), strict=True)
    }

    def gain(values: Mapping[str, Any]) -> float:
        x = np.log10(values[LEARNING_RATE]) + 3
        return (
            0.3 + 0.1 * float(x) + 0.05 * (values["arm"] == "mezo") + errors[values[LEARNING_RATE]]
        )

    folder = SimulatedSweep(epsilons=(0.01,), learning_rates=rates, gain=gain, **changes).write(
        root
    )
    plan = json.loads((folder / "plan.json").read_text())
    for cell in plan["cells"]:
        cell["values"][EPSILON] = epsilon[cell["values"][LEARNING_RATE]]
    plan["config"] = {"search": {"name": "optuna"}}
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def test_random_settings_have_main_effects_and_pairs_of_a_surrogate(tmp_path: Path) -> None:
    study = load_study([searched(tmp_path, noise=0.005)])
    frame = importances(study)
    assert set(frame["method"]) == {PED, SURROGATE}
    for method in (PED, SURROGATE):
        assert frame.loc[frame["method"] == method, "effect"].iloc[0] == "learning_rate"
    assert frame["fit"].max() > 0.9
    shown = importance(study)
    assert shown is not None
    assert set(shown.frame["caution"]) == {"biased: chosen by TPE"}
    assert "this is tuning, not sensitivity" in shown.note
    cautions = list_cautions(study, [], load_language("en"))
    assert any("tuning, not sensitivity" in said for said in cautions)
    (costs,) = list_costs(study)
    assert "tuning, not sensitivity" in dict(costs.facts)["Search"]


def test_a_surrogate_that_foretells_little_is_withheld(tmp_path: Path) -> None:
    frame = importances(load_study([searched(tmp_path, noise=1.0)]))
    (row,) = frame[frame["method"] == SURROGATE].to_dict("records")
    assert row["withheld"]
    assert row["fit"] < 0.5
    assert np.isnan(row["value"])


def test_leaving_one_out_is_what_the_fit_says() -> None:
    generator = np.random.default_rng(0)
    x = generator.random(30)
    y = 2 * x + generator.normal(0, 0.1, 30)
    basis = polynomials(x)
    found = surrogate_shares(y, {"x": basis})
    centred = basis * np.sqrt(30) - (basis * np.sqrt(30)).mean(axis=0)
    errors, means = [], []
    penalties = np.logspace(-4, 3, 15)
    design = np.column_stack([np.ones(30), centred])
    fits = []
    for penalty in penalties:  # the penalty of generalised cross-validation, the plain way
        ridge = np.diag([0, *[30 * penalty] * 3])
        hat = design @ np.linalg.solve(design.T @ design + ridge, design.T)
        fits.append((((y - hat @ y) ** 2).sum() / (30 - np.trace(hat)) ** 2, penalty))
    ridge = np.diag([0, *[30 * min(fits)[1]] * 3])
    for i in range(30):
        kept = np.arange(30) != i
        a, b = design[kept], y[kept]
        prediction = design[i] @ np.linalg.solve(a.T @ a + ridge, a.T @ b)
        errors.append((y[i] - prediction) ** 2)
        means.append((y[i] - b.mean()) ** 2)
    assert found.fit == pytest.approx(1 - sum(errors) / sum(means))


def test_the_best_fifth_is_set_against_all() -> None:
    levels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    losses = np.array([1.0, 2, 3, 9, 9, 5, 6, 7, np.inf, 8])
    found = top_divergences(losses, {"f": levels}, top=0.3)["f"]
    q = (3 + 0.5) / 4  # three of the best three at level 0, and one trial's weight of p
    assert found == pytest.approx(0.5 * (q / 0.5 - 1) ** 2 + 0.5 * ((1 - q) / 0.5 - 1) ** 2)


def test_bases_are_orthonormal_on_a_balanced_grid() -> None:
    codes = np.array(list(itertools.product(range(3), range(4), range(2)))).T
    bases = with_pairs({name: contrasts(c) for name, c in zip("abc", codes, strict=True)})
    whole = np.concatenate(list(bases.values()), axis=1)
    assert whole.T @ whole == pytest.approx(np.eye(whole.shape[1]), abs=1e-12)
    assert is_balanced(list(codes))
    assert not is_balanced([levels[:-1] for levels in codes])
    assert not is_balanced([])
    assert np.bincount(bins_of(np.arange(50.0))).tolist() == [10] * 5


def test_too_few_trials_or_no_spread_have_no_importance(tmp_path: Path) -> None:
    few = load_study([SimulatedSweep(epsilons=(0.01,), learning_rates=(0.01,)).write(tmp_path)])
    flat = SimulatedSweep(name="flat", gain=lambda values: 0.1, seeds=(0, 1))
    for study in (few, load_study([flat.write(tmp_path)])):
        assert importances(study).empty
        assert importance(study) is None
        assert importance_of_factors(study) is None


def test_confirmed_trials_are_explained_at_their_end_with_seeds(tmp_path: Path) -> None:
    study = load_study([write_confirmed(tmp_path)])
    frame = importances(study)
    assert set(frame["block"]) == {"confirmed"}
    assert set(frame["outcome"]) == {"final dev loss"}
    assert set(frame["method"]) == {EXACT}
    assert {"arm", "seed", "arm × seed"} <= set(frame["effect"])
    assert frame.loc[frame["effect"] != "dummy", "value"].sum() == pytest.approx(1)


def test_the_bars_say_in_words_what_they_show(tmp_path: Path) -> None:
    group = importance_of_factors(load_study([SimulatedSweep(gain=crossed_gain).write(tmp_path)]))
    assert group is not None
    assert "arm × perturbation_scale" in group.panels[0].description
    assert "dummy" in group.panels[0].description
