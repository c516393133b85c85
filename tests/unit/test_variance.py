"""Mean and variance of the estimate for a linear loss, against their exact values.

For L(θ) = ⟨a, θ⟩ and independent noise of variance σ² on every loss, with V_s and V_n of the
kernel, n directions and C = E[rK],

    E[g] = C·a,    E|g − C·a|² = (V_s·(d + 2)·|a|² + V_n·σ²·d / (2ε²) − C²·|a|²) / n

with a Gaussian u; d + 2 becomes d on the sphere and with Rademacher u. Every comparison with a
mean is made at |z| < 4 and a fixed seed: a false alarm rate of 6.3e-5 each. There are 6 kernels ·
3 laws · 6 comparisons, n = 3 for 6 kernels · 2, a first moment of 4 for 8 coordinates, and 3 laws
· 36 or 28 moments: about 230 in all, or 1.5 % for a wrong seed to fail by chance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from kerzoo.estimator import Estimator
from kerzoo.kernels import (
    ConstantKernel,
    DiscreteKernel,
    Kernel,
    MinVarianceKernel,
    PolynomialKernel,
    RichardsonKernel,
)
from kerzoo.noise import (
    CHUNK_ELEMENTS,
    Gaussian,
    Perturbation,
    Rademacher,
    Sphere,
    compiled,
    derive_key,
    noise_engine,
)
from kerzoo.schedules import Bandwidth
from kerzoo.weights import Precision, flatten

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

CPU = torch.device("cpu")
Z = 4.0
SEED = 0
D = 8
SLOPE = np.linspace(-1.0, 1.5, D)
SQUARE = float(SLOPE @ SLOPE)
SCALE = 0.5
SIGMA = 0.8
STEPS = 6000

KERNELS: dict[str, Kernel] = {
    "mezo": ConstantKernel(),
    "legendre2": PolynomialKernel("uniform", 2),
    "legendre4": PolynomialKernel("uniform", 4),
    "discrete4": DiscreteKernel(4),
    "richardson4": RichardsonKernel(4),
    "min_variance4": MinVarianceKernel(4),
}
LAWS: dict[str, Perturbation] = {
    "gaussian": Gaussian(),
    "sphere": Sphere(),
    "rademacher": Rademacher(),
}

each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
each_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())


@functools.cache
def directions(law: Perturbation, index: int = 0, count: int = STEPS) -> Numbers:
    """u of the first steps. Shape: [count, D]."""
    noise = noise_engine(D, law, CPU)
    keys = (derive_key(SEED, "directions", step, index) for step in range(count))
    return np.stack([noise.materialise(key).double().numpy() for key in keys])


@functools.cache
def gradients(
    kernel: Kernel, law: Perturbation, sigma: float = 0.0, num_directions: int = 1
) -> Numbers:
    """g of each step, from losses that are computed here. Shape: [STEPS, D]."""
    estimator = Estimator(kernel, Bandwidth(), SCALE, num_directions, seed=SEED)
    rng = np.random.default_rng(1)
    u = np.stack([directions(law, index) for index in range(num_directions)], axis=1)
    along = (u @ SLOPE).tolist()
    rows = []
    for step in range(STEPS):
        losses: list[float] = []
        for index in range(num_directions):
            for draw in estimator.draw(step, index):
                change = SCALE * draw.radii[0] * along[step][index]
                losses += [change, -change]
        noisy = np.array(losses) + sigma * rng.standard_normal(len(losses))
        estimate = estimator.from_losses(noisy.tolist(), step)
        rows.append([factor for (factor,) in estimate.coefficients])
    return np.asarray(np.einsum("sn,snd->sd", np.array(rows), u))


def assert_mean(values: Numbers, expected: float) -> None:
    """The mean of independent values is as expected, within four standard errors."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    assert abs(float(values.mean()) - expected) < Z * error


def length(law: Perturbation) -> int:
    """E[(⟨a, u⟩·|u|)²] / |a|²."""
    return D + 2 if isinstance(law, Gaussian) else D


@each_law
@each_kernel
def test_the_mean_square_of_the_estimate_is_that_of_the_theory(
    kernel: Kernel, law: Perturbation
) -> None:
    squares = (gradients(kernel, law) ** 2).sum(axis=1)
    assert_mean(squares, float(kernel.signal_variance) * length(law) * SQUARE)


@each_law
@each_kernel
def test_the_estimate_is_unbiased_along_the_gradient_and_across_it(
    kernel: Kernel, law: Perturbation
) -> None:
    g = gradients(kernel, law)
    assert_mean(g @ SLOPE / SQUARE, 1.0)
    across = np.roll(SLOPE, 1)
    across -= SLOPE * (across @ SLOPE) / SQUARE
    assert_mean(g @ across, 0.0)


