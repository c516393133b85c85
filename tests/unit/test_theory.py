"""Exact figures of kernels in the plan, and what the analysis makes of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from records_factory import EPSILON, LEARNING_RATE, RUNGS, SimulatedSweep
from scipy import stats

from analysis.load import load_study
from analysis.sensitivity.theory import (
    log_range,
    ratio_sd,
    theory_and_ranking,
    theory_beside_measurement,
)
from analysis.sensitivity.theory_shown import (
    explain_ranking,
    kernel_theory,
    predicted_and_measured,
    theory_explains,
)
from kerzoo.estimator import Estimate
from kerzoo.kernels import ConstantKernel, PolynomialKernel, RichardsonKernel
from kerzoo.schedules import Bandwidth, LinearSchedule
from sweeps.theory import kernel_figures

LEGENDRE4 = PolynomialKernel("uniform", 4)


def figures(*arguments: Any) -> dict[str, Any]:
    return dict(kernel_figures(*arguments, 10, 100))


def test_a_rescaled_kernel_has_its_exact_figures_at_any_width() -> None:
    found = figures(LEGENDRE4, Bandwidth(0.5), "step")
    assert found["signal_variance"] == found["second_moment"] == 25 / 4
    assert found["noise_amplification"] == 75 / 4 / 0.5**2
    assert (found["order"], found["lead"]) == (4, pytest.approx(-5 / 21 * 0.5**4))


@pytest.mark.parametrize(
    ("width", "gain", "variance", "lead"),
    [(0.9, 6.47, 1.66, 0.289), (0.75, 7.42, 1.42, 0.280), (0.5, 4.94, 1.64, 0.142)],
)
def test_an_unrescaled_kernel_on_a_narrow_interval_is_of_order_2(
    width: float, gain: float, variance: float, lead: float
) -> None:
    """K = 15·r·(5 − 7r²) on [−d, d]: m(d) = d²(25 − 21d²), and the third moment does not vanish."""
    kernel = PolynomialKernel("uniform", 4, first_moment=4)
    found = figures(kernel, Bandwidth(width, rescale=False), "step")
    assert found["order"] == 2
    assert found["gain"] == pytest.approx(gain, abs=0.005)
    assert found["signal_variance"] == pytest.approx(variance, abs=0.005)
    assert found["lead"] == pytest.approx(lead, abs=0.0005)


def test_mezo_is_the_unit_and_richardson_has_its_variance() -> None:
    found = figures(ConstantKernel(), Bandwidth(), "step")
    assert found.pop("spread") == 0
    assert set(found.values()) == {1, 2}
    found = figures(RichardsonKernel(4), Bandwidth(), "step")
    assert (found["signal_variance"], found["order"]) == (1, 4)
    assert found["noise_amplification"] == pytest.approx(65 / 9)


def test_with_an_r_for_each_tensor_slope_and_weight_are_independent() -> None:
    found = figures(PolynomialKernel("uniform", 2), Bandwidth(), "tensor")
    assert found["signal_variance"] == pytest.approx(1 / 3 * 3, abs=1e-3)
    assert found["spread"] is None


def test_the_spread_is_the_relative_deviation_of_the_squared_weight() -> None:
    """K = 3r on [−1, 1]: (rK)² = 9r⁴ has mean 9/5 and mean square 81/9."""
    found = figures(PolynomialKernel("uniform", 2), Bandwidth(), "step")
    assert found["spread"] == pytest.approx(math.sqrt(9 - 1.8**2) / 1.8, rel=1e-3)


def test_a_shrinking_interval_is_averaged_up_to_the_first_evaluation() -> None:
    law = Bandwidth(1.0, LinearSchedule(floor=0.05), rescale=False)
    found = dict(kernel_figures(LEGENDRE4, law, "step", 50, 100))
    assert found["second_moment"] < found["signal_variance"] == pytest.approx(6.25, abs=1e-3)


def test_the_mean_square_is_over_directions_and_tensors_by_size() -> None:
    estimate = Estimate(0, 0, ((1.0, 3.0), (2.0, 0.0)), (0.0,) * 4)
    squares = [(1 * 10 + 9 * 30) / 40, (4 * 10 + 0 * 30) / 40]
    assert estimate.mean_square([10, 30]) == pytest.approx(2**2 * fmean(squares))
    assert Estimate(0, 0, ((0.5,), (1.5,)), ()).mean_square([7]) == pytest.approx(4 * 1.25)


ARMS = {"mezo": 1.0, "a": 1.8, "b": 6.25, "c": 13.25, "d": 20.0}


def write(root: Path, **changes: Any) -> Path:
    """Arms whose losses rise with V_s; the measured mean square is V_s and some noise."""
    sweep = SimulatedSweep(
        **{
            "arms": tuple(ARMS),
            "seeds": (0, 1),
            "gain": lambda v: 0.3 - 0.01 * ARMS[v["arm"]] + v[EPSILON],
            **changes,
        }
    )
    folder = sweep.write(root)
    plan = json.loads((folder / "plan.json").read_text())
    names = ("order", "lead", "signal_variance", "noise_amplification", "gain", "second_moment")
    plan["theory"] = {
        "figures": [
            dict.fromkeys(names, 1.0) | {n: v for n in names[2::3]} | {"spread": math.log(v)}
            for v in ARMS.values()
        ],
        "trials": {c["trial_id"]: list(ARMS).index(c["arm"]) for c in plan["cells"]},
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    for path in folder.glob("trials/*/records.jsonl"):
        noise = crc32(path.parent.name.encode()) % 7 - 3
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows[1:]:
            scale = math.sqrt(ARMS[row["arm"]]) * (1 + 0.02 * noise)
            row["projected_gradient_rms"] = 2.0 * scale
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_ratios_are_geometric_over_settings_and_arithmetic_over_seeds(tmp_path: Path) -> None:
    folder = write(tmp_path)
    squares: dict[tuple[str, float, float, int], float] = {}
    for path in folder.glob("trials/*/records.jsonl"):
        for row in map(json.loads, path.read_text().splitlines()):
            if row["rung"] == RUNGS[0]:
                key = row["arm"], row["perturbation_scale"], row["learning_rate"], row["seed"]
                squares[key] = row["projected_gradient_rms"] ** 2
    settings = {key[1:3] for key in squares}
    of_seeds = [
        math.exp(fmean(math.log(squares["b", *s, i] / squares["mezo", *s, i]) for s in settings))
        for i in (0, 1)
    ]
    low, high = stats.ttest_1samp(of_seeds, 0).confidence_interval()
    row = theory_beside_measurement(load_study([folder])).set_index("arm").loc["b"]
    assert row["predicted_ratio"] == 6.25
    assert row["measured_ratio"] == pytest.approx(fmean(of_seeds))
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["seeds"] == 2
    draws = RUNGS[0] // 2
    sd = math.sqrt((3 * (1 + math.log(6.25) ** 2) - 1 + 2) / draws / 2)
    assert (row["expected_low"], row["expected_high"]) == pytest.approx(log_range(6.25, sd))


def test_one_seed_has_what_theory_expects_and_no_interval(tmp_path: Path) -> None:
    frame = theory_beside_measurement(load_study([write(tmp_path, seeds=(0,))])).set_index("arm")
    assert math.isnan(frame.loc["b", "low"])
    assert frame.loc["b", "expected_low"] < 6.25 < frame.loc["b", "expected_high"]
    assert math.isnan(frame.loc["mezo", "measured_ratio"])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("draws", "seeds"), [((150, 150), 5), ((40, 40), 3), ((50, 150), 4)])
@pytest.mark.parametrize("order", [2, 4])
def test_the_expected_range_has_the_ratio_in_19_of_20_sweeps(
    order: int, draws: tuple[int, int], seeds: int, shared: bool
) -> None:
    """4000 sweeps; in more of them where the slopes of an arm are those of the baseline."""
    kernel = PolynomialKernel("uniform", order)
    draw = np.random.default_rng(1)
    base = draw.standard_normal((4000, seeds, draws[1])) ** 2
    slopes = draw.standard_normal((4000, seeds, draws[0])) ** 2
    slopes = base[..., : draws[0]] if shared else slopes
    radii = draw.uniform(-1, 1, slopes.shape)
    weights = np.zeros_like(radii)
    for place, factor in enumerate(kernel.coefficients):
        weights += float(factor) * radii ** (kernel.lowest_power + 2 * place)
    ratios = ((radii * weights) ** 2 * slopes).mean(axis=-1) / base.mean(axis=-1)
    spread = figures(kernel, Bandwidth(), "step")["spread"]
    low, high = log_range(
        float(kernel.signal_variance), ratio_sd((spread, 0.0), draws) / math.sqrt(seeds)
    )
    inside = ((low <= ratios.mean(axis=1)) & (ratios.mean(axis=1) <= high)).mean()
    assert 0.93 <= inside <= (1 if shared else 0.97)


def test_a_ranking_that_theory_explains_has_tau_one_and_is_told(tmp_path: Path) -> None:
    study = load_study([write(tmp_path)])
    frame = theory_and_ranking(study).set_index(["predictor", "outcome"])
    assert frame.loc[("V_s", "measured ratio"), "tau"] == 1
    assert frame.loc[("V_s", "best dev loss"), "tau"] == 1
    assert frame.loc[("V_s", "best dev loss"), "p"] == pytest.approx(2 / 120)
    assert frame.loc[("V_s", "best dev loss"), "reading"] == "as theory says"
    assert math.isnan(frame.loc[("bias order", "best dev loss"), "tau"])
    ratios, *rankings = explain_ranking(study)
    assert ratios == "Of 4 measured mean squares 4 lie where theory has them."
    assert rankings[0].startswith("Theory explains this ranking: the larger V_s, the worse")
    group = predicted_and_measured(study)
    assert group is not None
    assert "b predicted 6.25" in group.panels[0].description


def test_a_ranking_against_theory_and_one_of_few_arms_are_told(tmp_path: Path) -> None:
    better = lambda v: 0.1 + 0.01 * ARMS[v["arm"]]  # noqa: E731 (the larger V_s, the better)
    told = " ".join(explain_ranking(load_study([write(tmp_path / "all", gain=better)])))
    assert "The ranking runs against theory, which says: the larger V_s, the worse" in told
    told = " ".join(explain_ranking(load_study([write(tmp_path / "few", arms=tuple(ARMS)[:4])])))
    assert "Too few arms tell whether the larger V_s, the worse" in told


def test_records_without_theory_have_none(tmp_path: Path) -> None:
    study = load_study([SimulatedSweep(learning_rates=(0.01,)).write(tmp_path)])
    assert LEARNING_RATE in study.cells["factors"].iloc[0]
    for make in (kernel_theory, theory_explains, predicted_and_measured):
        assert make(study) is None
