"""Questions about a passage that are answered by yes or no."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from kerzoo.tasks.sources.base import Example
from kerzoo.tasks.sources.formats import Located
from kerzoo.tasks.sources.rows import (
    SUPERGLUE_FILES,
    RowSource,
    class_of,
    members_of,
    text_of,
    value_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoolQ(RowSource):
    """BoolQ: a question about a passage; no (0) or yes (1); 9 427 and 3 270 of them.

    The question begins with a capital and ends with a question mark. From the hub's
    google/boolq or its authors' `train.jsonl` and `dev.jsonl`, or from SuperGLUE's files, whose
    passages begin with the article's title and " -- ": MeZO's protocol reads google/boolq, where
    they do not, so the title is taken off.

    Source: Clark et al. 2019, arXiv 1905.10044.
    """

    fields = ("passage", "question")
    num_labels = 2
    public_folder: ClassVar[str | None] = "BoolQ"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train.jsonl",),
        "val": ("val.jsonl", "dev.jsonl"),
    }
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "passage": ("passage",),
        "question": ("question",),
        "label": ("answer", "label"),
    }

    def unnest(self, raw: Mapping[str, Any], pool: str) -> Iterable[Located]:
        """Rows of SuperGLUE, which are told by their label, lose the title."""
        if "label" not in raw:
            return [("", raw)]
        title, mark, passage = str(value_of(raw, "passage")).partition(" -- ")
        return [("", {**raw, "passage": passage if mark else title})]

    def example(self, row: Mapping[str, Any]) -> Example:
        """A passage and a question."""
        question = text_of(row, "question")
        question = question if question.endswith("?") else f"{question}?"
        fields = {
            "passage": text_of(row, "passage").lstrip(),
            "question": question[0].upper() + question[1:],
        }
        return Example(fields, class_of(row["label"], ("False", "True")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiRc(RowSource):
    """MultiRC: is this answer to a question about a paragraph right; no (0) or yes (1).

    One example for each answer: 27 243 and 4 848, of 456 and 83 paragraphs. A few answers of the
    public data are empty; they are kept.

    Source: Khashabi et al. 2018; SuperGLUE, Wang et al. 2019, arXiv 1905.00537.
    """

    config: str = "multirc"

    fields = ("paragraph", "question", "answer")
    num_labels = 2
    public_folder: ClassVar[str | None] = "MultiRC"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = SUPERGLUE_FILES
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "paragraph": ("paragraph",),
        "question": ("question",),
        "answer": ("answer",),
        "label": ("label",),
    }

    def unnest(self, raw: Mapping[str, Any], pool: str) -> Iterable[Located]:
        """A line of SuperGLUE's files is a paragraph with questions with answers."""
        if "passage" not in raw:
            yield "", raw
            return
        passage = raw["passage"]
        for i, question in members_of(passage, "questions"):
            for k, answer in members_of(question, "answers"):
                yield (
                    f", question {i}, answer {k}",
                    {
                        "paragraph": value_of(passage, "text"),
                        "question": value_of(question, "question"),
                        "answer": value_of(answer, "text"),
                        "label": value_of(answer, "label"),
                    },
                )

    def example(self, row: Mapping[str, Any]) -> Example:
        """A paragraph, a question and one answer."""
        fields = {
            "paragraph": text_of(row, "paragraph").lstrip(),
            "question": text_of(row, "question"),
            "answer": text_of(row, "answer", may_be_empty=True),
        }
        return Example(fields, class_of(row["label"], ("False", "True")))
