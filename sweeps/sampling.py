"""Points of the unit cube, from which the drawn dimensions of a space take their values.

Every drawn key has a coordinate of its own, and every cell of the grid beside it uses the same
points: arms are compared at the same hyperparameters, whichever of them each arm has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np
from scipy.stats import qmc

from sweeps.schema import SearchOptions

Point = dict[str, float]
"""Drawn key → coordinate in [0, 1)."""


def draw_points(search: SearchOptions, keys: Iterable[str]) -> list[Point]:
    """`search.num_samples` points, from `search.seed` alone.

    random: each key's coordinates are a stream of their own, so that more points or more keys
    change no earlier point. sobol: a scrambled Sobol sequence whose dimensions are the sorted
    keys; more points change no earlier one, another key does. A power of two of points is balanced.
    optuna: the first generation, drawn as sobol.

    Args:
        search: How many, how, and from which seed.
        keys: The drawn ones.

    Source: Owen 1998, Scrambling Sobol' and Niederreiter–Xing points.
    """
    names, number = sorted(set(keys)), search.num_samples
    if search.name == "optuna":
        number = min(number, search.generation)
    if search.name != "random" and names:
        engine = qmc.Sobol(len(names), scramble=True, rng=np.random.default_rng(search.seed))
        columns = engine.random_base2(math.ceil(math.log2(number)))[:number].T
    else:
        columns = np.array([_stream(search.seed, name).random(number) for name in names])
    return [dict(zip(names, map(float, point), strict=True)) for point in columns.T]


def _stream(seed: int, key: str) -> np.random.Generator:
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
