"""The bias of every kernel's estimate along a fixed direction, against its theory.

Along u a loss is a function f(t) of the step t. The estimate of f'(0) at the scale ε has the mean

    E[ Σ [f(εr) − f(−εr)] / (2ε) · K(r) ],   C·f'(0) + lead·ε^m·f^(m+1)(0) / (m+1)! + O(ε^(m+2)),

over r, here by quadrature in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from quadrature import KERNELS, expectation, expectation_nodes

from kerzoo.kernels import DENSITIES, ConstantKernel, Kernel, Node, OneNodeKernel, PolynomialKernel

ROUNDING = 2.0**-53
SCALES = tuple(1.25**-k for k in range(40))
"""Values of ε that are tried, largest first."""

each_kernel = pytest.mark.parametrize("name", KERNELS)


class Line(NamedTuple):
    """A function on a line and its derivatives at 0."""

    value: Callable[[float], float]
    derivative: Callable[[int], float]


def sine(order: int) -> float:
    """The derivative of that order of sin(1.3 t + 0.4) at 0."""
    return 1.3**order * math.sin(0.4 + order * math.pi / 2)


# One hidden layer of tanh units along a line: Σ v·tanh(a·t + b).
OUTER, SLOPES, SHIFTS = (0.9, -0.4, 0.7), (0.8, -1.1, 0.5), (0.3, -0.2, 0.9)


def network(t: float) -> float:
    return math.fsum(
        v * math.tanh(a * t + b) for v, a, b in zip(OUTER, SLOPES, SHIFTS, strict=True)
    )


def network_derivative(order: int) -> float:
    """With y = tanh, the n-th derivative is the polynomial P_n(y): P_{n+1} = P_n'·(1 − y²)."""
    polynomial = Polynomial([0.0, 1.0])
    for _ in range(order):
        polynomial = polynomial.deriv() * Polynomial([1.0, 0.0, -1.0])
    return math.fsum(
        v * a**order * polynomial(math.tanh(b))
        for v, a, b in zip(OUTER, SLOPES, SHIFTS, strict=True)
    )


LINES = {
    "sine": Line(lambda t: math.sin(1.3 * t + 0.4), sine),
    "exponential": Line(math.exp, lambda order: 1.0),
    "network": Line(network, network_derivative),
}


def mean_estimate(kernel: Kernel, value: Callable[[float], float], scale: float) -> float:
    """E[Σ [f(εr) − f(−εr)] / (2ε) · K(r)]."""

    def estimate(nodes: tuple[Node, ...]) -> float:
        return math.fsum(
            (value(scale * r) - value(-scale * r)) / (2 * scale) * weight for r, weight in nodes
        )

    return expectation(kernel, estimate)


def rounding_of(kernel: Kernel, size: Callable[[float], float], scale: float) -> float:
    """What rounding adds up to in `mean_estimate`: of f, K, the sum, and the rule's own points."""

    def total(nodes: tuple[Node, ...]) -> float:
        return math.fsum(
            (abs(size(scale * r)) + abs(size(-scale * r))) / (2 * scale) * abs(weight)
            for r, weight in nodes
        )

    return 32 * ROUNDING * expectation(kernel, total)


def theory(kernel: Kernel, line: Line, scale: float) -> float:
    """lead·ε^m·f^(m+1)(0) / (m+1)!."""
    m = kernel.order
    factor = float(kernel.lead) * line.derivative(m + 1) / math.factorial(m + 1)
    return factor * scale**m


def visible_scales(kernel: Kernel, line: Line) -> Iterator[float]:
    """Values of ε at which theory's bias exceeds 100 times the rounding, largest first."""
    for scale in SCALES:
        if abs(theory(kernel, line, scale)) > 100 * rounding_of(kernel, line.value, scale):
            yield scale


