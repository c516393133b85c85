"""Tasks: labelled examples, a prompt, what may follow it, and the tokens made from them."""

from kerzoo.tasks.base import Task
from kerzoo.tasks.classification import ClassificationTask
from kerzoo.tasks.encoding import ContinuationSplit, EncodedSplit, LabelWordSplit, Sequences
from kerzoo.tasks.generation import GenerationTask
from kerzoo.tasks.multiple_choice import MultipleChoiceTask
from kerzoo.tasks.sources import Example, ExampleSource, MovieReviewSnippets, Sst2

__all__ = [
    "ClassificationTask",
    "ContinuationSplit",
    "EncodedSplit",
    "Example",
    "ExampleSource",
    "GenerationTask",
    "LabelWordSplit",
    "MovieReviewSnippets",
    "MultipleChoiceTask",
    "Sequences",
    "Sst2",
    "Task",
]
