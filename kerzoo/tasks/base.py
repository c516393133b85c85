"""The contract of a task: which examples a run trains on, chooses by and is judged by."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from kerzoo.tasks.sources import Example, ExampleSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kerzoo.tasks.demonstrations import Demonstrations
    from kerzoo.tasks.encoding import EncodedSplit, Sequences

SPLITS = ("train", "dev", "test")

Objective = Literal["cross_entropy", "language_model", "accuracy", "f1"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A data source with a prompt.

    As in MeZO's protocol, train and dev are drawn from the source's train pool without overlap,
    and the test figure comes from its val pool. Members are drawn by rank of a hash of
    (data_seed, example): the same on every machine and library version, and whatever the other
    sizes are. A folder without train data will do for a model that is not trained: its dev is
    drawn from the other end of the val pool, which is said.

    Args:
        name: As in records and tables.
        source: Where labelled examples come from.
        prompt: Format string over the source's fields; the model continues it.
        objective: What a step minimises: "cross_entropy" over the candidates' scores,
            "language_model" for the right continuation's mean negative log-likelihood of a
            token, "accuracy" or "f1" for 1 − that figure of the batch, which has no gradient.
        num_train: Training examples.
        num_dev: Examples that choose rungs and checkpoints.
        num_test: Examples of the final figure. A size may be 0 where a run needs no such split.
        shots: k; then train and dev are k examples of each class, in place of those sizes.
        data_seed: Of the draw, apart from the run's seed.
        max_length: In tokens, continuation included; longer inputs are cut on the left.
        data_dir: Folder with the task's public files, or null for the source's own place.

    Raises:
        ValueError: For a value outside its range or a prompt that does not fit the source.

    Source: Malladi et al. 2023, "Fine-Tuning Language Models with Just Forward Passes", arXiv
    2305.17333.
    """

    name: str
    source: ExampleSource
    prompt: str
    objective: Objective
    num_train: int
    num_dev: int
    num_test: int
    shots: int | None = None
    data_seed: int = 0
    max_length: int = 128
    data_dir: str | None = None

    objectives: ClassVar[tuple[Objective, ...]]
    metric: ClassVar[Literal["accuracy", "f1"]] = "accuracy"

    def __post_init__(self) -> None:
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
        if self.shots is not None and (self.shots < 1 or self.source.num_labels is None):
            raise ValueError(
                f"shots must be null, or at least 1 for a source with classes, got {self.shots}"
            )
        if self.objective not in self.objectives:
            allowed = ", ".join(self.objectives)
            raise ValueError(f"objective must be one of {allowed}, got {self.objective!r}")
        self._check_prompt()

    @property
    def dev_objective(self) -> Objective:
        """What `dev_loss` is: the objective, or its smooth stand-in where it has no gradient."""
        if self.objective in ("cross_entropy", "language_model"):
            return self.objective
        return next(o for o in self.objectives if o in ("cross_entropy", "language_model"))

    @property
    def binary(self) -> bool:
        """Whether there are two classes, the same for all examples."""
        return self.source.num_labels == 2

    @abc.abstractmethod
    def continuations(self, example: Example) -> tuple[str, ...]:
        """What may follow an example's prompt; the right one stands at the example's label."""

    @abc.abstractmethod
    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        split: str,
        demonstrations: Demonstrations | None = None,
    ) -> EncodedSplit:
        """The tokens of a split.

        Args:
            tokenizer: The model's tokenizer.
            split: "train", "dev" or "test".
            demonstrations: What stands in front of every prompt.

        Raises:
            ValueError: If prompt and tokenizer do not fit, or the data do not suffice.
        """

    @property
    def reserved_tokens(self) -> int:
        """Tokens of the context window that prompt and continuation must leave free."""
        return 0

    def verbalise(self, example: Example) -> str:
        """The prompt with the right continuation, as a demonstration shows it."""
        prompt = fill(self.prompt, example.fields)
        return (prompt + self.continuations(example)[example.label]).strip()

    def prompts(
        self,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        demonstrations: Demonstrations | None = None,
    ) -> list[str]:
        """The examples' prompts, behind the demonstrations that they have room for.

        Raises:
            ValueError: If demonstrations do not fit and may not be cut.
        """
        prompts = [fill(self.prompt, example.fields) for example in examples]
        if demonstrations is None:
            return prompts
        left_out = self.count_left_out(tokenizer, examples, demonstrations)
        return demonstrations.in_front_of(prompts, left_out)

    def count_left_out(
        self,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        demonstrations: Demonstrations,
    ) -> list[int]:
        """How many demonstrations each example has no room for. Length: that of examples.

        Raises:
            ValueError: If demonstrations do not fit and may not be cut.
        """
        longest = [
            fill(self.prompt, example.fields) + max(self.continuations(example), key=len)
            for example in examples
        ]
        return demonstrations.count_left_out(tokenizer, longest, self.reserved_tokens)

    def check_demonstrations(self, number: int) -> None:
        """See whether the task has that many demonstrations; reads no data.

        Raises:
            ValueError: Naming the key.
        """
        if number > self.num_examples("train"):
            raise ValueError(
                "method.num_demonstrations must not exceed the task's "
                f"{self.num_examples('train')} training examples, got {number}"
            )

    def num_examples(self, split: str) -> int:
        """Examples of a split; with shots the most that there may be."""
        return self._size(split)

    def check_available(self, splits: Sequence[str] = SPLITS) -> None:
        """See whether the data of some splits can be read; loads and downloads nothing.

        Args:
            splits: The splits that a run needs; those of size 0 are left out.

        Raises:
            ValueError: Naming what is missing and the setting that helps.
        """
        needed = [split for split in splits if self._size(split) > 0]
        for pool in dict.fromkeys(self._pool(split) for split in needed):
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
        if size == 0:
            raise ValueError(f"task.num_{split} must be at least 1 for a run that needs this split")
        pool = sorted(self.source.read(self.data_dir, self._pool(split)), key=self._rank)
        if self.shots is not None and split != "test":
            return self._draw_shots(pool, split)
        sizes = f"num_{split}" if self._pool(split) == "val" else "num_train + num_dev"
        asked = size if self._pool(split) == "val" else self.num_train + self.num_dev
        if asked > len(pool):
            raise ValueError(
                f"task.{sizes} must not exceed the {len(pool)} labelled examples in the "
                f"{self._pool(split)} data of {self.name}, got {asked}"
            )
        return pool[-size:] if split == "dev" else pool[:size]

    def describe_losses(self, split: str, sequences: Sequences) -> list[str]:
        """What of a split's data the model does not see: rows left out, and texts that were cut."""
        pool = self.source.read_pool(self.data_dir, self._pool(split))
        lines = [
            f"{self.name} {split}: {count:,} rows of the source left out: {reason}"
            for reason, count in pool.skipped.items()
        ]
        if split == "dev" and self._pool(split) == "val":
            lines.append(f"{self.name} dev: drawn from the val data, there being no train data")
        if sequences.num_truncated:
            lines.append(
                f"{self.name} {split}: {sequences.num_truncated:,} of {len(sequences):,} inputs "
                f"cut on the left to {sequences.max_length} tokens"
            )
        return lines

    def _draw_shots(self, pool: Sequence[Example], split: str) -> list[Example]:
        """The first k of each class in rank order for train, the next k for dev.

        A class that has fewer gives what it has, as in the protocol.
        """
        assert self.shots is not None
        classes: dict[int, list[Example]] = defaultdict(list)
        for example in pool:
            classes[example.label].append(example)
        first = self.shots if split == "dev" else 0
        chosen = [e for label in sorted(classes) for e in classes[label][first:][: self.shots]]
        if not chosen:
            raise ValueError(f"task.shots: {self.name} has no examples left for {split}")
        return sorted(chosen, key=self._rank)

    def _size(self, split: str) -> int:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if self.shots is not None and split != "test":
            return self.shots * (self.source.num_labels or 0)
        return int(getattr(self, f"num_{split}"))

    def _pool(self, split: str) -> str:
        has_train = split != "test" and self.source.has_pool(self.data_dir, "train")
        return "train" if split == "train" or has_train else "val"

    def _rank(self, example: Example) -> bytes:
        text = "\0".join([str(self.data_seed), *example.fields.values()])
        return hashlib.sha256(text.encode()).digest()

    def _check_prompt(self) -> None:
        used = fields_of(self.prompt) - {"mask"}
        if not used or not used <= set(self.source.fields):
            names = ", ".join(f"{{{name}}}" for name in self.source.fields)
            raise ValueError(f"prompt must be made of {names}, got {self.prompt!r}")
        if self.prompt != self.prompt.rstrip(" "):
            raise ValueError(
                "prompt must not end with a space (what follows begins with it), "
                f"got {self.prompt!r}"
            )


def fields_of(template: str) -> set[str]:
    """The names in a format string."""
    return {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}


def fill(template: str, fields: Mapping[str, str], **more: str) -> str:
    """A format string with its fields put in."""
    return template.format(**fields, **more)
