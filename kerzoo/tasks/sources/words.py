"""Words in their sentences: their sense, or what they refer to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from kerzoo.tasks.sources.base import Example
from kerzoo.tasks.sources.formats import Located
from kerzoo.tasks.sources.rows import RowSource, class_of, text_of, value_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wic(RowSource):
    """WiC: has the word another sense in the two sentences (0) or the same (1).

    Source: Pilehvar & Camacho-Collados 2019; SuperGLUE, Wang et al. 2019, arXiv 1905.00537.
    """

    config: str = "wic"

    fields = ("word", "sentence1", "sentence2")
    num_labels = 2
    public_folder: ClassVar[str | None] = "WiC"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "word": ("word",),
        "sentence1": ("sentence1",),
        "sentence2": ("sentence2",),
        "label": ("label",),
    }

    def example(self, row: Mapping[str, Any]) -> Example:
        """A word and two sentences."""
        fields = {name: text_of(row, name) for name in self.fields}
        return Example(fields, class_of(row["label"], ("False", "True")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wsc(RowSource):
    """WSC: does the pronoun refer to the noun; no (0) or yes (1); 554 and 104 sentences.

    Fields are `text`, `noun` and, in lower case, `pronoun`. Spans of SuperGLUE's files that are
    no part of the text are mended as in the hub's `wsc.fixed`: the first letter's case is that
    of the text, a full stop at the end goes, a line break becomes a space.

    Source: Levesque et al. 2012; SuperGLUE, Wang et al. 2019, arXiv 1905.00537.
    """

    config: str = "wsc.fixed"

    fields = ("text", "noun", "pronoun")
    num_labels = 2
    public_folder: ClassVar[str | None] = "WSC"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("text",),
        "noun": ("span1_text",),
        "pronoun": ("span2_text",),
        "label": ("label",),
    }

    def unnest(self, raw: Mapping[str, Any], pool: str) -> Iterable[Located]:
        """SuperGLUE's files keep the spans in `target`."""
        if "target" not in raw:
            return [("", raw)]
        text, target = value_of(raw, "text"), raw["target"]
        spans = {
            f"{span}_text": _mend(
                text, value_of(target, f"{span}_text"), value_of(target, f"{span}_index")
            )
            for span in ("span1", "span2")
        }
        return [("", {**raw, **spans})]

    def example(self, row: Mapping[str, Any]) -> Example:
        """A text and two spans."""
        fields = {
            "text": text_of(row, "text").lstrip(),
            "noun": text_of(row, "noun"),
            "pronoun": text_of(row, "pronoun").lower(),
        }
        return Example(fields, class_of(row["label"], ("False", "True")))


def _mend(text: str, span: str, index: int) -> str:
    if span in text:
        return span
    words = text.split()
    if not 0 <= index < len(words):
        raise ValueError(f"expected the number of a word below {len(words)}, got {index!r}")
    first = span[:1].lower() if words[index][0].islower() else span[:1].upper()
    return (first + span[1:]).rstrip(".").replace("\n", " ")
