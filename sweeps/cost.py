"""What a plan will cost, and what it will be able to see, before anything runs."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kerzoo.options import NUMBERS, TrialOptions
from sweeps.halving import HalvingRule
from sweeps.power import equivalence_power, smallest_detectable_effect

GIB = 1 << 30
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FLOPS_PER_S = {"cpu": 6.0e10, "cuda": 1.5e14}
"""Assumed arithmetic rate of one CPU thread, and of one GPU, when no step was timed."""
MEMORY_BYTES_PER_S = {"cpu": 1.0e10, "cuda": 1.5e12}
"""Assumed rate at which noise is made and weights are written."""
PROCESS_GIB = {"cpu": 0.5, "cuda": 0.5}
"""Memory of a process with torch and transformers before a model; on a GPU, of its context."""
PAIRED_SD_POINTS = 2.0
"""Assumed standard deviation of paired accuracy differences between seeds, in points."""


@dataclasses.dataclass(frozen=True)
class TrialCost:
    """Estimated cost of one trial.

    Attributes:
        forward_passes: The whole budget.
        memory_gib: The process, the weights, those that the tuning adds, and the larger of two:
            the trainable weights once more, while they become one vector; their fp32 copies
            (master and momentum, or gradient and optimizer state) and the activations of a
            batch. There is no key-value cache.
        memory_gib_per_gpu: Of each GPU where there are several: its share of all that, and the
            whole of a batch's activations, which stand on one after the other.
        device_s: Seconds of one device (a GPU, or the trial's CPU threads), summed over the GPUs
            that a trial holds: they compute one after the other.
    """

    forward_passes: int
    memory_gib: float
    memory_gib_per_gpu: float
    device_s: float


def estimate_trial(
    options: TrialOptions, forward_pass_s: float | None = None, num_gpus: int = 1
) -> TrialCost:
    """Cost of a trial from sizes alone, or from a measured duration of its forward pass.

    The arithmetic of a forward pass is 2 · parameters · tokens, at the task's full length; with
    the last k layers only their share of the parameters computes. Three passes over the
    trainable weights for each pair of forward passes are added: noise, or a gradient's update.
    """
    model, training, method = options.model, options.training, options.method
    tuning = method.tuning(options)
    layers = model.num_layers if tuning.last_layers is None else tuning.last_layers
    share = min(1.0, layers / model.num_layers)
    trainable = tuning.count_parameters(model.sizes)
    width = BYTES[model.dtype]
    tokens = training.batch_size * (options.task.max_length + tuning.prepended_tokens)
    num_kept = method.num_stored_layers(options) * method.points_per_forward(options)
    activations = tokens * model.hidden_size * 16 * width * num_kept
    if tuning.is_copied_per_sequence:
        activations += training.batch_size * trainable * width
    copies = method.added_bytes(options, trainable)
    devices = num_gpus if training.device == "cuda" else 1
    kept = model.num_parameters * width + tuning.added_bytes(model.sizes, width)
    each = max((kept + trainable * width) / devices, (kept + copies) / devices + activations)
    total = max(kept + trainable * width, kept + copies + activations)
    process = PROCESS_GIB[training.device]
    if forward_pass_s is None:
        rate = FLOPS_PER_S[training.device] * (training.threads if training.device == "cpu" else 1)
        noise_s = trainable * 12 / MEMORY_BYTES_PER_S[training.device] / devices
        forward_pass_s = 2 * model.num_parameters * share * tokens / rate + 1.5 * noise_s
    passes = options.num_steps * options.forward_passes_per_step
    return TrialCost(
        forward_passes=method.budget(options),
        memory_gib=total / GIB + devices * process,
        memory_gib_per_gpu=each / GIB + process,
        device_s=forward_pass_s * passes * devices,
    )


def summarise(
    trials: Sequence[TrialOptions],
    rule: HalvingRule,
    num_arms: int,
    num_seeds: int,
    forward_pass_s: float | None = None,
    margin: float = 0.01,
    num_gpus: int = 1,
) -> dict[str, Any]:
    """The plan's cost as it stands in plan.json, and what its seeds will be able to tell.

    Args:
        trials: Of the plan.
        rule: Of early stopping.
        num_arms: How many arms there are.
        num_seeds: Of each.
        forward_pass_s: Measured duration of a forward pass; None to estimate it from sizes.
        margin: Of equivalence, a fraction of examples.
        num_gpus: Over which a trial's model is spread.
    """
    kinds = [kind_of(options) for options in trials]
    examples = dict(zip(kinds, trials, strict=True))
    each = {k: estimate_trial(options, forward_pass_s, num_gpus) for k, options in examples.items()}
    strata = {kind: stratum_of(options) for kind, options in examples.items()}
    rungs = {kind: tuple(options.rungs) for kind, options in examples.items()}
    sizes = Counter(strata[kind] for kind in kinds if rungs[kind])
    costs = [each[kind] for kind in kinds]
    shares = [_expected_share(rungs[kind], rule, sizes[strata[kind]], num_arms) for kind in kinds]
    device = trials[0].training.device
    basis = (
        f"a measured forward pass of {forward_pass_s:.2f} s"
        if forward_pass_s
        else f"{FLOPS_PER_S[device]:.1e} FLOP/s per {'GPU' if device == 'cuda' else 'CPU thread'} "
        "and sequences of full length; evaluation not counted"
    )
    return {
        "trials": len(trials),
        "forward_passes": sum(c.forward_passes for c in costs),
        "forward_passes_expected": round(
            sum(c.forward_passes * s for c, s in zip(costs, shares, strict=True))
        ),
        "forward_passes_per_trial": max(c.forward_passes for c in costs),
        "memory_gib_per_trial": max(c.memory_gib for c in costs),
        "memory_gib_per_gpu": max(c.memory_gib_per_gpu for c in costs),
        "gpus_per_trial": num_gpus if device == "cuda" else 0,
        "device": device,
        "device_hours": sum(c.device_s for c in costs) / 3600,
        "device_hours_expected": sum(c.device_s * s for c, s in zip(costs, shares, strict=True))
        / 3600,
        "device_hours_per_trial": max(c.device_s for c in costs) / 3600,
        "assumption": f"estimated from {basis}",
        **_describe_power(num_seeds, margin),
    }


def wall_time_s(cost: Mapping[str, Any], num_slots: int) -> float:
    """Expected seconds of a plan: its share of each slot, but no less than its longest trial takes.

    Args:
        cost: As `summarise` gives it.
        num_slots: How many trials run at a time.
    """
    shared = cost["device_hours_expected"] / min(num_slots, cost["trials"])
    hours: float = max(shared, cost["device_hours_per_trial"]) / max(1, cost["gpus_per_trial"])
    return hours * 3600


def _describe_power(num_seeds: int, margin: float) -> dict[str, Any]:
    """What the seeds of a plan will be able to tell."""
    effect = smallest_detectable_effect(num_seeds, PAIRED_SD_POINTS)
    power = equivalence_power(100 * margin, PAIRED_SD_POINTS, num_seeds)
    return {
        "seeds": num_seeds,
        "smallest_detectable_effect": effect,
        "smallest_detectable_effect_note": (
            "one seed a cell: a screen ranks cells, it decides nothing; an interval needs at "
            "least two seeds"
            if effect is None
            else f"accuracy points, two-sided 5 %, power .80, {num_seeds} paired seeds, if paired "
            f"differences have a standard deviation of {PAIRED_SD_POINTS:g} points; two equal arms "
            f"are then called equivalent within ±{100 * margin:g} points with power {power:.2f}"
        ),
        "equivalence_power": power,
    }


def kind_of(options: TrialOptions) -> tuple[Any, ...]:
    """The same for trials of one plan that were made from one another by `with_numbers`.

    Such trials share all that decides their cost, stratum and rungs, and there are few kinds.
    """
    training = (value for name, value in vars(options.training).items() if name not in NUMBERS)
    return (
        *(id(part) for part in vars(options).values() if part is not options.training),
        *training,
    )


def dearest(trials: Mapping[str, TrialOptions]) -> str:
    """The trial that takes longest."""
    kinds = {kind_of(options): trial for trial, options in trials.items()}
    return max(kinds.values(), key=lambda trial: estimate_trial(trials[trial]).device_s)


def stratum_of(options: TrialOptions) -> str:
    """Trials that differ in it are never compared when some are stopped early."""
    return " · ".join([options.model.name, options.task.name, str(options.tuning)])


def strata_of(trials: Mapping[str, TrialOptions]) -> dict[str, str]:
    """Each trial's stratum."""
    examples = {kind_of(options): options for options in trials.values()}
    strata = {kind: stratum_of(options) for kind, options in examples.items()}
    return {trial: strata[kind_of(options)] for trial, options in trials.items()}


@functools.cache
def _expected_share(
    rungs: tuple[int, ...], rule: HalvingRule, num_trials: int, num_arms: int
) -> float:
    """Share of a trial's budget that it is expected to spend under early stopping."""
    if not rungs:
        return 1.0
    fractions = rule.fractions_running(len(rungs), num_trials, num_arms)
    lengths = [stop - start for start, stop in itertools.pairwise([0, *rungs])]
    spent = math.fsum(n * f for n, f in zip(lengths, fractions, strict=True))
    return spent / rungs[-1]
