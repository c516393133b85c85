"""Where θ is kept: the precision policies, what they may be used for, and what in place costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from kerzoo.noise import Gaussian, Perturbation, derive_key
from kerzoo.weights.base import Weights
from kerzoo.weights.flat import FlatWeights, InPlaceWeights, MasterWeights
from kerzoo.weights.sharded import ShardedWeights

Precision = Literal["master", "inplace", "inplace_half"]
PRECISIONS: tuple[Precision, ...] = ("master", "inplace", "inplace_half")


def flatten(
    parameters: Iterable[nn.Parameter],
    perturbation: Perturbation,
    precision: Precision = "master",
    num_threads: int = 1,
) -> Weights:
    """The weights under a precision policy that `check_precision` passed.

    Args:
        parameters: The trainable parameters in a fixed order, of one dtype, on one device or
            several. The order decides the offsets, wherever each of them lies.
        perturbation: The law of the directions.
        precision: "master"; "inplace" for fp32; "inplace_half" for half precision in place.
        num_threads: For the noise.
    """
    parameters = tuple(parameters)
    policies: dict[str, type[FlatWeights]] = {
        "master": MasterWeights,
        "inplace": InPlaceWeights,
        "inplace_half": InPlaceWeights,
    }
    policy = policies[precision]
    runs = runs_by_device(parameters)
    if len(runs) < 2:
        return policy(parameters, perturbation, num_threads)
    size = sum(p.numel() for p in parameters)
    shards: list[FlatWeights] = []
    for run in runs:
        start = sum(map(len, shards))
        shards.append(policy(run, perturbation, num_threads, start, size))
    return ShardedWeights(shards)


def runs_by_device(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in order, cut wherever the device changes."""
    return [list(run) for _, run in itertools.groupby(parameters, key=lambda p: p.device)]


def check_precision(precision: str, dtype: torch.dtype, perturbation_scale: float = 1e-3) -> None:
    """Refuse half precision in place, unless it is asked for by name.

    Raises:
        ValueError: With the drift that was measured for the dtype and ε.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    half = dtype in (torch.float16, torch.bfloat16)
    name = str(dtype).removeprefix("torch.")
    if precision == "inplace" and half:
        drift = measure_drift(dtype, perturbation_scale)
        raise ValueError(
            f"precision=inplace with {name} weights: perturbing and restoring rounds, and "
            f"{DRIFT_STEPS} steps without any update move weights of spread {DRIFT_SPREAD} by "
            f"{drift:.1%} of that spread at perturbation_scale={perturbation_scale:g} (just "
            "measured). Choose precision=master, which keeps θ in fp32 and does not drift, or "
            "ask for the drift by name with precision=inplace_half"
        )
    if precision == "inplace_half" and not half:
        raise ValueError(f"precision=inplace_half is for half precision, got {name} weights")


DRIFT_STEPS = 1000
DRIFT_SPREAD = 0.03
"""Standard deviation of a language model's weights, roughly."""


def measure_drift(
    dtype: torch.dtype, perturbation_scale: float, num_steps: int = DRIFT_STEPS
) -> float:
    """How far perturbing in place, without any update, moves weights.

    Args:
        dtype: Of 4096 weights drawn from N(0, .03²).
        perturbation_scale: ε of MeZO's steps: +ε·u, −2ε·u, +ε·u.
        num_steps: How many of them.

    Returns:
        Root mean square of the movement, relative to that of the weights.
    """
    generator = torch.Generator().manual_seed(0)
    start = (DRIFT_SPREAD * torch.randn(4096, generator=generator)).to(dtype)
    weights = InPlaceWeights([nn.Parameter(start.clone())], Gaussian())
    for step in range(num_steps):
        key = derive_key(0, "directions", step)
        weights.retrace_(key, [(perturbation_scale,), (-perturbation_scale,)])
        weights.restore_()
    moved = weights.working.double() - start.double()
    return float(moved.norm() / start.double().norm())
