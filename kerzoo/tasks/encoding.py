"""Tokens of a split: prompts, and what may follow them.

Two encodings. Where a word answers each class and is one token, an example is one sequence, and
the label words are compared at one position of it (`LabelWordSplit`). Everywhere else an example
is one sequence for each continuation that is scored (`ContinuationSplit`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

PADDING_MULTIPLE = 8
"""Batches are padded to a multiple of this many tokens."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """S token sequences, one after another without padding.

    Attributes:
        tokens: Ids of all sequences. Shape: [total], int64.
        offsets: Sequence i is tokens[offsets[i]:offsets[i + 1]]. Shape: [S + 1], int64.
        max_length: No sequence is longer.
        num_truncated: Sequences that were cut to max_length.
    """

    tokens: torch.Tensor
    offsets: torch.Tensor
    max_length: int
    num_truncated: int

    def __len__(self) -> int:
        """S."""
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> list[int]:
        """Tokens of each sequence. Length: S."""
        lengths: list[int] = self.offsets.diff().tolist()
        return lengths

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over tokens and offsets."""
        digest = hashlib.sha256()
        for part in (self.tokens, self.offsets):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()

    def order_by_length(self, indices: Sequence[int] | None = None) -> list[int]:
        """Indices (of all) from the shortest sequence to the longest; ties in their own order."""
        chosen = range(len(self)) if indices is None else indices
        return sorted(chosen, key=self.lengths.__getitem__)

    def batch(self, indices: Sequence[int], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sequences side by side, padded on the right.

        T is the longest of them, rounded up to a multiple of 8 but not beyond max_length.

        Args:
            indices: Which sequences, B ≥ 1 of them.
            pad_token_id: Fills up the rows.

        Returns:
            Token ids [B, T] and lengths [B], both int64.
        """
        import torch

        chosen = torch.as_tensor(indices)
        starts = self.offsets[chosen]
        lengths = self.offsets[chosen + 1] - starts
        width = -(-int(lengths.max()) // PADDING_MULTIPLE) * PADDING_MULTIPLE
        padded = self.tokens.new_full((len(chosen), min(width, self.max_length)), pad_token_id)
        for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            padded[row, :length] = self.tokens[start : start + length]
        return padded, lengths


@dataclasses.dataclass(frozen=True, eq=False)
class LabelWordSplit:
    """N examples of one sequence each, and the tokens that answer them.

    Attributes:
        sequences: One for each example.
        positions: Where the label word is predicted: the last token of a prompt that the model
            continues, or the mask. Shape: [N], int64.
        labels: Index of the right label word. Shape: [N], int64.
        label_token_ids: The token of each label word. Shape: [C], int64.
    """

    sequences: Sequences
    positions: torch.Tensor
    labels: torch.Tensor
    label_token_ids: torch.Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def sequences_of(self, example: int) -> range:
        """The one sequence of an example."""
        return range(example, example + 1)

    def is_right(self, example: int, candidate: int) -> bool:
        """Whether a label word is the right one."""
        return int(self.labels[example]) == candidate


@dataclasses.dataclass(frozen=True, eq=False)
class ContinuationSplit:
    """N examples with a sequence, prompt and continuation, for each of their candidates.

    Attributes:
        sequences: Of all candidates of all examples.
        continuation_lengths: Tokens at the end of a sequence that are scored. Shape: [S], int64.
        first_sequence: Example i has the sequences first_sequence[i] … first_sequence[i + 1] − 1.
            Shape: [N + 1], int64.
        labels: Index of the right candidate, or of the first that is. Shape: [N], int64.
        also_right: Further right candidates of each example. Length: N.
        answers: Acceptable answers of each example, where answers are generated. Length: N or 0.
        prompts: The examples' prompts alone, where answers are generated.
    """

    sequences: Sequences
    continuation_lengths: torch.Tensor
    first_sequence: torch.Tensor
    labels: torch.Tensor
    also_right: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[str, ...], ...] = ()
    prompts: Sequences | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def sequences_of(self, example: int) -> range:
        """The sequences of an example, one for each candidate."""
        return range(int(self.first_sequence[example]), int(self.first_sequence[example + 1]))

    def is_right(self, example: int, candidate: int) -> bool:
        """Whether a candidate is a right one."""
        return candidate == int(self.labels[example]) or candidate in self.also_right[example]


EncodedSplit = LabelWordSplit | ContinuationSplit


def encode_sequences(
    tokenizer: PreTrainedTokenizerBase, encoded: Sequence[Sequence[int]], max_length: int
) -> Sequences:
    """Sequences with what the tokenizer puts in front (a BOS); a long one is cut on the left.

    The tokens in front are kept when a sequence is cut, as in MeZO; tokens that the tokenizer
    appends (an EOS) are left out, because the answer follows the prompt.

    Args:
        tokenizer: The model's tokenizer.
        encoded: Token ids without special tokens. Length: S ≥ 1.
        max_length: In tokens, the BOS included.
    """
    import torch

    prefix = tokens_in_front(tokenizer)
    room = max_length - len(prefix)
    rows = [[*prefix, *ids[-room:]] for ids in encoded]
    lengths = torch.tensor([0, *map(len, rows)])
    return Sequences(
        tokens=torch.tensor([token for row in rows for token in row]),
        offsets=lengths.cumsum(0),
        max_length=max_length,
        num_truncated=sum(len(ids) > room for ids in encoded),
    )


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, without special tokens."""
    encoding = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    ids: list[list[int]] = encoding["input_ids"]
    return ids


def encode_continuations(
    tokenizer: PreTrainedTokenizerBase, prompt: str, continuations: Sequence[str]
) -> list[tuple[list[int], int]]:
    """Token ids of prompt + continuation, and how many of them the continuation has.

    As in MeZO's protocol that is the length of the whole less the length of the prompt alone.

    Raises:
        ValueError: If a continuation adds no token.
    """
    (plain, *continued) = encode(tokenizer, [prompt, *(prompt + c for c in continuations)])
    for text, ids in zip(continuations, continued, strict=True):
        if len(ids) <= len(plain):
            raise ValueError(f"the candidate {text!r} adds no token to its prompt")
    return [(ids, len(ids) - len(plain)) for ids in continued]


def single_tokens(
    tokenizer: PreTrainedTokenizerBase, prompt: str, words: Sequence[str]
) -> list[int] | None:
    """The token that each word adds to a prompt; None if one of them adds several.

    Raises:
        ValueError: If two words are the same token.
    """
    (plain, *continued) = encode(tokenizer, [prompt, *(prompt + word for word in words)])
    if any(ids[:-1] != plain for ids in continued):
        return None
    tokens: dict[int, str] = {}
    for word, ids in zip(words, continued, strict=True):
        if ids[-1] in tokens:
            raise ValueError(
                f"task.label_words: {tokens[ids[-1]]!r} and {word!r} are the same token"
            )
        tokens[ids[-1]] = word
    return list(tokens)


def tokens_in_front(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that the tokenizer puts before any text."""
    whole: list[int] = tokenizer("a")["input_ids"]
    (bare,) = encode(tokenizer, ["a"])
    return whole[: whole.index(bare[0])]


def tokens_behind(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that the tokenizer puts after any text."""
    whole: list[int] = tokenizer("a")["input_ids"]
    (bare,) = encode(tokenizer, ["a"])
    return whole[whole.index(bare[0]) + len(bare) :]
