"""Losses: from the tokens of examples to the number that a step minimises."""

from kerzoo.losses.answers import AnswerLoss
from kerzoo.losses.base import SplitLoss
from kerzoo.losses.continuations import ContinuationLoss
from kerzoo.losses.graphs import ForwardGraphs
from kerzoo.losses.heads import SequenceRunner, check_output_layer
from kerzoo.losses.label_words import LabelWordLoss
from kerzoo.losses.last_layer import LastLayer, can_be_computed_at_rows
from kerzoo.losses.open import open_loss

__all__ = [
    "AnswerLoss",
    "ContinuationLoss",
    "ForwardGraphs",
    "LabelWordLoss",
    "LastLayer",
    "SequenceRunner",
    "SplitLoss",
    "can_be_computed_at_rows",
    "check_output_layer",
    "open_loss",
]
