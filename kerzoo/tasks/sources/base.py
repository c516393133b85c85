"""The contract of a source: labelled examples in two pools."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

POOLS = ("train", "val")


@dataclasses.dataclass(frozen=True)
class Example:
    """One labelled example.

    Attributes:
        fields: Texts by name, as a prompt refers to them.
        label: Index of the class, or of the right candidate that training uses.
        candidates: The example's own continuations in order, each exactly what follows the
            prompt, its leading space included; empty where classes have label words.
        also_right: Further right candidates.
        answers: Acceptable answers, the one that training uses first; empty but for generation.
    """

    fields: Mapping[str, str]
    label: int = 0
    candidates: tuple[str, ...] = ()
    also_right: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Pool:
    """What a source read.

    Attributes:
        examples: In the order of the file.
        skipped: How many rows were left out, by reason; empty where every row is an example.
    """

    examples: Sequence[Example]
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)


class SkippedRow(Exception):  # noqa: N818 - it tells of a row, not of an error
    """A row that is no example by the data set's own rules; `Pool.skipped` counts it.

    Args:
        reason: A few words, "no gold label".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ExampleSource(abc.ABC):
    """The contract: labelled examples in two pools, "train" and "val", that share none.

    Attributes:
        fields: Names of an example's texts. Which examples a run draws is decided by a hash of
            these texts, so another set of names is another draw.
        num_labels: Number of classes; None where candidates or answers are the example's own.
        public_folder: What the folder with the published files is called; None if there is none.
    """

    fields: tuple[str, ...]
    num_labels: int | None
    public_folder: ClassVar[str | None] = None

    @abc.abstractmethod
    def check_available(self, data_dir: str | None, pool: str) -> None:
        """See whether a pool can be read; loads and downloads nothing.

        Args:
            data_dir: Folder with the public files, or None.
            pool: "train" or "val".

        Raises:
            ValueError: Naming what is missing and the setting that helps.
        """

    def has_pool(self, data_dir: str | None, pool: str) -> bool:
        """Whether there is such a pool at all; a folder may lack one."""
        return True

    @abc.abstractmethod
    def fingerprint(self, data_dir: str | None) -> str:
        """Identity of the data's content; needs no network.

        Raises:
            ValueError: If the folder has none of the files.
        """

    @abc.abstractmethod
    def read_pool(self, data_dir: str | None, pool: str) -> Pool:
        """The pool's examples, and what was left out and why.

        Raises:
            ValueError: If the data cannot be had, or naming the file, the line and the rule it
                breaks.
        """

    def read(self, data_dir: str | None, pool: str) -> list[Example]:
        """The examples of `read_pool` alone."""
        return list(self.read_pool(data_dir, pool).examples)
