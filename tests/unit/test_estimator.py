"""The estimator: its formula, its bias order, its pairing, and weights that stay intact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kerzoo.estimator import Draw, Estimator
from kerzoo.kernels import ConstantKernel, Kernel, PolynomialKernel
from kerzoo.noise import Gaussian, derive_key
from kerzoo.schedules import Bandwidth, LinearSchedule
from kerzoo.weights import MasterWeights

FULL = Bandwidth(1.0)
SHRINKING = Bandwidth(1.0, LinearSchedule(0.1))


def weights_of(values: list[float], dtype: torch.dtype = torch.float32) -> MasterWeights:
    return MasterWeights([nn.Parameter(torch.tensor(values, dtype=dtype))], Gaussian())


@pytest.mark.parametrize("kernel", [ConstantKernel(), PolynomialKernel("uniform", 4)])
@pytest.mark.parametrize("num_directions", [1, 3])
def test_coefficients_follow_the_published_formula(kernel: Kernel, num_directions: int) -> None:
    weights = weights_of([0.3, -0.2, 0.9])
    estimator = Estimator(kernel, FULL, 1e-2, num_directions, seed=5)
    theta = weights.master.clone()

    def loss() -> float:
        return float(weights.working.double().pow(3).sum())

    estimate = estimator.estimate(weights, loss, step=4)
    for i in range(num_directions):
        u = weights.noise.materialise(derive_key(5, "directions", 4, i))
        (draw,) = estimator.draw(4, i)
        (r,), (weight,) = draw.radii, draw.weights
        plus = float((theta + 1e-2 * r * u).double().pow(3).sum())
        minus = float((theta - 1e-2 * r * u).double().pow(3).sum())
        expected = (plus - minus) / 2e-2 * weight / num_directions
        assert estimate.coefficients[i][0] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert len(estimate.losses) == 2 * num_directions


def test_an_estimate_leaves_the_weights_exactly_as_they_were() -> None:
    weights = weights_of([0.1, 0.7, -3.3])
    before = weights.working.clone()
    Estimator(PolynomialKernel("uniform", 4), FULL, 0.3, 2).estimate(weights, lambda: 1.0, 0)
    assert torch.equal(weights.working, before)
    assert torch.equal(weights.master, before)


@pytest.mark.parametrize("failing_call", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_forward_that_raises_leaves_the_weights_exactly_as_they_were(
    failing_call: int, dtype: torch.dtype
) -> None:
    weights = weights_of([0.1, 0.7, -3.3], dtype)
    before = weights.working.clone()
    calls = 0

    def loss() -> float:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise RuntimeError("out of memory")
        return 1.0

    with pytest.raises(RuntimeError, match="out of memory"):
        Estimator(ConstantKernel(), FULL, 0.3, 2).estimate(weights, loss, 0)
    assert torch.equal(weights.working, before)


def first_direction(kernel: Kernel) -> torch.Tensor:
    """u of step 3, read off the first perturbed point of a run with seed 9."""
    weights = weights_of([0.0, 0.0])
    points: list[torch.Tensor] = []

    def loss() -> float:
        points.append(weights.working.clone())
        return 0.0

    estimator = Estimator(kernel, FULL, 1.0, 1, seed=9)
    estimator.estimate(weights, loss, 3)
    return points[0] / estimator.draw(3, 0)[0].radii[0]


def test_arms_with_one_seed_share_directions_and_radii_never_shift_them() -> None:
    kernels = (ConstantKernel(), PolynomialKernel("uniform", 2), PolynomialKernel("uniform", 6))
    seen = [first_direction(kernel) for kernel in kernels]
    assert torch.allclose(seen[0], seen[1])
    assert torch.allclose(seen[0], seen[2])


def test_a_rescaled_kernel_keeps_its_unit_first_moment_on_a_narrow_interval() -> None:
    """40 000 draws at |z| < 5."""
    estimator = Estimator(
        PolynomialKernel("uniform", 4), Bandwidth(1.0, LinearSchedule(0.1)), 1e-3, num_steps=10
    )
    draws = [estimator.draw(5, i)[0] for i in range(40_000)]
    assert max(abs(draw.radii[0]) for draw in draws) <= 0.5
    products = np.array([draw.radii[0] * draw.weights[0] for draw in draws])
    assert abs(products.mean() - 1) < 5 * products.std() / math.sqrt(len(products))


def test_an_unrescaled_kernel_on_half_the_interval_has_the_hidden_factor_of_theory() -> None:
    """E[rK] = d²(25 − 21d²)/4 at C = 1: 1.234 at d = 1/2; 40 000 draws at |z| < 5."""
    estimator = Estimator(PolynomialKernel("uniform", 4), Bandwidth(0.5, rescale=False), 1e-3)
    draws = [estimator.draw(0, i)[0] for i in range(40_000)]
    products = np.array([draw.radii[0] * draw.weights[0] for draw in draws])
    expected = 0.25 * (25 - 21 * 0.25) / 4
    assert abs(products.mean() - expected) < 5 * products.std() / math.sqrt(len(products))


def test_mezo_ignores_the_bandwidth() -> None:
    draws = {Estimator(ConstantKernel(), b, 1e-3).draw(0, 0) for b in (FULL, Bandwidth(0.5))}
    assert draws == {(Draw((1.0,), (1.0,)),)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"perturbation_scale": -1e-3}, "perturbation_scale must be > 0, got -0.001"),
        ({"perturbation_scale": float("nan")}, "perturbation_scale must be > 0"),
        ({"num_directions": 0}, "num_directions must be at least 1, got 0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"r_scope": "layer"}, "r_scope must be step or tensor, got 'layer'"),
        ({"kernel": PolynomialKernel("uniform", 4), "bandwidth": SHRINKING}, "num_steps is needed"),
        ({"perturbation_scale_schedule": LinearSchedule(0.0)}, "must have a floor > 0"),
    ],
)
def test_values_outside_their_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Estimator(
            **{"kernel": ConstantKernel(), "bandwidth": FULL, "perturbation_scale": 1e-3}
            | arguments
        )
