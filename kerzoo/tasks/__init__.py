"""Tasks: labelled examples, a prompt and label words, and the tokens made from them."""

from kerzoo.tasks.classification import ClassificationTask
from kerzoo.tasks.sources import Example, ExampleSource, MovieReviewSnippets, Sst2
from kerzoo.tasks.tokens import TokenizedSplit

__all__ = [
    "ClassificationTask",
    "Example",
    "ExampleSource",
    "MovieReviewSnippets",
    "Sst2",
    "TokenizedSplit",
]
