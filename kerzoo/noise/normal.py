"""Standard normal values from random bits, the same bits on every processor.

ln, cos and sin are the polynomials of Cephes, and not torch's own, whose last bits change with its
version and the processor. The rest are products, sums and square roots, which IEEE 754 defines.

Source: S. L. Moshier, Cephes, logf and sinf in single precision.
"""

from __future__ import annotations

import math

import torch

LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
"""ln(1 + x) = x − x²/2 + x³·P(x) for 1 + x in [√½, √2)."""
LOG_2 = (0.693359375, -2.12194440e-4)
"""ln 2 in two parts, of which the first multiplies a small integer exactly."""
SQRT_HALF = 0.70710678
SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
"""sin x = x + x³·P(x²) for |x| ≤ π/4."""
COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
"""cos x = 1 − x²/2 + x⁴·P(x²) for |x| ≤ π/4."""


def normal_from_bits(bits: torch.Tensor) -> torch.Tensor:
    """Box and Muller: √(−2 ln u)·cos(2πv) and √(−2 ln u)·sin(2πv), |z| < 6.8.

    Args:
        bits: Uniform in [0, 2³²); rows (0, 1) and (2, 3) make a pair each. Shape: [4, n], int64.

    Returns:
        Standard normal values. Shape: [4, n], fp32.
    """
    square = _log(bits[0::2].float() * 2.0**-32 + 2.0**-33) * -2.0
    radius = square.double().sqrt().float()  # torch's root in fp32 is not the nearest number
    cos, sin = _cos_sin(bits[1::2])
    return torch.stack([radius * cos, radius * sin], dim=1).reshape(4, -1)


def _log(value: torch.Tensor) -> torch.Tensor:
    """ln of numbers in (0, 1]."""
    mantissa, exponent = torch.frexp(value)
    is_small = mantissa < SQRT_HALF
    power = (exponent - is_small.int()).float()
    x = mantissa + torch.where(is_small, mantissa, 0.0) - 1.0
    square = x * x
    tail = _polynomial(LOG, x) * x * square + power * LOG_2[1] - square * 0.5
    return x + tail + power * LOG_2[0]


def _cos_sin(bits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the angles 2π·bits / 2³²: by the nearest quarter turn, and the rest in [−π/4, π/4)."""
    quarter = (bits + (1 << 29) >> 30) & 3
    rest = ((bits << 2) + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
    x = rest.float() * (math.pi / 4 * 2.0**-31)
    square = x * x
    sin = _polynomial(SIN, square) * square * x + x
    cos = _polynomial(COS, square) * square * square - square * 0.5 + 1.0
    is_swapped = quarter & 1 == 1
    cos, sin = torch.where(is_swapped, sin, cos), torch.where(is_swapped, cos, sin)
    return torch.where(quarter + 1 & 2 == 2, -cos, cos), torch.where(quarter & 2 == 2, -sin, sin)


def _polynomial(coefficients: tuple[float, ...], x: torch.Tensor) -> torch.Tensor:
    """By Horner's rule, the highest power first."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
