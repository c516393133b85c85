"""The exact figures of every kernel family, as text."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from kerzoo.kernels.base import Kernel
from kerzoo.kernels.densities import DENSITIES
from kerzoo.kernels.nodes import ConstantKernel, DiscreteKernel, RichardsonKernel
from kerzoo.kernels.polynomial import MinVarianceKernel, PolynomialKernel, SignKernel

ORDERS_SHOWN = (2, 4, 6, 8)
FLOORS_SHOWN = (0.25, 0.1)
MAX_DENOMINATOR = 10**8
"""A fraction with a larger denominator is followed by its decimal value."""

HEADER = ("family", "density of r", "order", "K(r)", "E[rK]", "V_n", "V_s", "lead")


def format_table(orders: Sequence[int] = ORDERS_SHOWN) -> str:
    """Every kernel family with its exact figures, as an aligned table.

    Args:
        orders: The orders to show of the families that have several.
    """
    rows = [HEADER, *map(_row, _kernels(orders))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _kernels(orders: Sequence[int]) -> list[Kernel]:
    """The kernels shown; above order 6 the fractions of min-variance fill more than a line."""
    extrapolated = [order for order in orders if order >= 4]
    return [
        ConstantKernel(),
        SignKernel(),
        *(PolynomialKernel(density, order) for density in DENSITIES for order in orders),
        *(DiscreteKernel(order) for order in extrapolated),
        *(RichardsonKernel(order) for order in extrapolated),
        *(
            MinVarianceKernel(order, floor)
            for floor in FLOORS_SHOWN
            for order in extrapolated
            if order <= 6
        ),
    ]


def _row(kernel: Kernel) -> tuple[str, ...]:
    figures = (
        kernel.expectation(1),
        kernel.noise_amplification,
        kernel.signal_variance,
        kernel.lead,
    )
    return (
        kernel.family,
        kernel.density_formula,
        str(kernel.order),
        kernel.formula,
        *map(_format, figures),
    )


def _format(value: Fraction) -> str:
    if value.denominator < MAX_DENOMINATOR:
        return str(value)
    return f"{value} ≈ {float(value):.6g}"
