"""Classification by label words: which examples, which prompt, which words answer it."""

from __future__ import annotations

import dataclasses
import hashlib
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kerzoo.tasks.sources import Example, ExampleSource
from kerzoo.tasks.tokens import TokenizedSplit, tokenize_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class ClassificationTask:
    """A data source with a prompt and one label word per class.

    The model reads the prompt and scores the label words as its next token. As in MeZO's
    protocol, train and dev are drawn from the source's train pool without overlap, and the test
    figure comes from its val pool. Members are drawn by rank of a hash of (data_seed, example):
    the same on every machine and library version, and whatever the other sizes are.

    Args:
        name: As in records and tables.
        source: Where labelled examples come from.
        prompt: Format string over the source's fields; its end asks for the label word.
        label_words: One per label, with its leading space; each must be a single token.
        num_train: Training examples.
        num_dev: Examples that choose rungs and checkpoints.
        num_test: Examples of the final figure. A size may be 0 where a run needs no such split.
        data_seed: Of the draw, apart from the run's seed.
        max_length: In tokens; longer prompts are cut on the left.
        data_dir: Folder with the task's public files, or null for the source's own place.

    Raises:
        ValueError: For a value outside its range or a prompt that does not fit the source.

    Source: Malladi et al. 2023, "Fine-Tuning Language Models with Just Forward Passes", arXiv
    2305.17333: for SST-2 "{text} It was" with " terrible" and " great".
    """

    name: str
    source: ExampleSource
    prompt: str
    label_words: tuple[str, ...]
    num_train: int
    num_dev: int
    num_test: int
    data_seed: int = 0
    max_length: int = 128
    data_dir: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_words", tuple(self.label_words))
        if not isinstance(self.source, ExampleSource):
            raise ValueError(f"source must be an ExampleSource, got {self.source!r}")
        for name, least in (
            ("num_train", 0),
            ("num_dev", 0),
            ("num_test", 0),
            ("data_seed", 0),
            ("max_length", 8),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")
        if len(set(self.label_words)) != self.source.num_labels:
            raise ValueError(
                f"label_words must be {self.source.num_labels} different words, "
                f"got {list(self.label_words)}"
            )
        self._check_prompt()

    @property
    def binary(self) -> bool:
        """Whether there are two classes."""
        return len(self.label_words) == 2

    def check_available(self, splits: Sequence[str] = SPLITS) -> None:
        """See whether the data of some splits can be read; loads and downloads nothing.

        Args:
            splits: The splits that a run needs; those of size 0 are left out.

        Raises:
            ValueError: Naming what is missing and the setting that helps.
        """
        needed = [split for split in splits if self._size(split) > 0]
        for pool in dict.fromkeys(_pool(split) for split in needed):
            self.source.check_available(self.data_dir, pool)

    def fingerprint(self) -> str:
        """Identity of the data: content hash of local or pinned files, or hub id and revision."""
        return self.source.fingerprint(self.data_dir)

    def examples(self, split: str) -> list[Example]:
        """The examples of a split, in a fixed order.

        Args:
            split: "train", "dev" or "test".

        Raises:
            ValueError: If the source has fewer examples than asked for, or the split's size is 0.
        """
        size = self._size(split)
        pool = self.source.read(self.data_dir, _pool(split))
        asked = self.num_test if split == "test" else self.num_train + self.num_dev
        if size == 0:
            raise ValueError(f"task.num_{split} must be at least 1 for a run that needs this split")
        if asked > len(pool):
            sizes = "num_test" if split == "test" else "num_train + num_dev"
            raise ValueError(
                f"task.{sizes} must not exceed the {len(pool)} labelled examples in the "
                f"{_pool(split)} data of {self.name}, got {asked}"
            )
        ranked = sorted(pool, key=self._rank)
        return ranked[-size:] if split == "dev" else ranked[:size]

    def tokenize(self, tokenizer: PreTrainedTokenizerBase, split: str) -> TokenizedSplit:
        """The tokens of a split.

        Args:
            tokenizer: The model's tokenizer.
            split: "train", "dev" or "test".

        Raises:
            ValueError: If a label word is not a single token, or the data do not suffice.
        """
        examples = self.examples(split)
        return tokenize_prompts(
            tokenizer,
            [self.prompt.format(**example.fields) for example in examples],
            [example.label for example in examples],
            self.label_words,
            self.max_length,
        )

    def _size(self, split: str) -> int:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        return int(getattr(self, f"num_{split}"))

    def _rank(self, example: Example) -> bytes:
        text = "\0".join([str(self.data_seed), *example.fields.values()])
        return hashlib.sha256(text.encode()).digest()

    def _check_prompt(self) -> None:
        used = {
            field for _, field, _, _ in string.Formatter().parse(self.prompt) if field is not None
        }
        if not used or not used <= set(self.source.fields):
            names = ", ".join(f"{{{name}}}" for name in self.source.fields)
            raise ValueError(f"prompt must be made of {names}, got {self.prompt!r}")
        if self.prompt != self.prompt.rstrip():
            raise ValueError(
                "prompt must not end with a space (the label words begin with it), "
                f"got {self.prompt!r}"
            )


def _pool(split: str) -> str:
    return "val" if split == "test" else "train"
