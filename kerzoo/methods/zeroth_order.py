"""Zeroth order: MeZO and KerZOO, trained by forward passes alone."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

from kerzoo.estimator import Estimate
from kerzoo.evaluation import Metrics
from kerzoo.methods.base import BatchLearner, Method
from kerzoo.progress import Progress
from kerzoo.records import TrialFolder
from kerzoo.tasks import GenerationTask
from kerzoo.trajectory import StepRecord

if TYPE_CHECKING:
    from torch import nn

    from kerzoo.options import TrialOptions
    from kerzoo.workspace import Bench


@dataclasses.dataclass(frozen=True)
class ZerothOrder(Method):
    """θ ← θ − η·g with the kernel-weighted estimate g of `kerzoo.optimizer.KerZOO`.

    A trial resumes by replaying its logged losses, which takes no forward pass.
    """

    parts = (
        "kernel",
        "bandwidth",
        "perturbation",
        "clipping",
        "momentum",
        "learning_rate_schedule",
        "perturbation_scale_schedule",
        "tuning",
    )
    numbers = frozenset(
        {
            "learning_rate",
            "perturbation_scale",
            "forward_passes",
            "batch_size",
            "seed",
            "num_directions",
            "r_scope",
            "weight_decay",
            "precision",
            "points_per_forward",
        }
    )

    def check(self, options: TrialOptions) -> None:
        """Whatever the optimizer would refuse is refused now."""
        try:
            options.estimator()
        except ValueError as error:
            key = re.split("[ =]", str(error))[0]
            numbers = {field.name for field in dataclasses.fields(options.training)}
            raise ValueError(f"training.{error}" if key in numbers else str(error)) from error
        self._check_points(options)

    def _check_points(self, options: TrialOptions) -> None:
        """See that several points can share a forward pass, if they are to."""
        number, tuning = options.training.points_per_forward, options.tuning
        if number == 1:
            return
        if not tuning.can_be_stacked:
            raise ValueError(
                f"training.points_per_forward must be 1 with {type(tuning).__name__}, got "
                f"{number}: points can share a forward pass where all weights but those of small "
                "linear adapters are the same at each of them; choose tuning=lora or leave it at 1"
            )
        if isinstance(options.task, GenerationTask) and options.task.objective == "f1":
            raise ValueError(
                f"training.points_per_forward must be 1 with task.objective=f1, got {number}: "
                "answers are generated with one point's weights at a time"
            )

    def forward_passes_per_step(self, options: TrialOptions) -> int:
        """Two for each difference that the kernel measures on each direction."""
        return 2 * options.kernel.num_nodes * options.training.num_directions

    def points_per_forward(self, options: TrialOptions) -> int:
        """As the trial says."""
        return options.training.points_per_forward

    def added_bytes(self, options: TrialOptions, num_trainable: int) -> int:
        """The master copy, what the momentum keeps, points side by side."""
        training = options.training
        copies = options.momentum.num_copies + (training.precision == "master")
        if training.points_per_forward > 1:
            copies += training.points_per_forward
        return 4 * num_trainable * copies

    def start(self, options: TrialOptions, bench: Bench, folder: TrialFolder) -> ZerothOrderLearner:
        """With the optimizer over the trainable parameters."""
        return ZerothOrderLearner(options, bench)

    def rebuild(
        self,
        options: TrialOptions,
        parameters: Sequence[nn.Parameter],
        folder: TrialFolder,
        steps: Sequence[StepRecord],
        progress: Progress,
    ) -> None:
        """By replay of the steps."""
        optimizer = options.optimizer(parameters, lazy=True)
        for record in steps:
            optimizer.replay(record.losses)
            progress("replaying", record.step + 1, len(steps))
        optimizer.settle()


class ZerothOrderLearner(BatchLearner):
    """The contract with an optimizer that replays losses."""

    def __init__(self, options: TrialOptions, bench: Bench) -> None:
        super().__init__(options, bench)
        self.optimizer = options.optimizer(bench.parameters, lazy=True)

    def advance(self, step: int) -> tuple[float, ...] | None:
        """Estimate and apply."""
        estimate = self.optimizer.estimate(self._closure(step))
        if estimate.diverged:
            self.optimizer.settle()
            return None
        self.optimizer.apply(estimate)
        self._note(estimate)
        return estimate.losses

    def replay(self, record: StepRecord) -> None:
        """The same update from the same losses."""
        self._note(self.optimizer.replay(record.losses))

    def _note(self, estimate: Estimate) -> None:
        sizes = self.optimizer.weights.sizes
        self.squared_gradients.append(estimate.mean_square(sizes))

    def evaluate(self) -> Metrics:
        """The contract's, at θ."""
        self.optimizer.settle()
        return super().evaluate()

    def resume(self, logged: Sequence[StepRecord], evaluated: Container[int]) -> int:
        """All of them."""
        return len(logged)

    def measure(self, step: int) -> int:
        """An estimate."""
        optimizer = self.optimizer
        optimizer.estimator.estimate(
            optimizer.weights, self._closure(step), step, evaluation=optimizer.evaluation
        )
        return self.options.forward_passes_per_step

    def _closure(self, step: int) -> Callable[..., Any]:
        """The loss of the step's batch at the model's parameters, or at points that are given."""
        loss = self.bench.train
        together = self.options.training.points_per_forward > 1
        return functools.partial(loss.losses if together else loss.loss, self.indices(step))

    def learning_rate_factor_at(self, step: int) -> float:
        """f(t)·m(d_t): what the mean length of an update was multiplied by."""
        gain = self.optimizer.estimator.gain_at(step)
        return self.optimizer.learning_rate_factor_at(step) * gain
