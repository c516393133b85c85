"""Kernels: exact figures against published closed forms, laws of r, errors, the command."""

from __future__ import annotations

import math
import runpy
import subprocess
import sys
from fractions import Fraction

import pytest
from quadrature import expectation

from kerzoo.kernels import (
    DENSITIES,
    ConstantKernel,
    DiscreteKernel,
    Kernel,
    MinVarianceKernel,
    Node,
    PolynomialKernel,
    RichardsonKernel,
    SignKernel,
    format_table,
)
from kerzoo.kernels.densities import Density, GappedUniformDensity, GegenbauerDensity
from kerzoo.kernels.nodes import richardson_weights

ORDERS = (2, 4, 6, 8, 10, 12, 14)
LAWS: dict[str, Density] = DENSITIES | {
    "gapped": GappedUniformDensity(Fraction(1, 4)),
    "triweight": GegenbauerDensity(Fraction(3)),
    "three halves": GegenbauerDensity(Fraction(3, 2)),
}

# Family, order: K(r), V_n, V_s, lead.
CLOSED_FORMS = {
    ("uniform", 2): ("3·r", "3", "9/5", "3/5"),
    ("uniform", 4): ("15/4·r·(5 - 7·r^2)", "75/4", "25/4", "-5/21"),
    ("uniform", 6): ("105/64·r·(35 - 126·r^2 + 99·r^4)", "3675/64", "11025/832", "35/429"),
    ("uniform", 8): (
        "315/256·r·(105 - 693·r^2 + 1287·r^4 - 715·r^6)",
        "33075/256",
        "99225/4352",
        "-63/2431",
    ),
    ("epanechnikov", 2): ("5·r", "5", "15/7", "3/7"),
    ("epanechnikov", 4): ("35/8·r·(5 - 9·r^2)", "175/8", "525/88", "-5/33"),
    ("epanechnikov", 6): ("105/64·r·(35 - 154·r^2 + 143·r^4)", "3675/64", "735/64", "7/143"),
    ("biweight", 4): ("21/4·r·(5 - 11·r^2)", "105/4", "315/52", "-15/143"),
    ("semicircle", 2): ("4·r", "4", "2", "1/2"),
    ("semicircle", 4): ("4·r·(5 - 8·r^2)", "20", "6", "-3/16"),
    ("semicircle", 6): ("8·r·(7 - 28·r^2 + 24·r^4)", "56", "12", "1/16"),
    ("semicircle", 8): ("8·r·(15 - 108·r^2 + 216·r^4 - 128·r^6)", "120", "20", "-5/256"),
    ("arcsine", 2): ("2·r", "2", "3/2", "3/4"),
    ("arcsine", 4): ("4·r·(5 - 6·r^2)", "20", "15/2", "-5/16"),
    ("arcsine", 6): ("2·r·(35 - 112·r^2 + 80·r^4)", "70", "35/2", "7/64"),
    ("arcsine", 8): ("8·r·(21 - 126·r^2 + 216·r^4 - 112·r^6)", "168", "63/2", "-9/256"),
    ("normal", 2): ("r", "1", "3", "3"),
    ("normal", 4): ("1/2·r·(5 - r^2)", "5/2", "15/2", "-15"),
    ("normal", 6): ("1/8·r·(35 - 14·r^2 + r^4)", "35/8", "105/8", "105"),
    ("normal", 8): ("1/48·r·(315 - 189·r^2 + 27·r^4 - r^6)", "105/16", "315/16", "-945"),
}
OTHERS: list[tuple[Kernel, tuple[str, ...]]] = [
    (ConstantKernel(), ("1", "1", "1", "1")),
    (SignKernel(), ("2·sgn(r)", "4", "4/3", "1/2")),
    (DiscreteKernel(4), ("10/3 at 1/2, -5/3 at 1", "85/9", "25/9", "-1/4")),
    (RichardsonKernel(4), ("8/3 at 1/2, -1/3 at 1", "65/9", "1", "-1/4")),
    (MinVarianceKernel(2), ("1/r", "4", "1", "7/16")),
    (
        MinVarianceKernel(4, 0.25),
        ("1/96·(341 - 560·r^2)/r", "18367/768", "341/96", "-1687/10240"),
    ),
]
KERNELS = [
    *((PolynomialKernel(*key), figures) for key, figures in CLOSED_FORMS.items()),
    *OTHERS,
]


