"""How much of an outcome's variance each factor and each pair of factors explains.

Every function takes outcomes of shape (…, n), so that a study and its permutations go through
together, and one orthonormal basis of shape (n, k) for each effect.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bases = Mapping[str, Floats]

DEGREE = 3
"""Of the polynomials of a continuous factor."""
RIDGES = np.logspace(-4, 3, 15)
"""Penalties among which generalised cross-validation chooses."""


class Importance(NamedTuple):
    """An effect's importance beside what chance alone gives.

    Attributes:
        value: A share of the variance, or a divergence.
        null: What 95 % of the permutations stay below.
        p: (b + 1) / (m + 1), with b of m permutations at least as large.
    """

    value: float
    null: float
    p: float


def is_balanced(codes: Sequence[Integers]) -> bool:
    """Whether every combination of levels occurs equally often."""
    if not codes:
        return False
    found, counts = np.unique(np.stack(codes), axis=1, return_counts=True)
    full = int(np.prod([len(np.unique(levels)) for levels in codes]))
    return found.shape[1] == full and len(set(counts.tolist())) == 1


def contrasts(levels: Integers) -> Floats:
    """An orthonormal basis of the functions of a factor's level with mean zero over the sample.

    Shapes:
        levels (n,) → (n, k − 1) for k levels that occur.
    """
    names, codes = np.unique(levels, return_inverse=True)
    indicators = np.eye(len(names))[codes]
    indicators -= indicators.mean(axis=0)
    basis, _ = np.linalg.qr(indicators[:, 1:])
    return np.asarray(basis, dtype=np.float64)


def polynomials(values: ArrayLike, degree: int = DEGREE) -> Floats:
    """A basis for a continuous factor: Legendre polynomials of its ranks, with mean square 1 / n.

    Shapes:
        values (n,) → (n, degree).
    """
    x = np.asarray(values, dtype=np.float64)
    ranks = np.searchsorted(np.sort(x), x, side="left") + 0.5
    t = 2 * ranks / x.size - 1
    columns = [
        np.polynomial.Legendre.basis(d)(t) * np.sqrt(2 * d + 1) for d in range(1, degree + 1)
    ]
    return np.asarray(np.stack(columns, axis=1) / np.sqrt(x.size))


def with_pairs(mains: Bases) -> dict[str, Floats]:
    """The main effects' bases and, as their products, those of all pairs: "a × b"."""
    pairs = {}
    for (first, a), (second, b) in itertools.combinations(mains.items(), 2):
        product = (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
        pairs[f"{first} × {second}"] = product * np.sqrt(len(a))
    return {**mains, **pairs}


def explained_shares(outcomes: ArrayLike, bases: Bases) -> dict[str, Floats]:
    """The share of the sum of squares that lies in each effect's space: Σ (qᵀy)² / Σ (y − ȳ)².

    On a balanced grid the spaces of mains and pairs are orthogonal, and this is the analysis of
    variance; what is missing to 1 is of higher order. NaN where the outcome does not vary.

    Shapes:
        outcomes (…, n) → (…) for each effect.
    """
    y = np.asarray(outcomes, dtype=np.float64)
    y = y - y.mean(axis=-1, keepdims=True)
    total = (y**2).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: ((y @ basis) ** 2).sum(axis=-1) / total for name, basis in bases.items()}


class Surrogate(NamedTuple):
    """A polynomial model of the outcome, decomposed.

    Attributes:
        shares: Effect → the variance that its terms have in the model, over that of the outcome.
        fit: R² of leaving one out.
    """

    shares: dict[str, Floats]
    fit: Floats


