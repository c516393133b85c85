"""Continuations of several tokens: each candidate's mean log-likelihood.

For candidate c with tokens c_1 … c_n after the prompt x,

    s_c = (1/n) Σ_j log p(c_j | x, c_1 … c_{j−1}).

Source: length-normalised scoring as in Malladi et al. 2023, arXiv 2305.17333.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from kerzoo.losses.base import SplitLoss
from kerzoo.losses.heads import output_layer, scores_of_tokens
from kerzoo.tasks import ContinuationSplit


class ContinuationLoss(SplitLoss):
    """The contract for a `ContinuationSplit`."""

    split: ContinuationSplit

    def scores(self, indices: Sequence[int]) -> torch.Tensor:
        """Mean log-likelihood of a token of each candidate. Shape: [B, C], fp32."""
        chosen = [self.split.sequences_of(index) for index in indices]
        found = self._log_likelihoods([s for own in chosen for s in own])
        rows = [torch.stack([found[s].mean() for s in own]) for own in chosen]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-torch.inf)

    def tensor_loss(self, indices: Sequence[int]) -> torch.Tensor:
        """The contract's; as a language model, −Σ log p / Σ tokens over the right continuations."""
        if self.objective != "language_model":
            return super().tensor_loss(indices)
        right = self._right(indices)
        found = self._log_likelihoods(right)
        return -torch.cat([found[sequence] for sequence in right]).mean()

    def weight(self, indices: Sequence[int]) -> int:
        """As a language model, the tokens of the right continuations."""
        if self.objective != "language_model":
            return super().weight(indices)
        return sum(int(self.split.continuation_lengths[s]) for s in self._right(indices))

    def num_tokens(self, indices: Sequence[int]) -> int:
        """Tokens that a forward pass reads: of all candidates, or of the right ones alone."""
        if self.objective != "language_model":
            return super().num_tokens(indices)
        lengths = self.runner.sequences.lengths
        return sum(lengths[sequence] for sequence in self._right(indices))

    def _right(self, indices: Sequence[int]) -> list[int]:
        """The sequence of each example's right continuation."""
        return [int(self.split.first_sequence[i] + self.split.labels[i]) for i in indices]

    def _log_likelihoods(self, sequences: Sequence[int]) -> dict[int, torch.Tensor]:
        """log p of each token of each sequence's continuation. Shape of each: [n], fp32."""
        layer = output_layer(self.runner.loaded.model)
        own = self.runner.sequences
        found: dict[int, torch.Tensor] = {}
        for group in self.runner.micro_batches(list(dict.fromkeys(sequences))):
            counts = [int(self.split.continuation_lengths[s]) for s in group]
            ends = [own.lengths[s] for s in group]
            positions = [
                range(end - count - 1, end - 1) for end, count in zip(ends, counts, strict=True)
            ]
            logits = scores_of_tokens(layer, self.runner.states(group, positions))
            targets = torch.cat(
                [
                    own.tokens[int(own.offsets[s + 1]) - count : int(own.offsets[s + 1])]
                    for s, count in zip(group, counts, strict=True)
                ]
            ).to(logits.device)
            likelihoods = -F.cross_entropy(logits, targets, reduction="none")
            found |= zip(group, torch.split(likelihoods, counts), strict=True)
        return found
