"""Questions about a passage that are answered in words of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from kerzoo.tasks.sources.base import Example, SkippedRow
from kerzoo.tasks.sources.formats import Located
from kerzoo.tasks.sources.rows import RowSource, members_of, text_of, value_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Squad(RowSource):
    """SQuAD 1.1: a question whose answer is a span of the context; 87 599 and 10 570.

    Source: Rajpurkar et al. 2016, arXiv 1606.05250.
    """

    config: str = "plain_text"

    fields = ("title", "context", "question")
    num_labels = None
    public_folder: ClassVar[str | None] = "SQuAD"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train-v1.1.json", "train.json"),
        "val": ("dev-v1.1.json", "dev.json", "val.json"),
    }
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "title": ("title",),
        "context": ("context",),
        "question": ("question",),
        "answers": ("answers",),
    }

    def entries(self, document: Any) -> Iterable[Located]:
        """The articles."""
        return [(f"article {i}", article) for i, article in members_of(document, "data")]

    def unnest(self, raw: Mapping[str, Any], pool: str) -> Iterable[Located]:
        """An article has paragraphs with questions."""
        if "context" in raw:
            yield "", raw
            return
        for i, paragraph in members_of(raw, "paragraphs"):
            for k, question in members_of(paragraph, "qas"):
                answers = [value_of(a, "text") for _, a in members_of(question, "answers")]
                yield (
                    f", paragraph {i}, question {k}",
                    {
                        "title": value_of(raw, "title"),
                        "context": value_of(paragraph, "context"),
                        "question": value_of(question, "question"),
                        "answers": {"text": answers},
                    },
                )

    def example(self, row: Mapping[str, Any]) -> Example:
        """A context and a question."""
        answers = tuple(dict.fromkeys(text for _, text in members_of(row["answers"], "text")))
        if not any(answers):
            raise ValueError("expected at least one answer, got none")
        return Example(
            {
                "title": text_of(row, "title"),
                "context": text_of(row, "context"),
                "question": text_of(row, "question").strip(),
            },
            answers=answers,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drop(RowSource):
    """DROP: a question that takes counting, sorting or arithmetic; 77 400 and 9 535.

    Answers are a number, a date, or one or more spans of the passage. As on the hub, each span
    counts as an acceptable answer of its own, training knows the question's answer and val its
    validated answers, and a question whose answer is missing or of two kinds is skipped (9 and 1
    of them).

    Source: Dua et al. 2019, arXiv 1903.00161.
    """

    fields = ("passage", "question")
    num_labels = None
    public_folder: ClassVar[str | None] = "DROP"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("drop_dataset_train.json", "train.json"),
        "val": ("drop_dataset_dev.json", "dev.json", "val.json"),
    }
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "passage": ("passage",),
        "question": ("question",),
        "answers": ("answers_spans",),
    }

    def entries(self, document: Any) -> Iterable[Located]:
        """The passages."""
        if not isinstance(document, Mapping):
            raise ValueError(f"expected passages by name, got {str(document)[:60]!r}")
        return [(f"passage {name}", section) for name, section in document.items()]

    def unnest(self, raw: Mapping[str, Any], pool: str) -> Iterable[Located]:
        """A passage has questions."""
        if "question" in raw:
            yield "", raw
            return
        for i, question in members_of(raw, "qa_pairs"):
            if pool == "train":
                answers = [value_of(question, "answer")]
            else:
                answers = [answer for _, answer in members_of(question, "validated_answers")]
            yield (
                f", question {i}",
                {
                    "passage": value_of(raw, "passage"),
                    "question": value_of(question, "question"),
                    "answers_spans": answers,
                },
            )

    def example(self, row: Mapping[str, Any]) -> Example:
        """A passage and a question."""
        if isinstance(row["answers"], list):
            texts = [text for answer in row["answers"] for text in _texts(answer)]
        else:
            texts = [text for _, text in members_of(row["answers"], "spans")]
        if not texts:
            raise SkippedRow("no answer")
        return Example(
            {
                "passage": text_of(row, "passage"),
                "question": text_of(row, "question").strip(),
            },
            answers=tuple(dict.fromkeys(texts)),
        )


def _texts(answer: Mapping[str, Any]) -> list[str]:
    date = value_of(answer, "date")
    kinds = [
        [str(value_of(answer, "number"))],
        [" ".join(str(date.get(part, "")) for part in ("day", "month", "year")).strip()],
        [str(span) for _, span in members_of(answer, "spans")],
    ]
    given = [kind for kind in kinds if any(kind)]
    if len(given) > 1:
        raise SkippedRow("an answer of two kinds")
    return given[0] if given else []
