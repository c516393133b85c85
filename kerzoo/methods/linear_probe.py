"""A linear probe: logistic regression on the frozen model's last hidden states."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from kerzoo.evaluation import Metrics, evaluate
from kerzoo.losses import SplitLoss
from kerzoo.methods.base import Learner, Method
from kerzoo.records import TrialFolder, TrialWriter
from kerzoo.tasks import ClassificationTask, LabelWordSplit
from kerzoo.trajectory import StepRecord
from kerzoo.tuning import NoTuning, Tuning

if TYPE_CHECKING:
    from kerzoo.options import TrialOptions
    from kerzoo.workspace import Bench

MAX_ITERATIONS = 500
PROBE = "probe.safetensors"


@dataclasses.dataclass(frozen=True)
class LinearProbe(Method):
    """Logistic regression on the frozen model's states, in place of its output layer.

        min over W and b of   mean(−log softmax(W·z + b)[label]) + (penalty / 2)·‖W‖²

    Here z is the state that the output layer is given at the label's position (the last token of
    the prompt, or its mask), standardised by the mean and deviation of the training examples.
    Solved in double precision by L-BFGS from W = 0, which the convexity makes unique.

    A trial is one step over all training examples, which costs one forward pass a mini-batch; it
    is evaluated before, as zero-shot, and after. The probe is kept (`probe.safetensors`), for the
    test split of a confirming trial.

    Args:
        penalty: > 0.

    Raises:
        ValueError: For a value outside its range.
    """

    penalty: float = 0.1

    parts = ()
    numbers = frozenset({"batch_size"})
    changes_weights = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.penalty) and self.penalty > 0):
            raise ValueError(f"penalty must be a number > 0, got {self.penalty!r}")

    def check(self, options: TrialOptions) -> None:
        """Only tasks whose classes are the same for all examples."""
        if not isinstance(options.task, ClassificationTask):
            raise ValueError(
                "method: a linear probe needs a task whose classes are the same for all examples; "
                f"{options.task.name} has candidates or answers of each example's own"
            )

    def forward_passes_per_step(self, options: TrialOptions) -> int:
        """One for each mini-batch of the training examples."""
        return max(1, -(-options.task.num_examples("train") // options.training.batch_size))

    def reads_per_step(self, options: TrialOptions) -> int:
        """Every example once."""
        return 1

    def num_steps(self, options: TrialOptions) -> int:
        """One."""
        return 1

    def budget(self, options: TrialOptions) -> int:
        """The one step."""
        return self.forward_passes_per_step(options)

    def rungs(self, options: TrialOptions) -> list[int]:
        """The last alone: at any other that its one step does not exceed it would be the same."""
        return options.training.nominal_rungs[-1:]

    def tuning(self, options: TrialOptions) -> Tuning:
        """The model stays as it is."""
        return NoTuning()

    def start(self, options: TrialOptions, bench: Bench, folder: TrialFolder) -> _ProbeLearner:
        """Without a probe, as zero-shot."""
        return _ProbeLearner(self.penalty, options, bench)

    def judge(self, loss: SplitLoss, folder: TrialFolder, step: int) -> SplitLoss:
        """By the label words before the fit, and by the probe that was kept after it."""
        path = folder.path / PROBE
        if step == 0:
            return loss
        if not path.exists():
            raise ValueError(f"{path}: is missing, so the probe cannot be had any more")
        return _ProbeLoss(Probe(**load_file(path)), loss)


class _ProbeLearner(Learner):
    """The contract with one step over all training examples."""

    def __init__(self, penalty: float, options: TrialOptions, bench: Bench) -> None:
        super().__init__(options, bench)
        self.penalty = penalty
        self.probe: Probe | None = None

    @property
    def batch_size(self) -> int:
        """All training examples."""
        return len(self.bench.train.split)

    def indices(self, step: int) -> list[int]:
        """All training examples."""
        return list(range(self.batch_size))

    def advance(self, step: int) -> tuple[float, ...] | None:
        """Fit the probe; its loss on the training examples, without the penalty."""
        indices = self.indices(step)
        size = self.options.training.batch_size
        batches = [indices[i : i + size] for i in range(0, len(indices), size)]
        states = torch.cat([label_states(self.bench.train, batch) for batch in batches])
        labels = self.bench.train.split.labels
        assert isinstance(self.options.task, ClassificationTask)
        if not bool(torch.isfinite(states).all()):
            return None
        self.probe = fit_probe(states, labels, len(self.options.task.label_words), self.penalty)
        return (float(F.cross_entropy(self.probe.scores(states), labels)),)

    def replay(self, record: StepRecord) -> None:
        """Never asked for."""
        raise AssertionError("a probe is fitted again")

    def resume(self, logged: Sequence[StepRecord], evaluated: Container[int]) -> int:
        """The probe is not kept but fitted again, to the same bits."""
        return 0

    def measure(self, step: int) -> int:
        """The states of one mini-batch."""
        label_states(self.bench.train, range(min(self.batch_size, super().batch_size)))
        return 1

    def save(self, step: int, writer: TrialWriter) -> None:
        """The probe, once it is fitted."""
        if self.probe is not None:
            tensors = {name: tensor.contiguous() for name, tensor in vars(self.probe).items()}
            writer.replace_file(writer.folder.path / PROBE, lambda path: save_file(tensors, path))

    def evaluate(self) -> Metrics:
        """Judge dev by the label words before the fit, and by the probe after it."""
        if self.probe is None:
            return super().evaluate()
        return evaluate(_ProbeLoss(self.probe, self.bench.dev), self.options.task.binary)


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe.

    Attributes:
        mean: Of each feature. Shape: [hidden], float64.
        scale: Its standard deviation, 1 where it is constant. Shape: [hidden], float64.
        weight: W. Shape: [C, hidden], float64.
        bias: b. Shape: [C], float64.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """W·z + b. Shapes: [N, hidden] → [N, C], float64."""
        return F.linear((states - self.mean) / self.scale, self.weight, self.bias)


def fit_probe(
    states: torch.Tensor, labels: torch.Tensor, num_classes: int, penalty: float
) -> Probe:
    """Fit a probe; the same bits for the same input.

    Args:
        states: Shape: [N, hidden], float64.
        labels: Shape: [N].
        num_classes: C.
        penalty: Of ‖W‖² / 2.
    """
    mean, scale = states.mean(dim=0), states.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    z = (states - mean) / scale
    weight = torch.zeros(num_classes, states.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(z, weight, bias), labels)
        loss = loss + 0.5 * penalty * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    return Probe(mean, scale, weight.detach(), bias.detach())


@torch.no_grad()
def label_states(loss: SplitLoss, indices: Sequence[int]) -> torch.Tensor:
    """What the output layer is given where the label word is predicted.

    Returns:
        Shape: [N, hidden], float64, on the CPU.
    """
    split, lengths = loss.split, loss.runner.sequences.lengths
    first = {split.sequences_of(i)[0]: i for i in indices}
    found: dict[int, torch.Tensor] = {}
    for group in loss.runner.micro_batches(list(first)):
        if isinstance(split, LabelWordSplit):
            positions = [int(split.positions[sequence]) for sequence in group]
        else:
            positions = [lengths[s] - int(split.continuation_lengths[s]) - 1 for s in group]
        states = loss.runner.states(group, [[position] for position in positions])
        found |= zip((first[s] for s in group), states.cpu().double(), strict=True)
    return torch.stack([found[index] for index in indices])


class _ProbeLoss(SplitLoss):
    """A split judged by a probe's scores."""

    def __init__(self, probe: Probe, loss: SplitLoss) -> None:
        super().__init__(loss.runner, loss.split, "cross_entropy")
        self.probe = probe
        self.judged = loss

    def scores(self, indices: Sequence[int]) -> torch.Tensor:
        """The probe's. Shape: [B, C], fp32."""
        return self.probe.scores(label_states(self.judged, indices)).float()