@each_kernel
def test_polynomials_up_to_the_order_have_no_bias(name: str) -> None:
    kernel = KERNELS[name]
    rng = np.random.default_rng(7)
    for degree in range(1, kernel.order + 1):
        polynomial = Polynomial(rng.normal(size=degree + 1))
        size = Polynomial(np.abs(polynomial.coef))
        bias = mean_estimate(kernel, polynomial, 0.5) - kernel.gain() * polynomial.coef[1]
        assert abs(bias) <= 10 * rounding_of(kernel, size, 0.5)


@each_kernel
def test_a_polynomial_of_one_degree_more_has_the_bias_of_the_lead(name: str) -> None:
    kernel = KERNELS[name]
    power = kernel.order + 1
    found = mean_estimate(kernel, lambda t: t**power, 0.5)
    assert found == pytest.approx(float(kernel.lead) * 0.5**kernel.order, rel=1e-9)


@each_kernel
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_the_bias_has_the_order_and_the_coefficient_of_theory(name: str, line: Line) -> None:
    kernel = KERNELS[name]
    scales = list(visible_scales(kernel, line))[-4:]
    assert len(scales) == 4
    truth = kernel.gain() * line.derivative(1)
    biases = [mean_estimate(kernel, line.value, scale) - truth for scale in scales]
    for (large, small), (wide, narrow) in zip(
        itertools.pairwise(biases), itertools.pairwise(scales), strict=True
    ):
        assert math.log(large / small) / math.log(wide / narrow) == pytest.approx(
            kernel.order, abs=0.1
        )
    assert biases[-1] == pytest.approx(theory(kernel, line, scales[-1]), rel=0.03)


def test_an_unrescaled_kernel_on_half_the_interval_cancels_nothing() -> None:
    """C = 4 on [−1/2, 1/2]: the bias is .142 of MeZO's, a linear kernel's there .150."""
    kernel = KERNELS["legendre4_released"]
    assert isinstance(kernel, OneNodeKernel)
    halved = [
        (p, 0.5 * node.radius, kernel.weight(0.5 * node.radius))
        for p, (node,) in expectation_nodes(kernel)
    ]
    gain, cube = (sum(p * r**j * weight for p, r, weight in halved) for j in (1, 3))
    assert gain == pytest.approx(kernel.gain(0.5, rescale=False))
    assert cube / gain == pytest.approx(0.142, abs=5e-4)


BLOCK_SLOPES, BLOCK_SHIFT = (0.7, -1.1), 0.4
"""f(t_1, t_2) = exp(a_1 t_1)·sin(a_2 t_2 + s): mixed derivatives of every order."""


def two_blocks(t: float, s: float) -> float:
    return math.exp(BLOCK_SLOPES[0] * t) * math.sin(BLOCK_SLOPES[1] * s + BLOCK_SHIFT)


def two_blocks_derivative(first: int, second: int) -> float:
    """∂^(first + second) f / ∂t_1^first ∂t_2^second at 0."""
    a, b = BLOCK_SLOPES
    return a**first * b**second * math.sin(BLOCK_SHIFT + second * math.pi / 2)


