"""A trial's resolved configuration as validated objects."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

from kerzoo.build import build, check_arguments
from kerzoo.estimator import Estimator
from kerzoo.kernels import Kernel
from kerzoo.models import ModelSource
from kerzoo.noise import Perturbation
from kerzoo.schedules import Bandwidth
from kerzoo.tasks import ClassificationTask
from kerzoo.tuning import Tuning

PARTS: dict[str, type[Any]] = {
    "model": ModelSource,
    "task": ClassificationTask,
    "kernel": Kernel,
    "bandwidth": Bandwidth,
    "perturbation": Perturbation,
    "tuning": Tuning,
}
"""The parts of a configuration that are objects, and the contract of each."""


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
        num_directions: n; a step costs 2n forward passes.
        threads: CPU threads of the trial.
        device: "cpu" or "cuda".

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
    threads: int
    device: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "rungs", tuple(self.rungs))
        for name in ("learning_rate", "perturbation_scale"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a number > 0, got {value!r}")
        for name, least in (
            ("forward_passes", 2),
            ("batch_size", 1),
            ("seed", 0),
            ("num_directions", 1),
            ("threads", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")
        if self.seed >= 1 << 63:
            raise ValueError(f"seed must be an integer < 2^63, got {self.seed}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, got {self.device!r}")
        self._check_rungs()

    @property
    def nominal_rungs(self) -> list[int]:
        """The rungs in forward passes."""
        return [round(fraction * self.forward_passes) for fraction in self.rungs]

    @property
    def forward_passes_per_step(self) -> int:
        """2n."""
        return 2 * self.num_directions

    @property
    def num_steps(self) -> int:
        """Whole steps in the budget."""
        return self.forward_passes // self.forward_passes_per_step

    def _check_rungs(self) -> None:
        fractions = self.rungs
        increasing = all(a < b for a, b in itertools.pairwise(fractions))
        if not fractions or not increasing or fractions[0] <= 0 or fractions[-1] != 1:
            raise ValueError(
                "rungs must be increasing fractions of forward_passes in (0, 1] that end with 1, "
                f"got {list(fractions)}"
            )
        steps = [rung // self.forward_passes_per_step for rung in self.nominal_rungs]
        if steps[0] < 1:
            raise ValueError(
                f"rungs must not lie below one step: the first, {self.nominal_rungs[0]} forward "
                f"passes ({fractions[0]} of {self.forward_passes}), is less than the "
                f"{self.forward_passes_per_step} of one step; raise forward_passes or rungs[0]"
            )
        if len(set(steps)) < len(steps):
            raise ValueError(
                f"rungs must be at least one step apart, got {self.nominal_rungs} forward passes "
                f"with {self.forward_passes_per_step} a step"
            )


@dataclasses.dataclass(frozen=True)
class TrialOptions:
    """All objects of a trial."""

    model: ModelSource
    task: ClassificationTask
    kernel: Kernel
    bandwidth: Bandwidth
    perturbation: Perturbation
    tuning: Tuning
    training: TrainingOptions

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

    def estimator(self) -> Estimator:
        """The estimator of a run of this trial."""
        training = self.training
        return Estimator(
            self.kernel,
            self.bandwidth,
            training.perturbation_scale,
            training.num_directions,
            training.num_steps,
            training.seed,
        )
