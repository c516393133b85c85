"""Label words at one position of an example: their logits and no others.

For an example x with label words w_1 … w_C (single tokens) the scores are the model's logits of
the label words where it predicts the next token, or at the mask,

    s_c = logits(x)[position, w_c],    loss = −log softmax(s)[label].

This equals the loss over the candidates' log-likelihoods: the normaliser of the full vocabulary is
the same for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kerzoo.losses.base import SplitLoss
from kerzoo.losses.heads import output_layer, scores_of_tokens
from kerzoo.tasks import LabelWordSplit


class LabelWordLoss(SplitLoss):
    """The contract for a `LabelWordSplit`."""

    split: LabelWordSplit

    def scores(self, indices: Sequence[int]) -> torch.Tensor:
        """Logits of the label words. Shape: [B, C], fp32."""
        layer = output_layer(self.runner.loaded.model)
        words = self.split.label_token_ids
        found: dict[int, torch.Tensor] = {}
        for group in self.runner.micro_batches(indices):
            positions = [[int(self.split.positions[index])] for index in group]
            states = self.runner.states(group, positions)
            found |= zip(group, scores_of_tokens(layer, states, words), strict=True)
        return torch.stack([found[index] for index in indices])
