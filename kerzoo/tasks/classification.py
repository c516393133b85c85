"""Classification by label words: a word answers each class."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kerzoo.tasks.base import Objective, Task, fill
from kerzoo.tasks.encoding import (
    ContinuationSplit,
    EncodedSplit,
    LabelWordSplit,
    Sequences,
    encode,
    encode_sequences,
    single_tokens,
    tokens_behind,
    tokens_in_front,
)
from kerzoo.tasks.multiple_choice import encode_candidates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kerzoo.tasks.demonstrations import Demonstrations
    from kerzoo.tasks.sources import Example

MASK = "{mask}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationTask(Task):
    """The model continues the prompt with a label word, or fills it in at the prompt's mask.

    A label word's score is the mean log-likelihood of its tokens. Where all are single tokens
    that is, up to a constant that all candidates share, its logit at one position, and nothing
    else is computed.

    Args:
        label_words: One per class, with its leading space where there is one.

    Raises:
        ValueError: For a value outside its range or a prompt that does not fit the source.
    """

    label_words: tuple[str, ...]
    objective: Objective = "cross_entropy"

    objectives: ClassVar[tuple[Objective, ...]] = (
        "cross_entropy",
        "language_model",
        "accuracy",
        "f1",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_words", tuple(self.label_words))
        super().__post_init__()
        if len(set(self.label_words)) != len(self.label_words) or (
            self.source.num_labels != len(self.label_words)
        ):
            raise ValueError(
                f"label_words must be {self.source.num_labels} different words, "
                f"got {list(self.label_words)}"
            )
        if self.prompt.count(MASK) > 1:
            raise ValueError(f"prompt must have one {MASK} at most, got {self.prompt!r}")
        if self.masked and self.objective == "language_model":
            raise ValueError("objective=language_model needs a prompt that the model continues")

    @property
    def masked(self) -> bool:
        """Whether the label word stands at a mask inside the prompt."""
        return MASK in self.prompt

    def continuations(self, example: Example) -> tuple[str, ...]:
        """The label words."""
        return self.label_words

    def check_demonstrations(self, number: int) -> None:
        """The contract's; a prompt with a mask has none."""
        if self.masked:
            raise ValueError(
                "method.num_demonstrations must be 0 where the prompt has a mask: demonstrations "
                f"stand in front of a prompt that the model continues, got {number}"
            )
        super().check_demonstrations(number)

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        split: str,
        demonstrations: Demonstrations | None = None,
    ) -> EncodedSplit:
        """One sequence an example where every label word is one token, else one a label word.

        Raises:
            ValueError: If two label words share a token, a mask's label word is several tokens,
                or the data do not suffice.
        """
        examples = self.examples(split)
        if self.masked:
            return self._encode_masked(tokenizer, examples)
        prompts = self.prompts(tokenizer, examples, demonstrations)
        tokens = single_tokens(tokenizer, prompts[0], self.label_words)
        if tokens is None or self.objective == "language_model":
            return self._encode_continuations(tokenizer, examples, prompts)
        sequences = encode_sequences(tokenizer, encode(tokenizer, prompts), self.max_length)
        last = [length - 1 for length in sequences.lengths]
        return _label_word_split(sequences, last, examples, tokens)

    def _encode_continuations(
        self,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        prompts: Sequence[str],
    ) -> ContinuationSplit:
        candidates = [self.label_words] * len(examples)
        return encode_candidates(tokenizer, examples, prompts, candidates, self.max_length)

    def _encode_masked(
        self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
    ) -> LabelWordSplit:
        """Special tokens in front and behind; a long prompt is cut in front of the mask's part."""
        mask = tokenizer.mask_token_id
        if mask is None:
            raise ValueError(
                f"task.prompt: {self.name} asks at a mask, and this model's tokenizer has none; "
                "choose a masked language model such as model=roberta-large"
            )
        words = encode(tokenizer, self.label_words)
        if any(len(ids) != 1 for ids in words) or len({ids[0] for ids in words}) < len(words):
            pieces = {
                w: tokenizer.convert_ids_to_tokens(i)
                for w, i in zip(self.label_words, words, strict=True)
            }
            raise ValueError(
                f"task.label_words: each must be one token of its own at the mask, got {pieces}"
            )
        texts = [fill(self.prompt, e.fields, mask=str(tokenizer.mask_token)) for e in examples]
        behind = tokens_behind(tokenizer)
        room = self.max_length - len(tokens_in_front(tokenizer)) - len(behind)
        rows = [_cut_around(ids, mask, room) for ids in encode(tokenizer, texts)]
        sequences = encode_sequences(tokenizer, [[*r, *behind] for r, _ in rows], self.max_length)
        sequences = dataclasses.replace(sequences, num_truncated=sum(cut for _, cut in rows))
        bounds = sequences.offsets.tolist()
        found = [sequences.tokens[a:b].tolist().index(mask) for a, b in itertools.pairwise(bounds)]
        return _label_word_split(sequences, found, examples, [ids[0] for ids in words])


def _cut_around(ids: list[int], mask: int, room: int) -> tuple[list[int], bool]:
    """At most `room` tokens, cut on the left as far as the mask allows, then on the right."""
    start = min(max(len(ids) - room, 0), ids.index(mask))
    return ids[start : start + room], len(ids) > room


def _label_word_split(
    sequences: Sequences,
    positions: Sequence[int],
    examples: Sequence[Example],
    label_token_ids: Sequence[int],
) -> LabelWordSplit:
    import torch

    return LabelWordSplit(
        sequences=sequences,
        positions=torch.tensor(positions),
        labels=torch.tensor([example.label for example in examples]),
        label_token_ids=torch.tensor(label_token_ids),
    )
