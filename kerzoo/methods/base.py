"""The contract of a method: what it costs, what decides its numbers, and how it learns."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, ClassVar

from kerzoo.batches import BatchSampler
from kerzoo.evaluation import Metrics, evaluate
from kerzoo.progress import Progress
from kerzoo.records import TrialFolder, TrialWriter
from kerzoo.tasks.demonstrations import Fit
from kerzoo.trajectory import StepRecord

if TYPE_CHECKING:
    from torch import nn

    from kerzoo.losses import SplitLoss
    from kerzoo.options import TrialOptions
    from kerzoo.tuning import Tuning
    from kerzoo.workspace import Bench


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
    """The contract: a small frozen description, which starts a `Learner` for each trial.

    Whatever a method does not use is not part of a trial's identity, and null in its rows: two
    cells that differ in nothing else are one trial.

    Attributes:
        parts: Parts of the configuration that decide its numbers, beside model and task.
        numbers: Values of `training` that do, beside device and threads.
        splits: The splits that a trial needs.
        changes_weights: Whether a trial ends with a model of its own.
    """

    parts: ClassVar[tuple[str, ...]]
    numbers: ClassVar[frozenset[str]]
    splits: ClassVar[tuple[str, ...]] = ("train", "dev")
    changes_weights: ClassVar[bool] = True

    @property
    def demonstrations(self) -> tuple[int, Fit]:
        """How many examples stand in front of every prompt, and what if there is no room."""
        return 0, "refuse"

    def check(self, options: TrialOptions) -> None:
        """See, before anything runs, whether the method can do what is asked of it.

        Raises:
            ValueError: Naming the key.
        """
        return

    @abc.abstractmethod
    def forward_passes_per_step(self, options: TrialOptions) -> int:
        """Cost of a step, a backward pass counted as two; 0 for a method without steps."""

    @property
    def data_splits(self) -> tuple[str, ...]:
        """The splits whose data a trial reads: its own, and where demonstrations come from."""
        return ("train", *self.splits) if self.demonstrations[0] else self.splits

    def reads_per_step(self, options: TrialOptions) -> int:
        """How often a step reads the tokens of its batch."""
        return self.forward_passes_per_step(options)

    def points_per_forward(self, options: TrialOptions) -> int:
        """How many times a batch is there in a forward pass, each with its own parameters."""
        return 1

    def num_steps(self, options: TrialOptions) -> int:
        """Whole steps in the budget."""
        return options.training.forward_passes // self.forward_passes_per_step(options)

    def budget(self, options: TrialOptions) -> int:
        """Forward passes of a trial that runs to its end."""
        return options.training.forward_passes

    def rungs(self, options: TrialOptions) -> list[int]:
        """Nominal forward passes at which a trial is evaluated, after step 0."""
        return options.training.nominal_rungs

    def tuning(self, options: TrialOptions) -> Tuning:
        """Which parameters move."""
        return options.tuning

    def added_bytes(self, options: TrialOptions, num_trainable: int) -> int:
        """Memory for what is kept of the trainable weights, beside the model itself."""
        return 0

    def num_stored_layers(self, options: TrialOptions) -> int:
        """Layers whose activations are kept at the same time."""
        return 1

    @abc.abstractmethod
    def start(self, options: TrialOptions, bench: Bench, folder: TrialFolder) -> Learner:
        """Begin a trial at step 0.

        Args:
            options: The trial.
            bench: Its model and data; the model is untouched.
            folder: Where earlier attempts at it left what they learnt.
        """

    def rebuild(
        self,
        options: TrialOptions,
        parameters: Sequence[nn.Parameter],
        folder: TrialFolder,
        steps: Sequence[StepRecord],
        progress: Progress,
    ) -> None:
        """Give an untouched model the weights that a trial had after some steps.

        Raises:
            ValueError: If the method leaves the model as it is, or they were not kept.
        """
        raise ValueError(
            f"{folder.path}: {type(self).__name__} changes no weights, so there is no model to "
            "write; name a trial that trains one"
        )

    def judge(self, loss: SplitLoss, folder: TrialFolder, step: int) -> SplitLoss:
        """What judges a split after some steps, the model's weights being those that it had then.

        Args:
            loss: The model's own loss on the split.
            folder: Where the trial keeps what it learnt.
            step: The checkpoint, 0 before any step.

        Returns:
            The model's own loss, unless a method judges by something beside the model.

        Raises:
            ValueError: If what it judges by is missing.
        """
        return loss


class Learner(abc.ABC):
    """The contract: a method at work on one trial, from step to step.

    Args:
        options: The trial.
        bench: Its model and data.
    """

    def __init__(self, options: TrialOptions, bench: Bench) -> None:
        self.options = options
        self.bench = bench
        self.squared_gradients: list[float] = []
        """Of each step made or replayed, where the method measures projected gradients."""

    @property
    def batch_size(self) -> int:
        """Examples of a step."""
        return self.options.training.batch_size

    @abc.abstractmethod
    def indices(self, step: int) -> list[int]:
        """The training examples of a step."""

    @abc.abstractmethod
    def advance(self, step: int) -> tuple[float, ...] | None:
        """Make a step.

        Returns:
            The losses that it measured; None if they are not finite, and the weights are then as
            they were.
        """

    @abc.abstractmethod
    def replay(self, record: StepRecord) -> None:
        """Make a logged step again; one of the first `resume` of them."""

    @abc.abstractmethod
    def resume(self, logged: Sequence[StepRecord], evaluated: Container[int]) -> int:
        """How many logged steps `replay` can make again; those behind them are made anew.

        Args:
            logged: The steps that earlier attempts made.
            evaluated: After how many steps the trial was evaluated.
        """

    @abc.abstractmethod
    def measure(self, step: int) -> int:
        """Do the work of a step, or a part of it, and leave the weights as they are.

        Returns:
            The forward passes that it took.
        """

    def save(self, step: int, writer: TrialWriter) -> None:
        """Keep what replaying needs, at an evaluation after some steps."""
        return

    def evaluate(self) -> Metrics:
        """Judge the dev split."""
        return evaluate(self.bench.dev, self.options.task.binary)

    def learning_rate_factor_at(self, step: int) -> float | None:
        """What the learning rate of a step is multiplied by; None where there is no rate."""
        return None


class BatchLearner(Learner):
    """A learner whose steps see the mini-batches of `BatchSampler`."""

    def __init__(self, options: TrialOptions, bench: Bench) -> None:
        super().__init__(options, bench)
        training = options.training
        self.sampler = BatchSampler(len(bench.train.split), training.batch_size, training.seed)

    def indices(self, step: int) -> list[int]:
        """A batch that follows from seed and step alone."""
        return self.sampler.indices(step)
