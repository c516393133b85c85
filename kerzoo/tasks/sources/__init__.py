"""Where labelled examples come from: local public files, a hub data set, or a PyPI package."""

from kerzoo.tasks.sources.answers import Drop, Squad
from kerzoo.tasks.sources.base import POOLS, Example, ExampleSource, Pool, SkippedRow
from kerzoo.tasks.sources.choices import Copa, Record
from kerzoo.tasks.sources.entailment import Cb, Mnli, Rte, Snli
from kerzoo.tasks.sources.passages import BoolQ, MultiRc
from kerzoo.tasks.sources.questions import Trec
from kerzoo.tasks.sources.reviews import MovieReviewSnippets, Sst2, Sst5
from kerzoo.tasks.sources.rows import RowSource
from kerzoo.tasks.sources.table import Table
from kerzoo.tasks.sources.words import Wic, Wsc

__all__ = [
    "POOLS",
    "BoolQ",
    "Cb",
    "Copa",
    "Drop",
    "Example",
    "ExampleSource",
    "Mnli",
    "MovieReviewSnippets",
    "MultiRc",
    "Pool",
    "Record",
    "RowSource",
    "Rte",
    "SkippedRow",
    "Snli",
    "Squad",
    "Sst2",
    "Sst5",
    "Table",
    "Trec",
    "Wic",
    "Wsc",
]
