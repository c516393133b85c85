"""The identity of a trial: a hash of all that decides its numbers, and of nothing else.

Beside it a signature that trials share when they are the same up to the learning rate.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from kerzoo import METHOD_VERSION
from kerzoo.build import TARGET, build, resolve
from kerzoo.kernels import Kernel
from kerzoo.methods import Method, ZerothOrder
from kerzoo.options import TrainingOptions, TrialOptions

LENGTH = 16
"""Hexadecimal digits of an id: 64 bits."""

_LABELS = frozenset({"name", "description"})
_PLACES = frozenset({"path", "data_dir", "hub_id", "revision"})


def trial_id(config: dict[str, Any], kernel: Kernel, model: str, data: str) -> str:
    """Hash a resolved trial configuration.

    In it: the method and what it uses of the numerical configuration (a bandwidth only where the
    kernel has one), the schedule's length, seeds, dtype, device type, threads, the fingerprints of
    model and data, and METHOD_VERSION. Not in it: labels, places on disk, the rungs at which it is
    evaluated, phase, sweep, scheduler, tracking and cluster.

    So the number of GPUs that a trial's model is spread over is not in it either, no more than
    their make: noise and updates are functions of the offset and have the same bits on one GPU and
    on several, and every operation of a forward pass runs whole on one of them. Only a library's
    choice of a kernel can tell them apart, in a loss's last bits, and a trial may go on with
    another number.

    Args:
        config: The resolved configuration of the trial.
        kernel: The kernel built from it.
        model: Fingerprint of the model's weights.
        data: Fingerprint of the task's data.
    """
    return hash_numbers(numbers_of_trial(config, kernel, model, data))


def numbers_of_trial(
    config: dict[str, Any], kernel: Kernel, model: str, data: str
) -> dict[str, Any]:
    """What `trial_id` hashes; its arguments."""
    method: Method = build(config["method"], "method")
    used = _used_numbers(config, method)
    if "bandwidth" in method.parts and not kernel.has_bandwidth:
        used["bandwidth"] = None
    return {
        "method_version": METHOD_VERSION,
        "model": {"dtype": config["model"]["dtype"], "fingerprint": model},
        "task": {**_numbers_of(config["task"]), "fingerprint": data},
        **used,
    }


def signature(options: TrialOptions, config: dict[str, Any]) -> str:
    """What is the same for trials that do the same up to the learning rate.

    A step measures at θ ± a·u and moves along b·ΔL·u, with a = ε_t·r and b = η_t·K_d(r) / (2ε_t·n).
    The signature holds a and the ratios of b over some steps, directions and tensors, as drawn,
    and the configuration of all else. A constant factor of b is a learning rate, unless clipping
    or weight decay is active: then b itself is in it. For other methods it holds all that they
    use but the learning rate.

    Args:
        options: The trial.
        config: The resolved configuration that it was built from.
    """
    if not isinstance(options.method, ZerothOrder):
        used = _used_numbers(config, options.method)
        used["training"].pop("learning_rate", None)
        same = {"task": _numbers_of(config["task"]), "model": options.model.name}
        return hash_numbers({**used, **same})
    training, estimator = options.training, options.estimator()
    points: list[float] = []
    factors: list[float] = []
    for step in sorted({0, options.num_steps // 3, options.num_steps - 1}):
        scale = estimator.perturbation_scale_at(step)
        rate = training.learning_rate
        rate *= options.learning_rate_schedule.factor_at(step, options.num_steps)
        for direction in range(min(training.num_directions, 2)):
            for draw in estimator.draw(step, direction, num_tensors=3):
                drawn = list(zip(draw.radii, draw.weights, strict=True))
                drawn = drawn if len(set(drawn)) > 1 else drawn[:1]  # as one r for all tensors
                points += [scale * radius for radius, _ in drawn]
                factors += [rate * weight / scale for _, weight in drawn]
    if not (options.clipping.is_active or training.weight_decay):
        size = max(map(abs, factors))
        factors = [factor / size for factor in factors]
    same = {part: _numbers_of(config[part]) for part in ("task", "perturbation", "tuning")}
    numbers = {
        **same,
        "model": options.model.name,
        "clipping": _numbers_of(config["clipping"]),
        "momentum": _numbers_of(config["momentum"]),
        "training": {k: v for k, v in _told(config["training"]).items() if k not in _MEASURED},
        "points": [f"{value:.10e}" for value in points],
        "factors": [f"{value:.10e}" for value in factors],
    }
    return hash_numbers(numbers)


_MEASURED = frozenset({"learning_rate", "perturbation_scale", "r_scope", "rungs"})

_ADDED = {"points_per_forward": 1}
"""Values of `training` that there were not always, as trials were made before.

With these values they are left out, so that such a trial keeps its id.
"""


def _used_numbers(config: dict[str, Any], method: Method) -> dict[str, Any]:
    """What a method uses of a configuration, beside model and task."""
    training = _with_floats(TrainingOptions, config["training"])
    used = method.numbers | {"threads", "device"}
    return {
        "method": _numbers_of(config["method"]),
        **{part: _numbers_of(config[part]) for part in method.parts},
        "training": {k: v for k, v in _told(training).items() if k in used},
    }


def _told(training: dict[str, Any]) -> dict[str, Any]:
    """Values of `training` without those of `_ADDED`."""
    return {k: v for k, v in training.items() if k not in _ADDED or v != _ADDED[k]}


def hash_numbers(numbers: dict[str, Any]) -> str:
    """A short hash of plain numbers, the same whatever their order."""
    canonical = json.dumps(numbers, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:LENGTH]


def _numbers_of(node: dict[str, Any]) -> dict[str, Any]:
    """A node and its members without labels and places."""
    if TARGET in node:
        node = _with_floats(resolve(node[TARGET]), node)
    return {
        key: _numbers_of(value) if isinstance(value, dict) else value
        for key, value in node.items()
        if key not in _LABELS | _PLACES
    }


def _with_floats(cls: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Values in which 1 is 1.0 where the dataclass expects a float."""
    floats = {field.name for field in dataclasses.fields(cls) if field.type == "float"}
    return {key: float(value) if key in floats else value for key, value in values.items()}