@pytest.mark.parametrize(
    ("kernel", "figures"), KERNELS, ids=[f"{k.family}-{k.order}" for k, _ in KERNELS]
)
def test_kernels_equal_their_closed_forms(kernel: Kernel, figures: tuple[str, ...]) -> None:
    found = (kernel.noise_amplification, kernel.signal_variance, kernel.lead)
    assert (kernel.formula, *map(str, found)) == figures
    assert kernel.expectation(1) == 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("density", DENSITIES)
def test_all_odd_moments_below_the_order_vanish_and_the_first_is_one(
    density: str, order: int
) -> None:
    kernel = PolynomialKernel(density, order)
    assert kernel.expectation(1) == 1
    assert all(kernel.expectation(j) == 0 for j in range(3, order + 1, 2))
    assert kernel.lead != 0


@pytest.mark.parametrize("order", ORDERS[1:])
@pytest.mark.parametrize("family", [DiscreteKernel, RichardsonKernel, MinVarianceKernel])
def test_the_other_families_keep_the_same_moments(family: type[Kernel], order: int) -> None:
    kernel = family(order)  # type: ignore[call-arg]
    assert kernel.expectation(1) == 1
    assert all(kernel.expectation(j) == 0 for j in range(3, order + 1, 2))
    assert kernel.lead != 0


def test_the_constant_printed_in_the_literature_for_order_6_misses_the_unit_moment() -> None:
    printed = Fraction(195, 64)
    first_moment = printed * (Fraction(35, 3) - Fraction(126, 5) + Fraction(99, 7))
    assert first_moment == Fraction(13, 7)


def test_the_float_weight_equals_the_exact_polynomial() -> None:
    r = Fraction(3, 7)
    for kernel in (PolynomialKernel("uniform", 8), MinVarianceKernel(6)):
        powers = range(kernel.lowest_power, kernel.lowest_power + kernel.order, 2)
        exact = sum(c * r**p for c, p in zip(kernel.coefficients, powers, strict=True))
        assert kernel.weight(float(r)) == pytest.approx(float(exact), rel=1e-13)


def test_the_released_code_has_four_times_the_published_kernel() -> None:
    kernel = PolynomialKernel("uniform", 4, first_moment=4)
    assert kernel.formula == "15·r·(5 - 7·r^2)"
    assert kernel.expectation(1) == 4
    assert PolynomialKernel("normal", 6, 0.1).expectation(1) == Fraction(1, 10)


@pytest.mark.parametrize(
    ("half_width", "gain", "variance", "bias", "linear_bias"),
    [
        (1.0, 4.00, 6.25, 0.0, 0.60),
        (0.9, 6.47, 1.66, 0.289, 0.486),
        (0.75, 7.42, 1.42, 0.280, 0.338),
        (0.5, 4.94, 1.64, 0.142, 0.150),
        (0.25, 1.48, 1.76, 0.037, 0.0375),
        (0.1, 0.248, 1.79, 0.006, 0.006),
    ],
)
def test_shrinking_the_released_kernel_unrescaled_makes_it_a_linear_one(
    half_width: float, gain: float, variance: float, bias: float, linear_bias: float
) -> None:
    def moment(kernel: PolynomialKernel, power: int, kernel_power: int = 1) -> float:
        def value(nodes: tuple[Node, ...]) -> float:
            r = half_width * nodes[0].radius
            return r**power * kernel.weight(r) ** kernel_power

        return expectation(kernel, value)

    released = PolynomialKernel("uniform", 4, first_moment=4)
    found = released.gain(half_width, rescale=False)
    assert found == pytest.approx(half_width**2 * (25 - 21 * half_width**2), rel=1e-12)
    assert found == pytest.approx(gain, abs=6e-3)
    assert moment(released, 2, 2) / found**2 == pytest.approx(variance, abs=6e-3)
    assert moment(released, 3) / found == pytest.approx(bias, abs=6e-4)
    linear = PolynomialKernel("uniform", 2)
    assert moment(linear, 3) / moment(linear, 1) == pytest.approx(linear_bias, abs=6e-4)
    assert released.gain(half_width) == 4
    assert linear.gain(half_width, rescale=False) == pytest.approx(half_width**2)
    assert SignKernel().gain(half_width, rescale=False) == half_width


