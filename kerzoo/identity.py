"""The identity of a trial: a hash of all that decides its numbers, and of nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from kerzoo import METHOD_VERSION
from kerzoo.build import TARGET, resolve
from kerzoo.kernels import Kernel
from kerzoo.options import TrainingOptions

LENGTH = 16
"""Hexadecimal digits of an id: 64 bits."""

_LABELS = frozenset({"name", "description"})
_PLACES = frozenset({"path", "data_dir", "hub_id", "revision"})


def trial_id(config: dict[str, Any], kernel: Kernel, model: str, data: str) -> str:
    """Hash a resolved trial configuration.

    In it: the numerical configuration (a bandwidth only where the kernel has one), the schedule's
    length, seeds, dtype, device type, threads, the fingerprints of model and data, and
    METHOD_VERSION. Not in it: labels, places on disk, the rungs at which it is evaluated, phase,
    sweep, scheduler, tracking and cluster.

    Args:
        config: The resolved configuration of the trial.
        kernel: The kernel built from it.
        model: Fingerprint of the model's weights.
        data: Fingerprint of the task's data.
    """
    training = _with_floats(TrainingOptions, config["training"])
    numbers = {
        "method_version": METHOD_VERSION,
        "model": {"dtype": config["model"]["dtype"], "fingerprint": model},
        "task": {**_numbers_of(config["task"]), "fingerprint": data},
        "kernel": _numbers_of(config["kernel"]),
        "bandwidth": _numbers_of(config["bandwidth"]) if kernel.has_bandwidth else None,
        "perturbation": _numbers_of(config["perturbation"]),
        "tuning": _numbers_of(config["tuning"]),
        "training": {k: v for k, v in training.items() if k != "rungs"},
    }
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
