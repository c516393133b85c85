"""A user's own table."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from kerzoo.tasks.sources.base import Example, Pool
from kerzoo.tasks.sources.rows import RowSource, text_of

_ENDINGS = (".csv", ".tsv", ".jsonl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(RowSource):
    """Rows of a CSV, TSV or JSONL file, or of any data set on the hub: texts and a label.

    With it a new classification task is one file of configuration. CSV and TSV have a header; in
    CSV texts may be quoted, in TSV they are not. Space around a text is cut.

    Args:
        fields: Columns that hold texts; a prompt refers to them.
        label_column: Column that holds the label.
        labels: Its values, in the order of the task's label words.
        train_file: File in `task.data_dir` with the train pool.
        val_file: The same for the val pool; no row of it may be in the other. None holds a fifth
            of `train_file` back as the val pool, by a hash of the texts.
        train_split: The hub's name for the train pool.
        val_split: The same for the val pool.

    Raises:
        ValueError: For fewer than two labels, one named twice, or a file of another format.
    """

    fields: tuple[str, ...]
    label_column: str = "label"
    labels: tuple[str, ...]
    train_file: str = "train.csv"
    val_file: str | None = "val.csv"
    train_split: str = "train"
    val_split: str = "validation"
    num_labels: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "fields", tuple(self.fields))
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "num_labels", len(self.labels))
        if not self.fields or self.label_column in self.fields:
            raise ValueError(
                f"fields must be columns other than {self.label_column}, got {list(self.fields)}"
            )
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise ValueError(
                f"labels must be at least two different values, got {list(self.labels)}"
            )
        for name in filter(None, (self.train_file, self.val_file)):
            if not name.endswith(_ENDINGS):
                raise ValueError(f"a file must end with {' or '.join(_ENDINGS)}, got {name!r}")

    def file_names(self, pool: str) -> tuple[str, ...]:
        """The one file."""
        return ((self.val_file if pool == "val" else None) or self.train_file,)

    def read_pool(self, data_dir: str | None, pool: str) -> Pool:
        """The file's rows; of a single file those that are the pool's."""
        found = super().read_pool(data_dir, pool)
        if self.val_file is not None or data_dir is None:
            return found
        mine = [e for e in found.examples if _is_held_back(e) == (pool == "val")]
        if not mine:
            raise ValueError(
                f"{self.train_file} must have more rows to be split in train and val, got "
                f"{len(found.examples)}"
            )
        return Pool(mine, found.skipped)

    def split_name(self, pool: str) -> str:
        """The split."""
        return self.train_split if pool == "train" else self.val_split

    def column_names(self) -> Mapping[str, tuple[str, ...]]:
        """Columns as they are called."""
        return {name: (name,) for name in (*self.fields, self.label_column)}

    def example(self, row: Mapping[str, Any]) -> Example:
        """A row."""
        label = row[self.label_column]
        text = str(label).lower() if isinstance(label, bool) else str(label)
        if text not in self.labels:
            raise ValueError(
                f"expected the label {' or '.join(self.labels)}, got {text[:60]!r}; name the "
                "file's labels in task.source.labels, in the order of task.label_words"
            )
        fields = {name: text_of(row, name).strip() for name in self.fields}
        return Example(fields, self.labels.index(text))


def _is_held_back(example: Example) -> bool:
    """Whether a hash of the texts falls in its lowest fifth; equal texts stay together."""
    digest = hashlib.sha256("\0".join(example.fields.values()).encode()).digest()
    return int.from_bytes(digest[:4], "big") * 5 < 1 << 32