def test_a_fraction_of_the_draws_of_the_published_kernel_ascends() -> None:
    """r·K < 0 for |r| > √(5/7), 15.5 % of the draws; at most 7.5 times a step of MeZO."""
    kernel = PolynomialKernel("uniform", 4)
    products = [r * k for ((r, k),) in (kernel.draw(i / 10_000) for i in range(10_000))]
    assert sum(product < 0 for product in products) / 10_000 == pytest.approx(0.155, abs=1e-3)
    assert min(products) == pytest.approx(-7.5)


@pytest.mark.parametrize("density", LAWS.values(), ids=LAWS)
def test_the_quantile_inverts_the_distribution_and_is_antisymmetric(density: Density) -> None:
    previous = -math.inf
    for i in range(512):
        u = i / 512
        r = density.quantile(u)
        assert r > previous
        assert density.cdf(r) == pytest.approx(u, abs=2e-14)
        if i:
            assert density.quantile(1 - u) == -r or u == 0.5
        previous = r
    assert density.quantile(0.75) > 0


@pytest.mark.parametrize("density", LAWS.values(), ids=LAWS)
def test_the_ends_of_the_uniform_numbers_have_finite_quantiles(density: Density) -> None:
    low, high = density.quantile(0.0), density.quantile(1.0 - 2.0**-53)
    assert -9 < low < -1 + 1e-4
    assert 1 - 1e-4 < high < 9


@pytest.mark.parametrize(
    ("exponent", "formula"),
    [
        ("0", "1/2 on [-1, 1]"),
        ("1", "3/4·(1 - r^2)"),
        ("2", "15/16·(1 - r^2)^2"),
        ("1/2", "2/π·(1 - r^2)^(1/2)"),
        ("-1/2", "1/π·(1 - r^2)^(-1/2)"),
        ("3/2", "8/(3π)·(1 - r^2)^(3/2)"),
    ],
)
def test_densities_show_their_normalising_constant(exponent: str, formula: str) -> None:
    assert GegenbauerDensity(Fraction(exponent)).formula == formula


@pytest.mark.parametrize("exponent", ["-1", "1/3", "-3/2"])
def test_an_exponent_without_exact_moments_is_refused(exponent: str) -> None:
    with pytest.raises(ValueError, match=f"multiple of 1/2 and ≥ -1/2, got {exponent}"):
        GegenbauerDensity(Fraction(exponent))


@pytest.mark.parametrize("order", [4, 6, 8])
def test_discrete_probabilities_are_those_of_the_absolute_weights(order: int) -> None:
    kernel = DiscreteKernel(order)
    weights = richardson_weights(order)
    total = sum(map(abs, weights.values()))
    assert sum(kernel.probabilities.values()) == 1
    assert kernel.signal_variance == total**2
    assert {abs(r * value) for r, value in kernel.values.items()} == {total}
    assert {r * value / total > 0 for r, value in kernel.values.items()} == {True, False}
    count = 9_300
    drawn = [kernel.draw((i + 0.5) / count)[0].radius for i in range(count)]
    for r, probability in kernel.probabilities.items():
        assert drawn.count(float(r)) / count == pytest.approx(float(probability), abs=2 / count)


