"""Outcomes of simulated trials, as arrays over thousands of studies, with a known truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Shape = tuple[int, ...]

DIFFERENCE_LAWS: dict[str, Callable[[np.random.Generator, Shape], Floats]] = {
    "normal": lambda generator, shape: generator.normal(0, 1, shape),
    "t3": lambda generator, shape: generator.standard_t(3, shape),
    "skewed": lambda generator, shape: generator.exponential(1, shape) - 1,
}
"""Laws of paired differences with mean zero."""


def paired_accuracies(
    generator: np.random.Generator, shape: Shape, examples: int = 500
) -> tuple[Floats, float]:
    """Differences of two arms' accuracies on the same examples, and their expectation.

    Each seed has an effect on both arms (sd 2 points) and one on each (sd 1 point); given these
    the numbers of right answers are binomial.
    """
    base, effect = 0.80, 0.02
    shared = generator.normal(0, 0.02, shape)
    arms = [base, base + effect]
    rates = [arm + shared + generator.normal(0, 0.01, shape) for arm in arms]
    counts = [generator.binomial(examples, np.clip(rate, 0, 1)) for rate in rates]
    return (counts[1] - counts[0]) / examples, effect


def simulate_screen(
    generator: np.random.Generator, shape: Shape, effect: float
) -> tuple[Floats, Floats]:
    """Losses at a first and a second rung, correlated .8; the second arm is `effect` better.

    Args:
        generator: Of all randomness.
        shape: (studies, 2 arms, trials).
        effect: Added to the second arm at either rung, in sd of the trials.
    """
    quality = generator.normal(0, 1, shape)
    noise = [generator.normal(0, 1, shape) for _ in range(2)]
    shift = effect * np.arange(2)[:, None]
    first, second = (np.sqrt(0.8) * quality + np.sqrt(0.2) * e + shift for e in noise)
    return first, second


def stop_asynchronously(losses: Floats, factor: float = 3.0) -> NDArray[np.bool_]:
    """Who survives ASHA's rung, trials arriving in the order of their place, arms in turn.

    Of m trials so far, the arriving one included, it goes on if it is among the best
    max(1, floor(m / factor)), or its arm's best; shape as the losses (studies, 2 arms, trials).
    """
    order = losses.transpose(0, 2, 1).reshape(len(losses), -1)
    survives = np.zeros(order.shape, dtype=bool)
    for place in range(order.shape[1]):
        value = order[:, place, None]
        rank = (order[:, :place] < value).sum(axis=1)
        own = (order[:, place % 2 : place : 2] < value).sum(axis=1)
        survives[:, place] = (rank < max(1, int((place + 1) // factor))) | (own == 0)
    return survives.reshape(len(losses), -1, losses.shape[1]).transpose(0, 2, 1)


def halve(losses: Floats) -> NDArray[np.bool_]:
    """Who is among the better half of all arms' trials; shape as the losses."""
    middle = np.median(losses, axis=(1, 2), keepdims=True)
    return np.asarray(losses <= middle)
