"""Questions sorted by what they ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from kerzoo.tasks.sources.base import Example
from kerzoo.tasks.sources.formats import Located
from kerzoo.tasks.sources.rows import RowSource, class_of, text_of

_HUB_CLASSES = ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM")
"""The hub numbers the classes in another order than LM-BFF."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trec(RowSource):
    """TREC: a question that asks for one of six kinds; 5 452 and 500 questions.

    Classes are LM-BFF's: description (0), entity (1), abbreviation (2), human (3), location (4)
    and number (5). The val pool is the labelled test split, on which LM-BFF and MeZO test. From
    the hub, from LM-BFF's `train.csv` and `test.csv` (without header: label, question), or from
    the authors' own `train_5500.label` and `TREC_10.label` (a line is class:kind, space,
    question; a stray byte F0 stands for a space).

    Source: Li & Roth 2002; LM-BFF, Gao et al. 2021, arXiv 2012.15723.
    """

    fields = ("text",)
    num_labels = 6
    public_folder: ClassVar[str | None] = "TREC"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train.csv", "train_5500.label"),
        "val": ("test.csv", "TREC_10.label"),
    }
    splits: ClassVar[Mapping[str, str]] = {"train": "train", "val": "test"}
    header: ClassVar[tuple[str, ...] | None] = ("label", "text")
    encoding: ClassVar[str] = "latin-1"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "question": ("text",),
        "label": ("label",),
    }

    def parse_line(self, line: str) -> Mapping[str, Any]:
        """The row of a line of `*.label`."""
        label, _, question = line.replace("\xf0", " ").partition(" ")
        return {"text": question, "label": label.partition(":")[0]}

    def unnest(self, raw: Mapping[str, Any], pool: str) -> Iterable[Located]:
        """The hub's rows get their class's name."""
        if "coarse_label" not in raw:
            return [("", raw)]
        number = class_of(raw["coarse_label"], _HUB_CLASSES)
        return [("", {**raw, "label": _HUB_CLASSES[number]})]

    def example(self, row: Mapping[str, Any]) -> Example:
        """A question."""
        label = class_of(row["label"], ("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"))
        return Example({"text": text_of(row, "question")}, label)
