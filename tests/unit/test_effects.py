"""Effects at rungs equal a slow, plain recomputation from the files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from records_factory import EPSILON, LEARNING_RATE, RUNGS, SEED, SimulatedSweep
from scipy import stats

from analysis.load import load_study
from analysis.sensitivity.effects import effects_at_rungs, rank_correlations
from analysis.sensitivity.effects_shown import effects, effects_by_rung, rank_correlation
from analysis.statistics import control_share_needed

RATES = tuple(0.001 * 1.3**k for k in range(12))


def bumpy_gain(values: Mapping[str, Any]) -> float:
    """Differs from cell to cell and from seed to seed."""
    code = f"{values['arm']} {values[EPSILON]} {values[LEARNING_RATE]} {values.get(SEED, 0)}"
    return 0.05 + 0.1 * (sum(map(ord, code)) % 37) / 37


def rows_of(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Trial → rung → row, from the files."""
    return {
        path.parent.name: {
            row["rung"]: row for row in map(json.loads, path.read_text().splitlines())
        }
        for path in folder.glob("trials/*/records.jsonl")
    }


def find(folder: Path, rung: int) -> dict[str, Any]:
    frame = effects_at_rungs(load_study([folder]))
    (row,) = frame[(frame["rung"] == rung) & (frame["arm"] == "kerzoo_paper")].to_dict("records")
    return {str(key): value for key, value in row.items()}


def test_the_first_rung_compares_settings_in_pairs_with_seeds_averaged(tmp_path: Path) -> None:
    folder = SimulatedSweep(seeds=(0, 1), gain=bumpy_gain, halving=2).write(tmp_path)
    losses: dict[tuple[float, float], dict[str, list[float]]] = {}
    for rungs in rows_of(folder).values():
        row = rungs[RUNGS[0]]
        cell = losses.setdefault((row["perturbation_scale"], row["learning_rate"]), {})
        cell.setdefault(row["arm"], []).append(row["dev_loss"])
    d = [fmean(cell["kerzoo_paper"]) - fmean(cell["mezo"]) for cell in losses.values()]
    reference = stats.ttest_1samp(d, 0)
    row = find(folder, RUNGS[0])
    assert row["difference"] == pytest.approx(fmean(d))
    assert (row["low"], row["high"]) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert (row["p"], row["p_holm"]) == pytest.approx((reference.pvalue, reference.pvalue))
    assert (row["sample"], row["pairs"]) == ("all", 4)


def test_later_rungs_have_no_p_and_weigh_controls(tmp_path: Path) -> None:
    sweep = SimulatedSweep(
        epsilons=(0.01,),
        learning_rates=RATES,
        gain=bumpy_gain,
        halving=3,
        control=lambda v: round(1e6 * v[LEARNING_RATE]) % 2 == 0,
    )
    folder = sweep.write(tmp_path)
    verdicts = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    dropped = {v["trial_id"]: v["rung"] for v in verdicts if not v["survives"]}
    means, survivors = {}, {}
    for arm in ("mezo", "kerzoo_paper"):
        kept, controls, num_dropped = [], [], 0
        for trial, rungs in rows_of(folder).items():
            if rungs[0]["arm"] != arm:
                continue
            is_dropped = dropped.get(trial, math.inf) < RUNGS[1]
            num_dropped += is_dropped
            if RUNGS[1] in rungs:
                (controls if is_dropped else kept).append(rungs[RUNGS[1]]["dev_loss"])
        assert len(controls) > 1
        means[arm] = (sum(kept) + num_dropped * fmean(controls)) / (len(kept) + num_dropped)
        survivors[arm] = fmean(kept)
    row = find(folder, RUNGS[1])
    assert (row["sample"], math.isnan(row["p"])) == ("among survivors", True)
    assert row["difference"] == pytest.approx(survivors["kerzoo_paper"] - survivors["mezo"])
    assert row["weighted"] == pytest.approx(means["kerzoo_paper"] - means["mezo"])
    assert row["weighted_low"] < row["weighted"] < row["weighted_high"]


def test_without_controls_survivors_stand_alone(tmp_path: Path) -> None:
    row = find(SimulatedSweep(gain=bumpy_gain, halving=2).write(tmp_path), RUNGS[1])
    assert row["sample"] == "among survivors"
    assert math.isnan(row["weighted"])
    assert row["unseen"] == 4


def test_too_few_controls_are_told_with_how_many_would_do(tmp_path: Path) -> None:
    """Of 12 trials of an arm halving drops 6; a single one of them is exempt."""
    gain = {rate: 0.01 * place for place, rate in enumerate(RATES)}
    sweep = SimulatedSweep(
        epsilons=(0.01,),
        learning_rates=RATES,
        gain=lambda v: gain[v[LEARNING_RATE]],
        halving=2,
        control=lambda v: v[LEARNING_RATE] == RATES[0] and v["arm"] == "mezo",
    )
    folder = sweep.write(tmp_path)
    row = find(folder, RUNGS[1])
    assert row["few_controls"] == {"kerzoo_paper": (0, 6), "mezo": (1, 6)}
    table = effects(load_study([folder]))
    assert table is not None
    told = dict(zip(table.frame["rung"], table.frame["gap"], strict=True))
    assert told[RUNGS[0]] == ""
    assert told[RUNGS[1]] == "too few controls: kerzoo_paper 0 of 6, mezo 1 of 6"
    assert "control_fraction would have to be 0.58 with 6 dropped trials" in table.note
    assert "gap" in [column.name for column in table.columns]


