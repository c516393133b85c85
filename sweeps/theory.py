"""What theory says of each trial's kernel, written into the plan for the analysis to test."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerzoo.estimator import RadiusScope
from kerzoo.kernels import Kernel
from kerzoo.options import TrialOptions
from kerzoo.records import TrialSpec
from kerzoo.schedules import Bandwidth

NUM_NODES = 4096
"""Midpoints of the uniform variable that a draw is made from, where there is no exact figure."""
NUM_WIDTHS = 8
"""Steps of the first stretch at which a bandwidth that changes is looked at."""
SMALLEST_MOMENT = 1e-4
"""Of r^(m+1)·K relative to E[rK], below which a numerical moment counts as zero."""


def describe_kernels(specs: Sequence[TrialSpec], options: Sequence[TrialOptions]) -> dict[str, Any]:
    """The entry `theory` of plan.json.

    Returns:
        `figures`, a list of what `kernel_figures` says of the distinct kernels, and `trials`, the
        place in it of each trial that has a kernel.
    """
    figures: list[dict[str, Any]] = []
    trials: dict[str, int] = {}
    for spec, option in zip(specs, options, strict=True):
        if not option.uses("kernel"):
            continue
        found = _figures_of(option)
        if found not in figures:
            figures.append(found)
        trials[spec.trial_id] = figures.index(found)
    return {"figures": figures, "trials": trials}


def _figures_of(options: TrialOptions) -> dict[str, Any]:
    first = options.steps_at(options.rungs[0]) if options.rungs else 1
    training = options.training
    return dict(
        kernel_figures(
            options.kernel, options.bandwidth, training.r_scope, max(first, 1), options.num_steps
        )
    )


@functools.lru_cache(maxsize=256)
def kernel_figures(
    kernel: Kernel,
    bandwidth: Bandwidth,
    r_scope: RadiusScope,
    first_steps: int,
    num_steps: int,
) -> tuple[tuple[str, Any], ...]:
    """Bias and variance of an estimate, relative to MeZO's.

    All but the last are those at the first step, for an estimate that is divided by its gain
    E[rK], which the learning rate makes up for. An unrescaled kernel on a narrower interval
    cancels less than its name says: its order is that of its first moment that is not zero.

    Args:
        kernel: K and the law of r.
        bandwidth: d_t.
        r_scope: Whether each tensor draws an r of its own.
        first_steps: Steps before the first evaluation.
        num_steps: Of the whole run.

    Returns:
        Pairs of name and value: `order` m of the bias O(ε^m); `lead`, E[r^(m+1)K] / E[rK];
        `signal_variance` V_s and `noise_amplification` V_n; `gain`; `second_moment`, the mean over
        the first steps of E[(Σ rK)²], to which the mean squared projected gradient is
        proportional where losses have no noise; `spread`, the standard deviation of (Σ rK)² over
        its mean, by which a mean over few steps scatters. With an r for each of many tensors the
        slope and the weight are independent, E[r²]·E[K²] takes the place of E[(rK)²], and the
        spread is none.
    """
    steps = np.unique(np.linspace(0, first_steps - 1, NUM_WIDTHS).astype(int))
    widths = [bandwidth.half_width_at(int(step), num_steps) for step in steps]
    gain = kernel.gain(widths[0], bandwidth.rescale)
    if bandwidth.rescale or not kernel.has_bandwidth:
        width = widths[0] if kernel.has_bandwidth else 1.0
        order, lead = kernel.order, float(kernel.lead) * width**kernel.order / gain
        noise = float(kernel.noise_amplification) / width**2 / gain**2
        draws = [_draw(kernel, width, bandwidth.rescale)]
        exact = r_scope == "step"
        moments = [float(kernel.signal_variance) if exact else _second_moment(*draws[0], r_scope)]
    else:
        radii, weights = _draw(kernel, widths[0], rescale=False)
        order, lead = _first_moment_left(radii, weights, gain, kernel.order)
        noise = float((weights**2).sum(axis=1).mean()) / gain**2
        draws = [_draw(kernel, d, rescale=False) for d in widths]
        moments = [_second_moment(*draw, r_scope) for draw in draws]
    return (
        ("order", order),
        ("lead", lead),
        ("signal_variance", moments[0] / gain**2),
        ("noise_amplification", noise),
        ("gain", gain),
        ("second_moment", float(np.mean(moments))),
        ("spread", _spread(draws) if r_scope == "step" else None),
    )


def _draw(kernel: Kernel, half_width: float, rescale: bool) -> tuple[np.ndarray, np.ndarray]:
    """Radii and weights at the midpoints of the unit interval; shape (midpoints, nodes)."""
    midpoints = (np.arange(NUM_NODES) + 0.5) / NUM_NODES
    draws = [kernel.draw(float(u), half_width, rescale) for u in midpoints]
    return (
        np.array([[node.radius for node in nodes] for nodes in draws]),
        np.array([[node.weight for node in nodes] for nodes in draws]),
    )


def _second_moment(radii: np.ndarray, weights: np.ndarray, r_scope: RadiusScope) -> float:
    """E[(Σ rK)²], or with an r for each tensor E[(Σ rK)²] of independent r and K."""
    if r_scope == "step":
        return float(((radii * weights).sum(axis=1) ** 2).mean())
    return float((radii**2).sum(axis=1).mean() * (weights**2).sum(axis=1).mean())


def _spread(draws: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Standard deviation of (Σ rK)² over its mean, steps of all widths together."""
    squares = [(radii * weights).sum(axis=1) ** 2 for radii, weights in draws]
    return float(np.std(squares) / np.mean(squares))


def _first_moment_left(
    radii: np.ndarray, weights: np.ndarray, gain: float, order: int
) -> tuple[int, float]:
    """The order of the bias that is left, and its factor."""
    for power in range(2, order + 2, 2):
        moment = float((radii ** (power + 1) * weights).sum(axis=1).mean()) / gain
        if abs(moment) > SMALLEST_MOMENT or power >= order:
            return power, moment
    raise AssertionError("the loop ends at the kernel's own order")
