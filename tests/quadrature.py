"""Expectations over a kernel's r by quadrature: a second way beside its exact moments.

The law of r comes from scipy's or numpy's rules, never from the kernel's own moments or quantile;
the weights K(r) are the kernel's own, in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.special
import yaml

from kerzoo.build import build
from kerzoo.kernels import (
    ConstantKernel,
    DiscreteKernel,
    Kernel,
    MinVarianceKernel,
    Node,
    OneNodeKernel,
    PolynomialKernel,
    RichardsonKernel,
    SignKernel,
)

FOLDER = Path(__file__).resolve().parents[1] / "conf" / "kernel"
KERNELS: dict[str, Kernel] = {
    path.stem: build(yaml.safe_load(path.read_text(encoding="utf-8")), "kernel")
    for path in sorted(FOLDER.glob("*.yaml"))
}
"""Every kernel that a configuration can name."""

NUM_POINTS = 40
"""Of a rule; exact for polynomials of degree 79."""

JACOBI_EXPONENTS = {
    "uniform": 0.0,
    "epanechnikov": 1.0,
    "biweight": 2.0,
    "semicircle": 0.5,
    "arcsine": -0.5,
}


@functools.cache
def expectation_nodes(kernel: Kernel) -> list[tuple[float, tuple[Node, ...]]]:
    """(probability, nodes) of draws at d = 1 over which a sum is the expectation over r."""
    if isinstance(kernel, RichardsonKernel):
        return [(1.0, kernel.draw(0.0))]
    assert isinstance(kernel, OneNodeKernel)
    radii, probabilities = rule_of(kernel)
    return [
        (float(p), (Node(float(r), kernel.weight(float(r))),))
        for r, p in zip(radii, probabilities / np.sum(probabilities), strict=True)
    ]


def rule_of(kernel: OneNodeKernel) -> tuple[np.ndarray, np.ndarray]:
    """Radii and probabilities (not normalised) that stand for the law of r."""
    if isinstance(kernel, ConstantKernel):
        return np.ones(1), np.ones(1)
    if isinstance(kernel, DiscreteKernel):
        radii, weights = extrapolation(kernel.order // 2)
        return radii, np.abs(weights)
    if isinstance(kernel, MinVarianceKernel):
        return on_both_sides(kernel.floor)
    if isinstance(kernel, SignKernel):
        return on_both_sides(0.0)
    assert isinstance(kernel, PolynomialKernel)
    if kernel.density == "normal":
        return scipy.special.roots_hermitenorm(NUM_POINTS)
    exponent = JACOBI_EXPONENTS[kernel.density]
    return scipy.special.roots_jacobi(NUM_POINTS, exponent, exponent)


def on_both_sides(floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre on [−1, −floor] and on [floor, 1]."""
    points, shares = np.polynomial.legendre.leggauss(NUM_POINTS // 2)
    radii = floor + (1.0 - floor) * (points + 1.0) / 2.0
    return np.concatenate([-radii, radii]), np.concatenate([shares, shares])


def extrapolation(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes i/k, and the weights with Σ w = 1, Σ w r^(2j) = 0, from their Vandermonde system."""
    radii = np.arange(1, num_nodes + 1) / num_nodes
    system = np.vander(radii**2, increasing=True).T
    return radii, np.linalg.solve(system, np.eye(num_nodes)[0])


def expectation(kernel: Kernel, value: Callable[[tuple[Node, ...]], float]) -> float:
    """E[value(nodes)] over the draws of a kernel at d = 1."""
    return sum(p * value(nodes) for p, nodes in expectation_nodes(kernel))