def mean_block_estimate(kernel: Kernel, block: int, scale: float) -> float:
    """E[ [f(εr_1, εr_2) − f(−εr_1, −εr_2)] / (2ε) · K(r_b) ] for independent r_1 and r_2."""
    nodes = [(p, node) for p, (node,) in expectation_nodes(kernel)]
    return math.fsum(
        p
        * q
        * (two_blocks(scale * r, scale * s) - two_blocks(-scale * r, -scale * s))
        / (2 * scale)
        * (weight, other)[block]
        for (p, (r, weight)), (q, (s, other)) in itertools.product(nodes, repeat=2)
    )


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize(
    "name", ["sign", "legendre2", "legendre4", "legendre6", "gaussian4", "min_variance4"]
)
def test_a_radius_for_each_tensor_leaves_a_bias_of_second_order(name: str, block: int) -> None:
    """The cross terms are left: the weight of one block does not cancel another's radius.

    With an independent r_b for each block b, the coefficient of block b has the mean

        E[ [f(εr) − f(−εr)] / (2ε) · K(r_b) ]
            = Σ_i f_i E[r_i K(r_b)] + ε²/6 Σ_ijk f_ijk E[r_i r_j r_k K(r_b)] + O(ε⁴).

    Under a symmetric law what is left of the first sum is i = b, and of the second i = j = k = b
    and the three places that one b can have beside a pair b'b'. The bias is therefore

        ε²/6 · (E[r³K]·f_bbb + 3·E[rK]·E[r²]·Σ_{b'≠b} f_bb'b'),

    in which only E[r³K] vanishes from order 4 on.
    """
    kernel = KERNELS[name]
    second_moment = expectation(kernel, lambda nodes: nodes[0].radius ** 2)
    own = two_blocks_derivative(*((3, 0), (0, 3))[block])
    crossed = two_blocks_derivative(*((1, 2), (2, 1))[block])
    third_moment = float(kernel.expectation(3))
    coefficient = (third_moment * own + 3 * second_moment * crossed) / 6
    truth = two_blocks_derivative(*((1, 0), (0, 1))[block])
    wide, narrow = (mean_block_estimate(kernel, block, scale) - truth for scale in (0.04, 0.02))
    assert math.log2(wide / narrow) == pytest.approx(2, abs=0.02)
    assert narrow / 0.02**2 == pytest.approx(coefficient, rel=0.01)


@pytest.mark.parametrize("block", [0, 1])
def test_positive_radii_for_each_tensor_mix_the_blocks(block: int) -> None:
    """The discrete law is not symmetric: f_b'·E[r]·E[K] is left, whatever ε.

    The mean over u of that term is zero, because f_b' is linear in u_b'; it is noise, not bias.
    """
    kernel = KERNELS["discrete4"]
    radius = expectation(kernel, lambda nodes: nodes[0].radius)
    mixing = radius * float(kernel.expectation(0))
    own, other = two_blocks_derivative(1, 0), two_blocks_derivative(0, 1)
    expected = (own + mixing * other, other + mixing * own)[block]
    assert mean_block_estimate(kernel, block, 1e-3) == pytest.approx(expected, rel=1e-5)


def bias_over_directions(kernel: Kernel, scope: str, num_blocks: int) -> Fraction:
    """Σ_b E[(Σ_a r_a u_a)³ K(r_b) u_b] over uniform r and u ~ N(0, I), from moments alone.

    It is 6/ε² times the bias, summed over the blocks, of the estimate for L = (Σ_a θ_a)³ / 6, with
    one coordinate in a block; L has all its third derivatives equal to 1.
    """
    normal, uniform = DENSITIES["normal"].moment, DENSITIES["uniform"].moment
    total = Fraction(0)
    for *places, b in itertools.product(range(num_blocks), repeat=4):
        powers = [places.count(block) for block in range(num_blocks)]
        directions = math.prod(normal(n + (block == b)) for block, n in enumerate(powers))
        if directions and scope == "step":
            total += directions * kernel.expectation(3)
        elif directions:
            others = math.prod(uniform(n) for block, n in enumerate(powers) if block != b)
            total += directions * others * kernel.expectation(powers[b])
    return total


def test_a_radius_for_each_of_8_tensors_leaves_7_24ths_of_the_bias_of_mezo() -> None:
    """(1 − 1/B)·E[r²] of it at order 4; nothing with one r for a step.

    Over Gaussian u, Isserlis' pairs leave 3·Σ_a f_aab of MeZO's third-order term. A pair in
    another block counts E[r²] = 1/3, one in b's own block E[r³K] = 0; B blocks of equal size have
    the share 1/B each.
    """
    mezo = bias_over_directions(ConstantKernel(), "step", 8)
    kernel = PolynomialKernel("uniform", 4)
    assert mezo == 3 * 8 * 8
    assert bias_over_directions(kernel, "step", 8) == 0
    assert bias_over_directions(kernel, "tensor", 8) / mezo == Fraction(7, 24)
