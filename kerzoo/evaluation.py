"""Metrics of a split: loss, accuracy or F1, and AUC where the task is binary."""

from __future__ import annotations

import dataclasses
import math

import torch

from kerzoo.losses import AnswerLoss, SplitLoss

BATCH_EXAMPLES = 32


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Figures of one split at one point of a run.

    Attributes:
        loss: Mean loss of an example, or of a token where it is a language model's; in nats.
        accuracy: Share of examples whose best candidate is a right one; ties go to the first.
            None where answers are generated.
        f1: Mean F1 of generated answers; None elsewhere.
        auc: Area under the ROC curve of s_1 − s_0, ties counted half; None unless binary with
            both labels present.
    """

    loss: float
    accuracy: float | None
    f1: float | None
    auc: float | None


@torch.inference_mode()
def evaluate(loss: SplitLoss, binary: bool = False) -> Metrics:
    """Judge a whole split, in an order that is fixed by the lengths of its examples.

    Args:
        loss: The split under an objective that has a gradient.
        binary: Whether the AUC means something.
    """
    order = loss.order_by_length()
    batches = [order[i : i + BATCH_EXAMPLES] for i in range(0, len(order), BATCH_EXAMPLES)]
    if isinstance(loss, AnswerLoss):
        f1 = [value for batch in batches for value in loss.f1(batch)]
        return Metrics(_mean_loss(loss, batches), None, math.fsum(f1) / len(f1), None)
    scores = [row for batch in batches for row in loss.scores(batch).cpu().double()]
    right = [loss.split.is_right(i, int(s.argmax())) for i, s in zip(order, scores, strict=True)]
    labels = loss.split.labels[order]
    if loss.objective == "cross_entropy":
        losses = [-s.log_softmax(0)[y] for s, y in zip(scores, labels, strict=True)]
        mean = float(torch.stack(losses).mean())
    else:
        mean = _mean_loss(loss, batches)
    auc = None
    if binary:
        auc = area_under_curve(torch.stack([s[1] - s[0] for s in scores]), labels)
    return Metrics(mean, sum(right) / len(right), None, auc)


def _mean_loss(loss: SplitLoss, batches: list[list[int]]) -> float:
    weights = [loss.weight(batch) for batch in batches]
    losses = [loss.loss(batch) * weight for batch, weight in zip(batches, weights, strict=True)]
    return math.fsum(losses) / sum(weights)


def area_under_curve(scores: torch.Tensor, labels: torch.Tensor) -> float | None:
    """P(score of a positive > score of a negative) + ½ P(equal), by mid-ranks.

    >>> area_under_curve(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([0, 0, 1, 1]))
    0.875

    Args:
        scores: Shape: [N].
        labels: 0 or 1. Shape: [N].

    Returns:
        None if one of the labels does not occur, or a score is not finite.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives or not bool(torch.isfinite(scores).all()):
        return None
    _, inverse, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    mid_ranks = counts.cumsum(0).double() - (counts.double() - 1.0) / 2.0
    rank_sum = float(mid_ranks[inverse][labels == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2.0) / (positives * negatives)
