"""Multiple choice: each example has continuations of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from kerzoo.tasks.sources.base import Example, SkippedRow
from kerzoo.tasks.sources.formats import Located
from kerzoo.tasks.sources.rows import (
    SUPERGLUE_FILES,
    RowSource,
    class_of,
    members_of,
    text_of,
    value_of,
)

_CONJUNCTIONS = {"cause": "because", "effect": "so"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copa(RowSource):
    """COPA: which of two choices is the premise's cause or effect; 400 and 100 premises.

    Field `premise` has no full stop at its end; `conjunction` is "because" where the cause is
    asked for and "so" where the effect is. A candidate is a choice with its first word in lower
    case unless it is "I".

    Source: Roemmele et al. 2011; SuperGLUE, Wang et al. 2019, arXiv 1905.00537; the wording as
    in Malladi et al. 2023, arXiv 2305.17333.
    """

    config: str = "copa"

    fields = ("premise", "conjunction", "choice1", "choice2")
    num_labels = None
    public_folder: ClassVar[str | None] = "COPA"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = SUPERGLUE_FILES
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "premise": ("premise",),
        "choice1": ("choice1",),
        "choice2": ("choice2",),
        "question": ("question",),
        "label": ("label",),
    }

    def example(self, row: Mapping[str, Any]) -> Example:
        """A premise and two choices."""
        question = text_of(row, "question")
        if question not in _CONJUNCTIONS:
            raise ValueError(f"expected the question cause or effect, got {question[:60]!r}")
        choices = {name: text_of(row, name) for name in ("choice1", "choice2")}
        fields = {
            "premise": text_of(row, "premise").strip().removesuffix("."),
            "conjunction": _CONJUNCTIONS[question],
            **choices,
        }
        return Example(
            fields,
            class_of(row["label"], ("choice1", "choice2")),
            candidates=tuple(_continue(choice) for choice in choices.values()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record(RowSource):
    """ReCoRD: which entity of a news article fills the gap in a statement about it.

    One example for each statement: 100 730 and 10 000. Field `passage` has its highlights as a
    list with hyphens, and the prompt ends with the next hyphen: a candidate is the statement
    with one of the article's entities in its gap, as in GPT-3. Entities and answers are unique
    texts in alphabetical order (a hub row's own order is not defined); training uses the first
    answer, as the protocol does. A statement none of whose answers is an entity is skipped.

    Source: Zhang et al. 2018, arXiv 1810.12885; SuperGLUE, Wang et al. 2019, arXiv 1905.00537;
    the form of Brown et al. 2020, arXiv 2005.14165.
    """

    config: str = "record"

    fields = ("passage", "query")
    num_labels = None
    public_folder: ClassVar[str | None] = "ReCoRD"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = SUPERGLUE_FILES
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "passage": ("passage",),
        "query": ("query",),
        "entities": ("entities",),
        "answers": ("answers",),
    }

    def unnest(self, raw: Mapping[str, Any], pool: str) -> Iterable[Located]:
        """A line of SuperGLUE's files is an article with several statements."""
        passage = value_of(raw, "passage")
        if isinstance(passage, str):
            yield "", raw
            return
        text = value_of(passage, "text")
        entities = [
            text[value_of(entity, "start") : value_of(entity, "end") + 1]
            for _, entity in members_of(passage, "entities")
        ]
        for i, query in members_of(raw, "qas"):
            yield (
                f", query {i}",
                {
                    "passage": text,
                    "query": value_of(query, "query"),
                    "entities": entities,
                    "answers": [value_of(a, "text") for _, a in members_of(query, "answers")],
                },
            )

    def example(self, row: Mapping[str, Any]) -> Example:
        """An article and a statement."""
        query = text_of(row, "query")
        if "@placeholder" not in query:
            raise ValueError(f"expected @placeholder in the query, got {query[:60]!r}")
        if not row["answers"]:
            raise ValueError("expected at least one answer, got none")
        entities = sorted(set(row["entities"]))
        right = [entities.index(a) for a in sorted(set(row["answers"])) if a in entities]
        if not right:
            raise SkippedRow("no answer among the entities")
        fields = {
            "passage": text_of(row, "passage").lstrip().replace("@highlight\n", "- "),
            "query": query,
        }
        filled = [query.replace("@placeholder", entity) for entity in entities]
        return Example(
            fields,
            right[0],
            candidates=tuple(f" {text}".rstrip(" ") for text in filled),
            also_right=tuple(right[1:]),
        )


def _continue(choice: str) -> str:
    first, space, rest = choice.partition(" ")
    lowered = first if first == "I" else first.lower()
    return f" {lowered}{space}{rest}".rstrip(" ")