def test_richardson_costs_a_pair_of_forward_passes_for_each_node() -> None:
    kernel = RichardsonKernel(6)
    assert kernel.num_nodes == 3
    assert kernel.draw(0.2, 0.5, rescale=False) == kernel.draw(0.9)
    assert [node.radius for node in kernel.draw(0.0)] == [1 / 3, 2 / 3, 1]
    assert ConstantKernel().num_nodes == DiscreteKernel(6).num_nodes == 1


def test_a_discrete_kernel_has_no_weight_between_its_nodes() -> None:
    with pytest.raises(ValueError, match=r"r must be one of \[0.5, 1.0\], got 0.7"):
        DiscreteKernel(4).weight(0.7)


def test_the_variance_optimal_kernel_nears_its_limit_as_the_floor_falls() -> None:
    first, second = (float(c) for c in MinVarianceKernel(4, 1e-6).coefficients)
    assert (first, second) == (pytest.approx(9 / 4, rel=1e-4), pytest.approx(-15 / 4, rel=1e-4))


@pytest.mark.parametrize("order", [2, 4, 6])
def test_the_least_variance_is_the_first_multiplier_and_below_any_other(order: int) -> None:
    kernel = MinVarianceKernel(order, 0.1)
    assert kernel.signal_variance == kernel.coefficients[0]
    assert kernel.signal_variance < PolynomialKernel("uniform", order).signal_variance


@pytest.mark.parametrize("order", [3, 0, -2, 1])
def test_an_odd_or_small_order_is_refused_with_its_value(order: int) -> None:
    for make in (lambda: PolynomialKernel("uniform", order), lambda: MinVarianceKernel(order)):
        with pytest.raises(ValueError, match=f"order must be even and ≥ 2, got {order}"):
            make()


@pytest.mark.parametrize("order", [2, 5, 0])
def test_richardson_needs_two_nodes(order: int) -> None:
    for family in (DiscreteKernel, RichardsonKernel):
        with pytest.raises(ValueError, match=f"order must be even and ≥ 4, got {order}"):
            family(order)


def test_an_order_must_be_an_integer() -> None:
    with pytest.raises(ValueError, match="order must be an integer, got True"):
        DiscreteKernel(True)


def test_an_unknown_density_is_refused_with_the_allowed_ones() -> None:
    allowed = "arcsine, biweight, epanechnikov, normal, semicircle, uniform"
    with pytest.raises(ValueError, match=f"density must be one of {allowed}, got 'cauchy'"):
        PolynomialKernel("cauchy", 4)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_first_moment_that_is_not_positive_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"first_moment must be finite and > 0, got {value}"):
        PolynomialKernel("uniform", 4, value)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, math.nan])
def test_a_floor_outside_the_interval_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"floor must lie in \(0, 1\), got {value}"):
        MinVarianceKernel(4, value)


def test_the_table_shows_exact_fractions_and_decimals_of_long_ones() -> None:
    table = format_table()
    for text in (
        "15/4·r·(5 - 7·r^2)",
        "105/64·r·(35 - 126·r^2 + 99·r^4)",
        "11025/832",
        "11975935/190597792 ≈ 0.0628335",
    ):
        assert text in table
    assert "18367/768 ≈" not in table


def test_the_command_prints_the_table_without_torch_or_numpy() -> None:
    code = (
        "import runpy, sys; sys.argv[1:] = ['--orders', '2', '10']; "
        "runpy.run_module('kerzoo.kernels', run_name='__main__'); "
        "assert not {'torch', 'numpy', 'scipy'} & set(sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "constant (MeZO)" in printed
    assert {line.split()[0] for line in printed.splitlines() if "  10 " in line} == {
        *DENSITIES,
        "discrete",
        "Richardson",
    }


def test_the_command_refuses_an_odd_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["kernels", "--orders", "3"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("kerzoo.kernels", run_name="__main__")
    assert "order must be even and ≥ 2, got 3" in capsys.readouterr().err
