"""Which loss a task's split has."""

from __future__ import annotations

from kerzoo.losses.answers import AnswerLoss
from kerzoo.losses.base import SplitLoss
from kerzoo.losses.continuations import ContinuationLoss
from kerzoo.losses.heads import SequenceRunner
from kerzoo.losses.label_words import LabelWordLoss
from kerzoo.tasks import EncodedSplit, GenerationTask, LabelWordSplit, Task
from kerzoo.tasks.base import Objective


def open_loss(
    task: Task, runner: SequenceRunner, split: EncodedSplit, objective: Objective
) -> SplitLoss:
    """The loss of a split of a task under an objective."""
    if isinstance(split, LabelWordSplit):
        return LabelWordLoss(runner, split, objective)
    if isinstance(task, GenerationTask):
        return AnswerLoss(runner, split, objective, task.max_new_tokens)
    return ContinuationLoss(runner, split, objective)
