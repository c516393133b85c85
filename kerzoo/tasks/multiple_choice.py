"""Multiple choice: every example has continuations of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kerzoo.tasks.base import Objective, Task
from kerzoo.tasks.encoding import ContinuationSplit, encode_continuations, encode_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kerzoo.tasks.demonstrations import Demonstrations
    from kerzoo.tasks.sources import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoiceTask(Task):
    """The candidate whose tokens have the highest mean log-likelihood after the prompt is chosen.

    Trained on the right candidate as a language model, as in MeZO's protocol, or on the
    candidates' scores.
    """

    objective: Objective = "language_model"

    objectives: ClassVar[tuple[Objective, ...]] = ("language_model", "cross_entropy", "accuracy")

    def continuations(self, example: Example) -> tuple[str, ...]:
        """The example's own candidates."""
        return example.candidates

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        split: str,
        demonstrations: Demonstrations | None = None,
    ) -> ContinuationSplit:
        """One sequence for each candidate."""
        examples = self.examples(split)
        prompts = self.prompts(tokenizer, examples, demonstrations)
        candidates = [example.candidates for example in examples]
        return encode_candidates(tokenizer, examples, prompts, candidates, self.max_length)


def encode_candidates(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    prompts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    max_length: int,
) -> ContinuationSplit:
    """Sequences of prompts followed by each of their candidates.

    A long sequence is cut on the left, so that its continuation stays whole.

    Args:
        tokenizer: The model's tokenizer.
        examples: N of them.
        prompts: Of each example.
        candidates: Continuations of each example.
        max_length: In tokens.

    Raises:
        ValueError: If a candidate adds no token, or is longer than max_length leaves room for.
    """
    import torch

    encoded = [
        encode_continuations(tokenizer, prompt, own)
        for prompt, own in zip(prompts, candidates, strict=True)
    ]
    flat = [pair for pairs in encoded for pair in pairs]
    longest = max(length for _, length in flat)
    if longest >= max_length - 2:
        raise ValueError(
            f"task.max_length must leave room for a prompt: a candidate has {longest} tokens, "
            f"got {max_length}"
        )
    counts = torch.tensor([0, *map(len, encoded)])
    return ContinuationSplit(
        sequences=encode_sequences(tokenizer, [ids for ids, _ in flat], max_length),
        continuation_lengths=torch.tensor([length for _, length in flat]),
        first_sequence=counts.cumsum(0),
        labels=torch.tensor([example.label for example in examples]),
        also_right=tuple(example.also_right for example in examples),
    )