@each_law
@each_kernel
def test_independent_noise_of_the_losses_adds_its_share(kernel: Kernel, law: Perturbation) -> None:
    g = gradients(kernel, law, SIGMA)
    signal = float(kernel.signal_variance) * length(law) * SQUARE
    noise = float(kernel.noise_amplification) * SIGMA**2 * D / (2.0 * SCALE**2)
    assert_mean((g**2).sum(axis=1), signal + noise)
    alone = g - gradients(kernel, law)
    assert_mean((alone**2).sum(axis=1), noise)
    assert_mean(g @ SLOPE / SQUARE, 1.0)


@each_kernel
def test_the_mean_of_three_directions_has_a_third_of_the_variance(kernel: Kernel) -> None:
    g = gradients(kernel, Gaussian(), SIGMA, num_directions=3)
    noise = float(kernel.noise_amplification) * SIGMA**2 * D / (2.0 * SCALE**2)
    single = float(kernel.signal_variance) * (D + 2) * SQUARE + noise - SQUARE
    assert_mean(((g - SLOPE) ** 2).sum(axis=1), single / 3)
    assert_mean((g**2).sum(axis=1), SQUARE + single / 3)


def test_a_kernel_of_first_moment_four_estimates_four_times_the_gradient() -> None:
    """As KerZOO's released code does; its variance is sixteen times that of C = 1."""
    kernel = PolynomialKernel("uniform", 4, first_moment=4.0)
    g = gradients(kernel, Gaussian())
    for coordinate, slope in zip(g.T, SLOPE, strict=True):
        assert_mean(coordinate, 4.0 * slope)
    assert np.allclose(g, 4.0 * gradients(KERNELS["legendre4"], Gaussian()))


@pytest.mark.parametrize("precision", ["master", "inplace"])
@each_law
@each_kernel
def test_the_forward_passes_on_the_weights_give_these_coefficients(
    kernel: Kernel, law: Perturbation, precision: Precision
) -> None:
    """So what is tested above is what a run measures; to the fp32 rounding of the weights."""
    weights = flatten([nn.Parameter(torch.linspace(-0.4, 0.9, D))], law, precision)
    slope = torch.from_numpy(SLOPE)

    def loss() -> float:
        return float(weights.working.double() @ slope)

    estimator = Estimator(kernel, Bandwidth(), SCALE, seed=SEED)
    for step in range(20):
        ((coefficient,),) = estimator.estimate(weights, loss, step).coefficients
        found = coefficient * directions(law)[step]
        assert np.allclose(found, gradients(kernel, law)[step], atol=1e-4)


@each_law
def test_the_second_moment_of_a_direction_is_the_identity(law: Perturbation) -> None:
    u = directions(law)
    for i in range(D):
        for j in range(i, D):
            products = u[:, i] * u[:, j]
            if i == j and isinstance(law, Rademacher):
                assert np.array_equal(products, np.ones(STEPS))
            else:
                assert_mean(products, float(i == j))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which threads find several."""
    monkeypatch.setattr(compiled, "PIECE", 1000)


@pytest.mark.usefixtures("small_pieces")
@each_law
@pytest.mark.parametrize("d", [D, 33, CHUNK_ELEMENTS["cpu"], 2 * CHUNK_ELEMENTS["cpu"] + 77])
def test_threads_change_no_bit_of_a_direction(law: Perturbation, d: int) -> None:
    key = derive_key(3, "directions")
    one, two = (noise_engine(d, law, CPU, threads).materialise(key) for threads in (1, 2))
    assert torch.equal(one, two)


def squares(law: Perturbation, d: int, threads: int, keys: Sequence[int]) -> list[float]:
    """|u|² of each key, in float64."""
    noise = noise_engine(d, law, CPU, threads)
    return [float(noise.materialise(key).double().square().sum()) for key in keys]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("d", [1, D, 1000, CHUNK_ELEMENTS["cpu"] + 1, 100_003])
def test_a_direction_on_the_sphere_has_the_norm_root_d_to_rounding(d: int, threads: int) -> None:
    """Scaling rounds the factor once and each value once: at most 2⁻²³ of the norm, twice that
    of its square."""
    for square in squares(Sphere(), d, threads, [derive_key(7, "directions", s) for s in range(4)]):
        assert square == pytest.approx(d, rel=2.0**-22)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_rademacher_direction_has_ones_of_both_signs_and_the_norm_root_d(threads: int) -> None:
    """The signs' sum is within four standard deviations."""
    d = CHUNK_ELEMENTS["cpu"] + 1001
    key = derive_key(7, "directions")
    u = noise_engine(d, Rademacher(), CPU, threads).materialise(key)
    assert torch.equal(u.abs(), torch.ones(d))
    assert abs(float(u.double().sum())) < Z * math.sqrt(d)
    assert squares(Rademacher(), d, threads, [key]) == [d]


def test_scales_of_more_directions_than_are_remembered_stay_right() -> None:
    keys = [derive_key(1, "directions", step) for step in range(200)]
    noise = noise_engine(D, Sphere(), CPU)
    first = [noise.materialise(key).clone() for key in keys]
    again = [noise.materialise(key) for key in reversed(keys)]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
