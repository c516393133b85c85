"""Metrics of a split: loss, accuracy, and AUC where the task is binary."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F

from kerzoo.losses import LabelWordLoss

BATCH_EXAMPLES = 32


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Figures of one split at one point of a run.

    Attributes:
        loss: Mean cross-entropy over the label words, in nats.
        accuracy: Share of examples whose best label word is the right one; ties go to the
            lowest label.
        auc: Area under the ROC curve of s_1 − s_0, ties counted half; None unless binary with
            both labels present.
    """

    loss: float
    accuracy: float
    auc: float | None


def evaluate(loss: LabelWordLoss) -> Metrics:
    """Score a whole split, in an order that is fixed by the lengths of its examples."""
    order = loss.split.order_by_length()
    batches = [order[i : i + BATCH_EXAMPLES] for i in range(0, len(order), BATCH_EXAMPLES)]
    scores = torch.cat([loss.scores(batch).cpu() for batch in batches]).double()
    labels = loss.split.labels[order]
    return Metrics(
        loss=float(F.cross_entropy(scores, labels)),
        accuracy=float((scores.argmax(dim=1) == labels).double().mean()),
        auc=area_under_curve(scores[:, 1] - scores[:, 0], labels) if scores.shape[1] == 2 else None,
    )


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
