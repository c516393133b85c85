"""Exact figures of kernels in the plan, and what the analysis makes of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from records_factory import EPSILON, LEARNING_RATE, RUNGS, SimulatedSweep
from scipy import stats

from analysis.load import load_study
from analysis.sensitivity.theory import (
    kernel_theory,
    predicted_and_measured,
    theory_and_ranking,
    theory_beside_measurement,
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
    assert set(figures(ConstantKernel(), Bandwidth(), "step").values()) == {1, 2}
    found = figures(RichardsonKernel(4), Bandwidth(), "step")
    assert (found["signal_variance"], found["order"]) == (1, 4)
    assert found["noise_amplification"] == pytest.approx(65 / 9)


def test_with_an_r_for_each_tensor_slope_and_weight_are_independent() -> None:
    found = figures(PolynomialKernel("uniform", 2), Bandwidth(), "tensor")
    assert found["signal_variance"] == pytest.approx(1 / 3 * 3, abs=1e-3)


def test_a_shrinking_interval_is_averaged_up_to_the_first_evaluation() -> None:
    law = Bandwidth(1.0, LinearSchedule(floor=0.05), rescale=False)
    found = dict(kernel_figures(LEGENDRE4, law, "step", 50, 100))
    assert found["second_moment"] < found["signal_variance"] == pytest.approx(6.25, abs=1e-3)


def test_the_mean_square_is_over_directions_and_tensors_by_size() -> None:
    estimate = Estimate(0, 0, ((1.0, 3.0), (2.0, 0.0)), (0.0,) * 4)
    squares = [(1 * 10 + 9 * 30) / 40, (4 * 10 + 0 * 30) / 40]
    assert estimate.mean_square([10, 30]) == pytest.approx(2**2 * fmean(squares))
    assert Estimate(0, 0, ((0.5,), (1.5,)), ()).mean_square([7]) == pytest.approx(4 * 1.25)


ARMS = {"mezo": 1.0, "a": 1.8, "b": 6.25, "c": 13.25}


def write(root: Path) -> Path:
    """Four arms whose losses rise with V_s; the measured mean square is V_s and some noise."""
    sweep = SimulatedSweep(
        arms=tuple(ARMS), seeds=(0, 1), gain=lambda v: 0.3 - 0.01 * ARMS[v["arm"]] + v[EPSILON]
    )
    folder = sweep.write(root)
    plan = json.loads((folder / "plan.json").read_text())
    names = ("order", "lead", "signal_variance", "noise_amplification", "gain", "second_moment")
    plan["theory"] = {
        "figures": [dict.fromkeys(names, 1.0) | {n: v for n in names[2::3]} for v in ARMS.values()],
        "trials": {c["trial_id"]: list(ARMS).index(c["arm"]) for c in plan["cells"]},
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    for number, path in enumerate(sorted(folder.glob("trials/*/records.jsonl"))):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows[1:]:
            scale = math.sqrt(ARMS[row["arm"]]) * (1 + 0.05 * (number % 3 - 1))
            row["projected_gradient_rms"] = 2.0 * scale
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_ratios_are_geometric_means_over_pairs_of_settings(tmp_path: Path) -> None:
    folder = write(tmp_path)
    squares: dict[tuple[str, float, float, int], float] = {}
    for path in folder.glob("trials/*/records.jsonl"):
        for row in map(json.loads, path.read_text().splitlines()):
            if row["rung"] == RUNGS[0]:
                key = row["arm"], row["perturbation_scale"], row["learning_rate"], row["seed"]
                squares[key] = row["projected_gradient_rms"] ** 2
    settings = {key[1:3] for key in squares}
    logs = [
        fmean(math.log(squares["b", *s, seed] / squares["mezo", *s, seed]) for seed in (0, 1))
        for s in settings
    ]
    low, high = stats.ttest_1samp(logs, 0).confidence_interval()
    row = theory_beside_measurement(load_study([folder])).set_index("arm").loc["b"]
    assert row["predicted_ratio"] == 6.25
    assert row["measured_ratio"] == pytest.approx(math.exp(fmean(logs)))
    assert (row["low"], row["high"]) == pytest.approx((math.exp(low), math.exp(high)))
    assert row["pairs"] == 8


def test_a_ranking_that_theory_explains_has_tau_one(tmp_path: Path) -> None:
    study = load_study([write(tmp_path)])
    frame = theory_and_ranking(study).set_index(["predictor", "outcome"])
    assert frame.loc[("V_s", "measured ratio"), "tau"] == 1
    assert frame.loc[("V_s", "best dev loss"), "tau"] == 1
    assert frame.loc[("V_s", "best dev loss"), "p"] == pytest.approx(2 / 24)
    assert math.isnan(frame.loc[("bias order", "best dev loss"), "tau"])
    group = predicted_and_measured(study)
    assert group is not None
    assert "b predicted 6.25" in group.panels[0].description


def test_records_without_theory_have_none(tmp_path: Path) -> None:
    study = load_study([SimulatedSweep(learning_rates=(0.01,)).write(tmp_path)])
    assert LEARNING_RATE in study.cells["factors"].iloc[0]
    for make in (kernel_theory, theory_explains, predicted_and_measured):
        assert make(study) is None
