"""Pairs of a premise and a hypothesis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from kerzoo.tasks.sources.base import Example, SkippedRow
from kerzoo.tasks.sources.rows import SUPERGLUE_FILES, RowSource, class_of, text_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntailmentSource(RowSource):
    """A premise, a hypothesis, and what the one says of the other.

    Fields `premise` and `hypothesis` are the texts. For LM-BFF's prompts, `premise_stem` is the
    premise without its last character (a full stop, as a rule, that gives way to the prompt's
    question mark) and `hypothesis_lowered` the hypothesis with a lower-case first letter.

    Source: Gao et al. 2021, arXiv 2012.15723, for the two derived fields.
    """

    fields = ("premise", "hypothesis", "premise_stem", "hypothesis_lowered")
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "premise": ("premise", "sentence1"),
        "hypothesis": ("hypothesis", "sentence2"),
        "label": ("gold_label", "label"),
    }
    classes: ClassVar[tuple[str, ...]]
    unlabelled: ClassVar[tuple[str, ...]] = ()

    def example(self, row: Mapping[str, Any]) -> Example:
        """A pair."""
        label = class_of(row["label"], self.classes, self.unlabelled)
        if self.unlabelled and not (row["premise"].strip() and row["hypothesis"].strip()):
            raise SkippedRow("an empty text")
        premise = text_of(row, "premise").lstrip()
        hypothesis = text_of(row, "hypothesis")
        fields = {
            "premise": premise,
            "hypothesis": hypothesis,
            "premise_stem": premise[:-1],
            "hypothesis_lowered": hypothesis[:1].lower() + hypothesis[1:],
        }
        return Example(fields, label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rte(EntailmentSource):
    """RTE: does the premise entail the hypothesis (0) or not (1); 2 490 and 277 pairs.

    From SuperGLUE's `train.jsonl` and `val.jsonl` or GLUE's `train.tsv` and `dev.tsv`, which
    hold the same pairs, or from either on the hub.

    Source: Dagan et al. 2006 and its sequels; SuperGLUE, Wang et al. 2019, arXiv 1905.00537.
    """

    config: str = "rte"

    num_labels = 2
    public_folder: ClassVar[str | None] = "RTE"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train.jsonl", "train.tsv"),
        "val": ("val.jsonl", "dev.tsv"),
    }
    classes: ClassVar[tuple[str, ...]] = ("entailment", "not_entailment")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cb(EntailmentSource):
    """CommitmentBank: entailment (0), contradiction (1) or neutral (2); 250 and 56 pairs.

    Source: de Marneffe et al. 2019; SuperGLUE, Wang et al. 2019, arXiv 1905.00537.
    """

    config: str = "cb"

    num_labels = 3
    public_folder: ClassVar[str | None] = "CB"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = SUPERGLUE_FILES
    classes: ClassVar[tuple[str, ...]] = ("entailment", "contradiction", "neutral")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snli(EntailmentSource):
    """SNLI: entailment (0), neutral (1) or contradiction (2).

    Pairs that annotators did not agree on are skipped: 785 of 550 152 in train, 158 of 10 000 in
    validation. From the hub, from LM-BFF's `train.tsv` and `dev.tsv`, or from the corpus's own
    `.jsonl`.

    Source: Bowman et al. 2015, arXiv 1508.05326.
    """

    config: str = "plain_text"

    num_labels = 3
    public_folder: ClassVar[str | None] = "SNLI"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train.tsv", "snli_1.0_train.jsonl"),
        "val": ("dev.tsv", "snli_1.0_dev.jsonl"),
    }
    classes: ClassVar[tuple[str, ...]] = ("entailment", "neutral", "contradiction")
    unlabelled: ClassVar[tuple[str, ...]] = ("-", "-1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mnli(EntailmentSource):
    """MultiNLI: entailment (0), neutral (1) or contradiction (2).

    The val pool is the matched validation split (9 815 pairs). From the hub, from GLUE's
    `train.tsv` and `dev_matched.tsv`, or from the corpus's own `.jsonl`, where pairs without a
    label are skipped.

    Source: Williams et al. 2018, arXiv 1704.05426; GLUE, Wang et al. 2018.
    """

    config: str = "mnli"

    num_labels = 3
    public_folder: ClassVar[str | None] = "MNLI"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train.tsv", "multinli_1.0_train.jsonl"),
        "val": ("dev_matched.tsv", "multinli_1.0_dev_matched.jsonl"),
    }
    splits: ClassVar[Mapping[str, str]] = {"train": "train", "val": "validation_matched"}
    classes: ClassVar[tuple[str, ...]] = ("entailment", "neutral", "contradiction")
    unlabelled: ClassVar[tuple[str, ...]] = ("-", "-1")