def surrogate_shares(outcomes: ArrayLike, bases: Bases) -> Surrogate:
    """The variance of each effect's terms in a ridge regression on all bases together.

    The terms are orthonormal under the law that the settings were drawn from, so the functional
    analysis of variance of the model is the sum of its squared coefficients by effect (polynomial
    chaos). The penalty is the one that generalised cross-validation chooses for the first outcome:
    permutations must be shrunk as the real outcome is, or the null is too narrow. R² is that of
    predicting each outcome from all others.

    Shapes:
        outcomes (…, n) → (…) for each effect.

    Source:
        Sudret, Reliab. Eng. Syst. Saf. 93 (2008).
    """
    y = np.atleast_2d(np.asarray(outcomes, dtype=np.float64))
    y = y - y.mean(axis=-1, keepdims=True)
    n = y.shape[-1]
    X = np.concatenate(list(bases.values()), axis=1) * np.sqrt(n)
    X = X - X.mean(axis=0)
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    z, total = y @ U, (y**2).sum(axis=-1)
    shrinks = s**2 / (s**2 + n * RIDGES[:, None])  # (penalties, rank)
    losses = total[0] - (2 * shrinks - shrinks**2) @ z[0] ** 2
    shrink = shrinks[(losses / (n - 1 - shrinks.sum(axis=1)) ** 2).argmin()]
    with np.errstate(invalid="ignore", divide="ignore"):
        coefficients = (z * np.where(s > 1e-10, shrink / s, 0.0)) @ Vt
        left = (y - (z * shrink) @ U.T) / (1 - 1 / n - shrink @ (U**2).T)
        alone = y * n / (n - 1)  # the error of the others' mean
        fit = 1 - (left**2).sum(axis=-1) / (alone**2).sum(axis=-1)
        shares, start = {}, 0
        for name, basis in bases.items():
            stop = start + basis.shape[1]
            part = (coefficients[:, start:stop] ** 2).sum(axis=-1) * n / total
            shares[name] = part.reshape(np.shape(outcomes)[:-1])
            start = stop
    return Surrogate(shares, fit.reshape(np.shape(outcomes)[:-1]))


def top_divergences(
    outcomes: ArrayLike, levels: Mapping[str, Integers], top: float = 0.2
) -> dict[str, Floats]:
    """How unlike the law of each factor is among the best trials to that among all.

    PED-ANOVA with histograms: Σ p(l) · (q(l) / p(l) − 1)², with p the shares of the levels among
    all trials and q among the best `top` of them, which is shrunk towards p by one trial's weight.

    Args:
        outcomes: Lower is better, infinite for those that diverged; shape (…, n).
        levels: Factor → level of each trial; shape (n,).
        top: The share of trials that count as the best, at least three of them.

    Source:
        Watanabe, Bansal and Hutter, IJCAI 2023, arXiv 2304.10255.
    """
    y = np.asarray(outcomes, dtype=np.float64)
    count = max(3, round(top * y.shape[-1]))
    best = np.argsort(y, axis=-1, kind="stable")[..., :count]
    is_best = np.zeros(y.shape)
    np.put_along_axis(is_best, best, 1.0, axis=-1)
    found = {}
    for name, codes in levels.items():
        indicators = np.equal.outer(codes, np.unique(codes)).astype(np.float64)
        everywhere = indicators.mean(axis=0)
        there = (is_best @ indicators + everywhere) / (count + 1)
        found[name] = (everywhere * (there / everywhere - 1) ** 2).sum(axis=-1)
    return found


def permutations(outcome: Floats, number: int, generator: np.random.Generator) -> Floats:
    """The outcome in random orders; shape (…, n) → (…, number, n)."""
    repeated = np.repeat(outcome[..., None, :], number, axis=-2)
    return generator.permuted(repeated, axis=-1)


def against_chance(value: ArrayLike, null: ArrayLike) -> Importance:
    """An importance with the 95 % bound and the p-value of its permutations."""
    observed, drawn = float(np.asarray(value)), np.asarray(null, dtype=np.float64)
    if np.isnan(observed):
        return Importance(observed, observed, observed)
    extreme = int((drawn >= observed - 1e-12).sum())
    return Importance(observed, float(np.quantile(drawn, 0.95)), (extreme + 1) / (drawn.size + 1))


def bins_of(values: ArrayLike) -> Integers:
    """Equally full bins of a continuous factor: five, ten from 200 trials on."""
    x = np.asarray(values, dtype=np.float64)
    number = 5 if x.size < 200 else 10
    edges = np.quantile(x, np.arange(1, number) / number)
    return np.searchsorted(edges, x, side="right").astype(np.int64)
