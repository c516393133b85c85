"""Kernels K(r): what a loss difference at radius r counts for, built from exact moments.

A zeroth-order step perturbs the weights by ±ε·r·u and steps along

    g = (L(θ + ε·r·u) − L(θ − ε·r·u)) / (2ε) · K(r) · u.

Expanding the difference in odd powers of ε·r, the mean of g over r is C·∇L·u·u up to O(ε^m) when

    E[r·K(r)] = C   and   E[r^j·K(r)] = 0   for odd j with 1 < j < m + 1.

m is the kernel's order, and C is 1 unless a kernel says otherwise. No coefficient is typed in:
each kernel is the solution of these equations in exact rational arithmetic for the moments of the
law of r.

Sources: Polyak & Tsybakov 1990; Bach & Perchet 2016 (arXiv 1605.08165); Akhavan, Chzhen, Pontil &
Tsybakov, JMLR 2024; Mi et al. 2025 (KerZOO, arXiv 2505.18886); Malladi et al. 2023 (MeZO, arXiv
2305.17333). The literature prints the uniform order-6 kernel with the constant 195/64; the
moments give 105/64.

`python -m kerzoo.kernels` prints them all.
"""

from kerzoo.kernels.base import Kernel, Node, OneNodeKernel
from kerzoo.kernels.densities import DENSITIES, Density
from kerzoo.kernels.nodes import ConstantKernel, DiscreteKernel, RichardsonKernel
from kerzoo.kernels.polynomial import MinVarianceKernel, PolynomialKernel, SignKernel
from kerzoo.kernels.table import format_table

__all__ = [
    "DENSITIES",
    "ConstantKernel",
    "Density",
    "DiscreteKernel",
    "Kernel",
    "MinVarianceKernel",
    "Node",
    "OneNodeKernel",
    "PolynomialKernel",
    "RichardsonKernel",
    "SignKernel",
    "format_table",
]
