"""Tokens of a split: prompts encoded so that the last token is where the label word follows."""

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
class TokenizedSplit:
    """The N examples of a split, one after another without padding.

    Attributes:
        tokens: Ids of all examples. Shape: [total], int64.
        offsets: Example i is tokens[offsets[i]:offsets[i + 1]]; its last token is the label
            position. Shape: [N + 1], int64.
        labels: Index of the right label word. Shape: [N], int64.
        label_token_ids: The token of each label word. Shape: [C], int64.
        max_length: No example is longer.
        num_truncated: Examples that were cut to max_length.
    """

    tokens: torch.Tensor
    offsets: torch.Tensor
    labels: torch.Tensor
    label_token_ids: torch.Tensor
    max_length: int
    num_truncated: int

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over tokens, offsets, labels and label tokens."""
        digest = hashlib.sha256()
        for part in (self.tokens, self.offsets, self.labels, self.label_token_ids):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()

    def order_by_length(self) -> list[int]:
        """Indices from the shortest example to the longest; ties in the split's own order."""
        lengths = self.offsets.diff().tolist()
        return sorted(range(len(self)), key=lengths.__getitem__)

    def batch(
        self, indices: Sequence[int], pad_token_id: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Examples side by side, padded on the right.

        T is the longest of them, rounded up to a multiple of 8 but not beyond max_length.

        Args:
            indices: Which examples, B ≥ 1 of them.
            pad_token_id: Fills up the rows.

        Returns:
            Token ids [B, T], lengths [B] and labels [B], all int64.
        """
        import torch

        chosen = torch.as_tensor(indices)
        starts = self.offsets[chosen]
        lengths = self.offsets[chosen + 1] - starts
        width = -(-int(lengths.max()) // PADDING_MULTIPLE) * PADDING_MULTIPLE
        padded = self.tokens.new_full((len(chosen), min(width, self.max_length)), pad_token_id)
        for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            padded[row, :length] = self.tokens[start : start + length]
        return padded, lengths, self.labels[chosen]


def tokenize_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    labels: Sequence[int],
    label_words: Sequence[str],
    max_length: int,
) -> TokenizedSplit:
    """Encode prompts; a long one loses tokens on the left, so that its question stays.

    The tokens that the tokenizer puts in front (a BOS) are kept when a prompt is cut, as in
    MeZO; tokens that it appends (an EOS) are left out, because the label word follows the prompt.

    Args:
        tokenizer: The model's tokenizer.
        prompts: N ≥ 1 of them.
        labels: Index into label_words for each prompt.
        label_words: With their leading space.
        max_length: In tokens, the BOS included.

    Raises:
        ValueError: If a label word is not one token after the prompt, or two share a token.
    """
    import torch

    prefix = _tokens_in_front(tokenizer)
    encoded = _encode(tokenizer, prompts)
    room = max_length - len(prefix)
    rows = [[*prefix, *ids[-room:]] for ids in encoded]
    lengths = torch.tensor([0, *map(len, rows)])
    return TokenizedSplit(
        tokens=torch.tensor([token for row in rows for token in row]),
        offsets=lengths.cumsum(0),
        labels=torch.tensor(labels),
        label_token_ids=torch.tensor(_label_tokens(tokenizer, prompts[0], label_words)),
        max_length=max_length,
        num_truncated=sum(len(ids) > room for ids in encoded),
    )


def _label_tokens(
    tokenizer: PreTrainedTokenizerBase, prompt: str, label_words: Sequence[str]
) -> list[int]:
    plain, *continued = _encode(tokenizer, [prompt, *(prompt + word for word in label_words)])
    tokens: dict[int, str] = {}
    for word, ids in zip(label_words, continued, strict=True):
        if ids[:-1] != plain:
            pieces = tokenizer.convert_ids_to_tokens(_encode(tokenizer, [word])[0])
            raise ValueError(
                f"task.label_words: each must be one token after the prompt, but {word!r} is "
                f"{len(pieces)} for this model: {pieces}"
            )
        if ids[-1] in tokens:
            raise ValueError(
                f"task.label_words: {tokens[ids[-1]]!r} and {word!r} are the same token"
            )
        tokens[ids[-1]] = word
    return list(tokens)


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    encoding = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    ids: list[list[int]] = encoding["input_ids"]
    return ids


def _tokens_in_front(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    whole: list[int] = tokenizer("a")["input_ids"]
    (bare,) = _encode(tokenizer, ["a"])
    return whole[: whole.index(bare[0])]