def test_the_share_of_controls_leaves_two_in_nineteen_of_twenty_sweeps() -> None:
    for dropped in (2, 6, 40):
        share = control_share_needed(dropped)
        assert stats.binom.sf(1, dropped, share) == pytest.approx(0.95)
    assert math.isnan(control_share_needed(1))


def test_nothing_is_weighted_where_stopped_trials_have_no_decisions(tmp_path: Path) -> None:
    sweep = SimulatedSweep(
        learning_rates=RATES, gain=bumpy_gain, halving=2, control=lambda v: v[EPSILON] == 0.01
    )
    folder = sweep.write(tmp_path)
    plan = json.loads((folder / "plan.json").read_text())
    plan["config"] = {"scheduler": {"control_fraction": 0.5}}
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "events.jsonl").unlink()
    row = find(folder, RUNGS[1])
    assert row["sample"] == "among survivors"
    assert math.isnan(row["weighted"])


def test_damaged_events_are_told_and_left_out(tmp_path: Path) -> None:
    folder = SimulatedSweep(halving=2).write(tmp_path)
    with (folder / "events.jsonl").open("a") as file:
        file.write('no JSON\n{"event": "decision", "trial_id": 3}\n{"torn')
    study = load_study([folder])
    assert any("events.jsonl: 1 of its lines" in warning for warning in study.warnings)
    assert len(study.sweeps[0].decisions) == 12


def test_a_pair_with_a_diverged_member_is_counted_and_left_out(tmp_path: Path) -> None:
    folder = SimulatedSweep(
        gain=bumpy_gain,
        fate=lambda v: "diverged" if v["arm"] == "mezo" and v[EPSILON] == 0.01 else None,
    ).write(tmp_path)
    row = find(folder, RUNGS[0])
    assert (row["pairs"], row["broken_pairs"]) == (2, 2)


def test_arms_that_share_no_setting_are_two_samples(tmp_path: Path) -> None:
    folder = SimulatedSweep(gain=bumpy_gain).write(tmp_path)
    plan = json.loads((folder / "plan.json").read_text())
    for cell in plan["cells"]:
        if cell["arm"] == "kerzoo_paper":
            cell["values"][LEARNING_RATE] *= 1.01
    (folder / "plan.json").write_text(json.dumps(plan))
    losses: dict[str, list[float]] = {}
    for rungs in rows_of(folder).values():
        losses.setdefault(rungs[0]["arm"], []).append(rungs[RUNGS[0]]["dev_loss"])
    reference = stats.ttest_ind(losses["kerzoo_paper"], losses["mezo"], equal_var=False)
    row = find(folder, RUNGS[0])
    assert row["how"] == "two samples"
    assert row["p"] == pytest.approx(reference.pvalue)


def test_ranks_at_a_rung_are_correlated_with_those_at_the_end(tmp_path: Path) -> None:
    sweep = SimulatedSweep(
        learning_rates=RATES, gain=bumpy_gain, halving=2, control=lambda v: v[EPSILON] == 0.01
    )
    folder = sweep.write(tmp_path)
    for path in folder.glob("trials/*/records.jsonl"):  # the end ranks otherwise than the rungs
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if row["rung"] == RUNGS[-1]:
                row["dev_loss"] += 0.05 * (sum(map(ord, path.parent.name)) % 5)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = [r for r in rows_of(folder).values() if RUNGS[-1] in r]
    first, last = ([r[rung]["dev_loss"] for r in ended] for rung in (RUNGS[0], RUNGS[-1]))
    frame = rank_correlations(load_study([folder])).set_index(["rung", "sample"])
    row = frame.loc[(RUNGS[0], "finished")]
    assert row["trials"] == len(ended)
    assert row["spearman"] == pytest.approx(np.corrcoef(*map(stats.rankdata, (first, last)))[0, 1])
    assert frame.loc[(RUNGS[0], "controls"), "trials"] == 24


def test_tables_and_figure_are_made_in_any_state(tmp_path: Path) -> None:
    for number, changes in enumerate(
        (
            {"arms": ("mezo",)},
            {"fate": lambda v: "diverged"},
            {"fate": lambda v: "running"},
            {"halving": 2, "control": lambda v: v[EPSILON] == 0.01, "gain": bumpy_gain},
        )
    ):
        study = load_study([SimulatedSweep(**changes).write(tmp_path / str(number))])  # type: ignore[arg-type]
        tables = [effects(study), rank_correlation(study)]
        assert (tables[0] is None) == ("arms" in changes)
        group = effects_by_rung(study)
        for panel in group.panels if group else []:
            assert "mezo" in panel.description
