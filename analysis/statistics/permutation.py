"""The sign-flip permutation test of paired differences."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_EXACT_PAIRS = 12
"""Up to here all 2ⁿ sign vectors are visited."""
NUM_RANDOM = 9999
"""Random sign vectors beyond that."""


def sign_flip_p(
    differences: ArrayLike, num_random: int = NUM_RANDOM, seed: int = 0
) -> NDArray[np.float64]:
    """The two-sided p-value of a distribution that is symmetric about zero.

    The share of sign vectors whose |sum| is at least the observed one; exact with at most
    `MAX_EXACT_PAIRS` pairs. Beyond that (b + 1) / (m + 1) with m random sign vectors, which is
    valid at every m. The smallest possible value is 2 / 2ⁿ: .0625 with five pairs.

    Args:
        differences: Finite; shape (…, pairs).
        num_random: m.
        seed: Of the random sign vectors.

    Returns:
        Shape (…); NaN without pairs.

    Raises:
        ValueError: If a difference is not finite.

    Source:
        Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010), for (b + 1) / (m + 1).
    """
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("differences must be finite; leave out the pairs that diverged")
    pairs = values.shape[-1]
    if pairs == 0:
        return np.full(values.shape[:-1], np.nan)
    scale = np.abs(values).sum(axis=-1)
    observed = np.abs(values.sum(axis=-1)) - 1e-12 * scale
    if pairs <= MAX_EXACT_PAIRS:
        count = sum(
            (np.abs(values @ signs) >= observed[..., None]).sum(axis=-1)
            for signs in _in_blocks(_all_signs(pairs))
        )
        return np.asarray(count / 2 ** (pairs - 1), dtype=np.float64)
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1.0, 1.0], size=(pairs, num_random))
    extreme = sum(
        (np.abs(values @ block) >= observed[..., None]).sum(axis=-1) for block in _in_blocks(signs)
    )
    return np.asarray((extreme + 1) / (num_random + 1), dtype=np.float64)


def attainable_size(pairs: int, alpha: float = 0.05) -> float:
    """The largest size ≤ α that the exact two-sided test has for continuous differences.

    Args:
        pairs: n ≥ 1.
        alpha: The nominal level.

    >>> attainable_size(5), attainable_size(6), round(attainable_size(10), 4)
    (0.0, 0.03125, 0.0488)
    """
    smallest = 2.0 ** (1 - pairs)
    return math.floor(alpha / smallest + 1e-9) * smallest


def _all_signs(pairs: int) -> NDArray[np.float64]:
    """Half of the sign vectors, the first sign +1: the others only change the sum's sign."""
    numbers = np.arange(2 ** (pairs - 1))
    bits = (numbers[None, :] >> np.arange(pairs - 1)[:, None]) & 1
    return np.vstack([np.ones((1, numbers.size)), 1.0 - 2.0 * bits])


def _in_blocks(signs: NDArray[np.float64], size: int = 512) -> list[NDArray[np.float64]]:
    return [signs[:, start : start + size] for start in range(0, signs.shape[1], size)]
