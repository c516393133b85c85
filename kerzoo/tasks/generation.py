"""Generation: the model writes the answer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from kerzoo.tasks.base import Objective, Task, fields_of
from kerzoo.tasks.encoding import ContinuationSplit, encode, encode_sequences
from kerzoo.tasks.multiple_choice import encode_candidates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kerzoo.tasks.demonstrations import Demonstrations
    from kerzoo.tasks.sources import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationTask(Task):
    """Trained on the first answer as a language model; judged by the F1 of what it writes.

    Decoding is greedy and ends at a line break, at the tokenizer's end of text, or after
    `max_new_tokens`, for which max_length leaves room, in training too.

    Args:
        answer: Format string of {answer}: what follows the prompt in training.
        max_new_tokens: Longest generated answer.

    Raises:
        ValueError: For a value outside its range, or an answer template without {answer}.
    """

    answer: str = " {answer}\n"
    max_new_tokens: int = 50
    objective: Objective = "language_model"

    objectives: ClassVar[tuple[Objective, ...]] = ("language_model", "f1")
    metric: ClassVar[Literal["accuracy", "f1"]] = "f1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if fields_of(self.answer) != {"answer"}:
            raise ValueError(f"answer must be made of {{answer}} alone, got {self.answer!r}")
        if not 1 <= self.max_new_tokens < self.max_length:
            raise ValueError(
                f"max_new_tokens must lie in [1, max_length), got {self.max_new_tokens}"
            )

    @property
    def reserved_tokens(self) -> int:
        """Room for the answer that is generated."""
        return self.max_new_tokens

    def continuations(self, example: Example) -> tuple[str, ...]:
        """The answer that training uses."""
        return (self.answer.format(answer=example.answers[0]),)

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        split: str,
        demonstrations: Demonstrations | None = None,
    ) -> ContinuationSplit:
        """A sequence with the first answer for each example, and its prompt alone."""
        examples = self.examples(split)
        prompts = self.prompts(tokenizer, examples, demonstrations)
        golds = [self.continuations(example) for example in examples]
        room = self.max_length - self.max_new_tokens
        encoded = encode_candidates(tokenizer, examples, prompts, golds, room)
        return dataclasses.replace(
            encoded,
            answers=tuple(example.answers for example in examples),
            prompts=encode_sequences(tokenizer, encode(tokenizer, prompts), room),
        )
