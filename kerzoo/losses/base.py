"""The contract of a loss: what a step minimises, and the scores that a split is judged by."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from kerzoo.losses.heads import SequenceRunner
from kerzoo.tasks import EncodedSplit
from kerzoo.tasks.base import Objective


class SplitLoss(abc.ABC):
    """Scores and loss of examples of one split, at the model's current parameters.

    Args:
        runner: The model on the split's sequences.
        split: The examples.
        objective: What `loss` is.
    """

    def __init__(self, runner: SequenceRunner, split: EncodedSplit, objective: Objective) -> None:
        self.runner = runner
        self.split = split
        self.objective = objective

    @abc.abstractmethod
    def scores(self, indices: Sequence[int]) -> torch.Tensor:
        """Score of each candidate: log-likelihoods up to a constant of each example.

        Returns:
            Shape: [B, C], fp32; −∞ where an example has fewer candidates than another.
        """

    def tensor_loss(self, indices: Sequence[int]) -> torch.Tensor:
        """Mean loss of a batch, of which the gradient can be taken where there is one."""
        labels = self.split.labels[list(indices)]
        scores = self.scores(indices)
        if self.objective == "cross_entropy":
            return F.cross_entropy(scores, labels.to(scores.device))
        chosen = scores.argmax(dim=1).cpu()
        right = [self.split.is_right(i, int(c)) for i, c in zip(indices, chosen, strict=True)]
        if self.objective == "accuracy":
            return 1.0 - torch.tensor(right).float().mean()
        assert self.objective == "f1"
        return 1.0 - macro_f1(chosen, labels, scores.shape[1])

    @torch.inference_mode()
    def loss(self, indices: Sequence[int]) -> float:
        """Mean loss of a batch: nats, or 1 − accuracy or F1."""
        return float(self.tensor_loss(indices))

    @torch.inference_mode()
    def losses(self, indices: Sequence[int], points: Sequence[torch.Tensor]) -> list[float]:
        """`loss` at each of several points, by forward passes that they share.

        Args:
            indices: The batch.
            points: As for `StackedAdapters.at`.
        """
        with self.runner.at(points) as turns:
            found = [self.tensor_loss(indices) for _ in turns]
        return [float(loss) for loss in torch.stack(found).tolist()]

    def weight(self, indices: Sequence[int]) -> int:
        """How much a batch counts in the mean over a split: its examples."""
        return len(indices)

    def num_tokens(self, indices: Sequence[int]) -> int:
        """Tokens of a batch, all candidates included, padding excluded."""
        lengths = self.runner.sequences.lengths
        return sum(lengths[s] for i in indices for s in self.split.sequences_of(i))

    def order_by_length(self) -> list[int]:
        """The split's examples from the shortest to the longest; ties in their own order."""
        lengths = self.runner.sequences.lengths
        longest = [
            max(lengths[s] for s in self.split.sequences_of(i)) for i in range(len(self.split))
        ]
        return sorted(range(len(self.split)), key=longest.__getitem__)


def macro_f1(predictions: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Mean over the classes that occur of 2·TP / (2·TP + FP + FN).

    >>> macro_f1(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), 3)
    tensor(0.6667)

    Args:
        predictions: Shape: [B].
        labels: Shape: [B].
        num_classes: C.
    """
    scores = []
    for label in range(num_classes):
        predicted, actual = predictions == label, labels == label
        size = int(predicted.sum()) + int(actual.sum())
        if size:
            scores.append(2.0 * float((predicted & actual).sum()) / size)
    return torch.tensor(sum(scores) / len(scores))
