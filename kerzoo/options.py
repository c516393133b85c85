"""A trial's resolved configuration as validated objects."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from kerzoo.build import build, check_arguments, check_types
from kerzoo.clipping import Clipping
from kerzoo.estimator import RADIUS_SCOPES, Estimator, RadiusScope
from kerzoo.kernels import Kernel
from kerzoo.methods import Method
from kerzoo.models import ModelSource
from kerzoo.momentum import Momentum
from kerzoo.noise import Perturbation
from kerzoo.optimizer import KerZOO
from kerzoo.schedules import Bandwidth, Schedule
from kerzoo.tasks import Task
from kerzoo.tuning import Tuning
from kerzoo.weights import PRECISIONS, Precision

PARTS: dict[str, type[Any]] = {
    "method": Method,
    "model": ModelSource,
    "task": Task,
    "kernel": Kernel,
    "bandwidth": Bandwidth,
    "perturbation": Perturbation,
    "clipping": Clipping,
    "momentum": Momentum,
    "learning_rate_schedule": Schedule,
    "perturbation_scale_schedule": Schedule,
    "tuning": Tuning,
}
"""The parts of a configuration that are objects, and the contract of each."""

NUMBERS = frozenset({"learning_rate", "perturbation_scale", "seed"})
"""Values of `training` on whose range alone the validity of a trial depends, and nothing else."""


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """The numbers of a run.

    One forward pass is the training loss of one mini-batch. The budget, and the rungs at which a
    trial is evaluated, are counted in forward passes, so that arms of different cost per step are
    compared at equal cost.

    Args:
        learning_rate: η > 0.
        perturbation_scale: ε > 0.
        forward_passes: The whole budget.
        rungs: Fractions of the budget, increasing, the last of them 1.
        batch_size: Examples of a mini-batch.
        seed: Below 2⁶³; of batches, directions, radii and initial values: four separate streams.
        num_directions: n; a step costs 2n forward passes, or more with several nodes each.
        r_scope: "step" for one r a direction, "tensor" for one a direction and parameter tensor.
        weight_decay: w ≥ 0, as in MeZO: θ ← (1 − η·w)·θ, biases and norms excepted.
        precision: Where θ is kept: "master", "inplace" or "inplace_half" (`kerzoo.weights`).
        threads: CPU threads of the trial.
        device: "cpu" or "cuda".
        micro_batch: Sequences run through the model together, counted once for each point; 0 for
            the device's own number. The mean over a batch stays that over all of its examples, up
            to the rounding of other matrix shapes (some 1e-6 of a loss in fp32).
        points_per_forward: Points θ ± a·u at which a forward pass finds the loss, of one direction
            or several: more than one for LoRA alone. Changes the losses by rounding. In place it
            also spares θ the rounding of being perturbed.

    Raises:
        ValueError: For a value outside its range.
    """

    learning_rate: float
    perturbation_scale: float
    forward_passes: int
    rungs: tuple[float, ...]
    batch_size: int
    seed: int
    num_directions: int
    r_scope: RadiusScope
    weight_decay: float
    precision: Precision
    threads: int
    device: str
    micro_batch: int = 0
    points_per_forward: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "rungs", tuple(self.rungs))
        self._check_numbers()
        if self.seed >= 1 << 63:
            raise ValueError(f"seed must be an integer < 2^63, got {self.seed}")
        for name, allowed in (
            ("device", ("cpu", "cuda")),
            ("r_scope", RADIUS_SCOPES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in allowed:
                *others, last = allowed
                raise ValueError(
                    f"{name} must be {', '.join(others)} or {last}, got {getattr(self, name)!r}"
                )
        fractions = self.rungs
        increasing = all(a < b for a, b in itertools.pairwise(fractions))
        if not fractions or not increasing or fractions[0] <= 0 or fractions[-1] != 1:
            raise ValueError(
                "rungs must be increasing fractions of forward_passes in (0, 1] that end with 1, "
                f"got {list(fractions)}"
            )

    def _check_numbers(self) -> None:
        for name in ("learning_rate", "perturbation_scale", "weight_decay"):
            value = getattr(self, name)
            may_be_zero = name == "weight_decay"
            is_number = isinstance(value, int | float) and math.isfinite(value)
            if not (is_number and (value > 0 or (may_be_zero and value == 0))):
                sign = "≥" if may_be_zero else ">"
                raise ValueError(f"{name} must be a number {sign} 0, got {value!r}")
        for name, least in (
            ("forward_passes", 2),
            ("batch_size", 1),
            ("seed", 0),
            ("num_directions", 1),
            ("threads", 1),
            ("micro_batch", 0),
            ("points_per_forward", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")

    @property
    def nominal_rungs(self) -> list[int]:
        """The rungs in forward passes."""
        return [round(fraction * self.forward_passes) for fraction in self.rungs]


@dataclasses.dataclass(frozen=True)
class TrialOptions:
    """All objects of a trial."""

    method: Method
    model: ModelSource
    task: Task
    kernel: Kernel
    bandwidth: Bandwidth
    perturbation: Perturbation
    clipping: Clipping
    momentum: Momentum
    learning_rate_schedule: Schedule
    perturbation_scale_schedule: Schedule
    tuning: Tuning
    training: TrainingOptions

    def __post_init__(self) -> None:
        self._check_rungs()
        self.method.check(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrialOptions:
        """Build and validate a resolved configuration.

        Args:
            config: A plain dict with the keys of this class (others are labels).

        Raises:
            ValueError: For anything wrong in it, naming the key.
        """
        missing = sorted({*PARTS, "training"} - set(config))
        if missing:
            raise ValueError(f"{missing[0]}: missing in the configuration")
        parts = {name: build(config[name], name) for name in PARTS}
        for name, contract in PARTS.items():
            if not isinstance(parts[name], contract):
                raise ValueError(
                    f"{name}._target_: must be a {contract.__name__}, got {config[name]!r}"
                )
        values = config["training"]
        if not isinstance(values, Mapping):
            raise ValueError(f"training: must be a mapping, got {values!r}")
        check_arguments(TrainingOptions, values, "training", "training")
        try:
            training = TrainingOptions(**values)
        except ValueError as error:
            raise ValueError(f"training.{error}") from error
        return cls(training=training, **parts)

    def with_numbers(self, numbers: Mapping[str, Any]) -> TrialOptions:
        """The same trial with others of `NUMBERS`, of which only types and ranges are checked.

        Raises:
            ValueError: For a value outside its range, naming the key.
        """
        check_types(TrainingOptions, numbers, "training")
        try:
            training = dataclasses.replace(self.training, **numbers)
        except ValueError as error:
            raise ValueError(f"training.{error}") from error
        other = copy.copy(self)
        object.__setattr__(other, "training", training)
        return other

    @property
    def forward_passes_per_step(self) -> int:
        """Cost of a step; 0 where the method makes none."""
        return self.method.forward_passes_per_step(self)

    @property
    def num_steps(self) -> int:
        """Whole steps in the budget."""
        return self.method.num_steps(self)

    @property
    def rungs(self) -> list[int]:
        """Nominal forward passes at which the trial is evaluated, after step 0."""
        return self.method.rungs(self)

    def steps_at(self, rung: int) -> int:
        """Whole steps that do not exceed a rung."""
        return min(self.num_steps, rung // max(1, self.forward_passes_per_step))

    def uses(self, name: str) -> bool:
        """Whether a part, or a value of `training`, has a meaning for the method."""
        return name in self.method.parts or name in self.method.numbers

    def estimator(self) -> Estimator:
        """The estimator of a zeroth-order run of this trial."""
        dtype: torch.dtype = getattr(torch, self.tuning.trained_dtype(self.model.dtype))
        return self.optimizer([nn.Parameter(torch.zeros(1, dtype=dtype))]).estimator

    def optimizer(self, parameters: Iterable[nn.Parameter], lazy: bool = False) -> KerZOO:
        """The zeroth-order optimizer of a run of this trial, over the parameters it trains."""
        training = self.training
        return KerZOO(
            parameters,
            lr=training.learning_rate,
            kernel=self.kernel,
            perturbation_scale=training.perturbation_scale,
            bandwidth=self.bandwidth,
            perturbation=self.perturbation,
            num_directions=training.num_directions,
            num_steps=self.num_steps,
            seed=training.seed,
            r_scope=training.r_scope,
            clipping=self.clipping,
            weight_decay=training.weight_decay,
            momentum=self.momentum,
            learning_rate_schedule=self.learning_rate_schedule,
            perturbation_scale_schedule=self.perturbation_scale_schedule,
            precision=training.precision,
            num_threads=training.threads,
            points_per_forward=training.points_per_forward,
            lazy=lazy,
        )

    def _check_rungs(self) -> None:
        rungs, per_step = self.rungs, self.forward_passes_per_step
        if not rungs:
            return
        steps = [rung // per_step for rung in rungs]
        if steps[0] < 1:
            raise ValueError(
                f"training.rungs must not lie below one step: the first, {rungs[0]} forward "
                f"passes ({self.training.rungs[-len(rungs)]} of {self.training.forward_passes}), "
                f"is less than the {per_step} of one step; raise forward_passes or that rung"
            )
        if len(set(steps)) < len(steps):
            raise ValueError(
                f"training.rungs must be at least one step apart, got {rungs} forward passes "
                f"with {per_step} a step"
            )
