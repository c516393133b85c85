"""What every kernel of conf/kernel keeps, by exact moments, by quadrature and by drawing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction

import pytest
import yaml
from quadrature import FOLDER, KERNELS, expectation

from kerzoo.build import build
from kerzoo.kernels import Kernel, Node, PolynomialKernel

NUM_DRAWS = 4_000

each_kernel = pytest.mark.parametrize("name", KERNELS)


def first_moment(kernel: Kernel) -> Fraction:
    return Fraction(kernel.first_moment if isinstance(kernel, PolynomialKernel) else 1)


def sum_over(power: int, kernel_power: int, nodes: tuple[Node, ...]) -> float:
    return math.fsum(node.radius**power * node.weight**kernel_power for node in nodes)


def size_of_sum(power: int, nodes: tuple[Node, ...]) -> float:
    return math.fsum(abs(node.radius**power * node.weight) for node in nodes)


@each_kernel
def test_a_kernel_is_hashable_and_equal_to_its_twin(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    twin = build(yaml.safe_load(text), "kernel")
    assert twin == KERNELS[name]
    assert hash(twin) == hash(KERNELS[name])


@each_kernel
def test_the_first_moment_is_c_and_the_odd_ones_up_to_the_order_vanish(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.order % 2 == 0
    assert kernel.expectation(1) == first_moment(kernel)
    assert all(kernel.expectation(j) == 0 for j in range(3, kernel.order + 1, 2))
    assert kernel.lead != 0


@each_kernel
def test_quadrature_finds_the_same_figures(name: str) -> None:
    kernel = KERNELS[name]
    noise = expectation(kernel, lambda nodes: sum_over(0, 2, nodes))
    signal = expectation(kernel, lambda nodes: sum_over(1, 1, nodes) ** 2)
    assert noise == pytest.approx(float(kernel.noise_amplification), rel=1e-10)
    assert signal == pytest.approx(float(kernel.signal_variance), rel=1e-10)
    for power in (*range(1, kernel.order, 2), kernel.order + 1):
        found = expectation(kernel, lambda nodes, p=power: sum_over(p, 1, nodes))
        size = expectation(kernel, lambda nodes, p=power: size_of_sum(p, nodes))
        assert found == pytest.approx(float(kernel.expectation(power)), rel=0, abs=1e-11 * size)


@each_kernel
def test_the_variance_is_at_least_that_of_its_mean(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.signal_variance >= kernel.expectation(1) ** 2


@each_kernel
def test_draws_have_the_figures_as_their_means(name: str) -> None:
    """|z| < 5 for three means of 4 000 draws, with the standard deviation from quadrature.

    False alarms: 1.7e-6 a kernel where such means are normal. They are not for (rK)² under the
    normal law (at order 8 a polynomial of degree 16 in r), whose rate is below 1/25 by Chebyshev.
    """
    kernel = KERNELS[name]
    uniform = random.Random(20_260).random
    draws = [kernel.draw(uniform()) for _ in range(NUM_DRAWS)]
    assert all(len(nodes) == kernel.num_nodes for nodes in draws)
    figures: dict[Fraction, Callable[[tuple[Node, ...]], float]] = {
        kernel.expectation(1): lambda nodes: sum_over(1, 1, nodes),
        kernel.noise_amplification: lambda nodes: sum_over(0, 2, nodes),
        kernel.signal_variance: lambda nodes: sum_over(1, 1, nodes) ** 2,
    }
    for exact, value in figures.items():
        expected = float(exact)
        mean = math.fsum(map(value, draws)) / NUM_DRAWS
        variance = expectation(kernel, lambda nodes, v=value, e=expected: (v(nodes) - e) ** 2)
        assert abs(mean - expected) <= 5 * math.sqrt(variance / NUM_DRAWS) + 1e-9


@each_kernel
def test_draws_scale_with_the_half_width_where_there_is_one(name: str) -> None:
    kernel = KERNELS[name]
    for u in (0.0, 0.1, 0.46875, 0.875, 1.0 - 2.0**-53):
        (full, *others) = kernel.draw(u)
        (rescaled, *_) = kernel.draw(u, 0.5)
        (unrescaled, *_) = kernel.draw(u, 0.5, rescale=False)
        assert math.isfinite(full.radius * full.weight)
        if not kernel.has_bandwidth:
            assert full == rescaled == unrescaled
            continue
        assert not others
        assert rescaled == (full.radius / 2, full.weight * 2)
        assert unrescaled == (full.radius / 2, kernel.weight(full.radius / 2))


@each_kernel
@pytest.mark.parametrize("half_width", [1.0, 0.5, 0.05])
def test_the_gain_is_the_mean_of_what_is_drawn(name: str, half_width: float) -> None:
    kernel = KERNELS[name]
    assert kernel.gain(half_width) == float(first_moment(kernel))
    if kernel.has_bandwidth:

        def shrunk(nodes: tuple[Node, ...]) -> float:
            r = half_width * nodes[0].radius
            return r * kernel.weight(r)

        expected = expectation(kernel, shrunk)
    else:
        expected = 1.0
    assert kernel.gain(half_width, rescale=False) == pytest.approx(expected, rel=1e-10)


@each_kernel
def test_formulas_say_something(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.family
    assert kernel.formula
    assert kernel.density_formula
