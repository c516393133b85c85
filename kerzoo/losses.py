"""The classification loss over label words, from the logits that it needs and no others.

For an example with prompt x and label words w_1 … w_C (single tokens), the scores are the
language model's next-token logits of the label words at the prompt's last token,

    s_c = logits(x)[last, w_c],    loss = −log softmax(s)[label],

so the output matrix is applied at one position to C rows, in fp32. This equals the loss that the
full logits give; a model that does more to its logits is refused (`check_output_layer`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from kerzoo.frozen import CachedEntry, FrozenOutputs
from kerzoo.models import LoadedModel
from kerzoo.tasks import TokenizedSplit

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MICRO_BATCH_EXAMPLES = {"cpu": 8}
"""Examples run together, by device type; all of a batch where none is named."""


class LabelWordLoss:
    """Scores and loss of examples of one split, at the model's current parameters.

    Args:
        loaded: The model, with whatever adapters are attached.
        split: The examples.
        frozen: The frozen layers' outputs for the split, where the layers are replaced.
        entry: The module that hands those outputs to the model.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        split: TokenizedSplit,
        frozen: FrozenOutputs | None = None,
        entry: CachedEntry | None = None,
    ) -> None:
        assert (frozen is None) == (entry is None)
        self.loaded = loaded
        self.split = split
        self.frozen = frozen
        self.entry = entry

    @torch.inference_mode()
    def scores(self, indices: list[int]) -> torch.Tensor:
        """Logits of the label words at the label position. Shape: [B, C], fp32.

        Examples of similar length are run together, a micro-batch at a time, which saves padding;
        an example's micro-batch depends on the batch alone.
        """
        device = self.loaded.model.device
        lengths = self.split.offsets.diff()[indices]
        by_length = lengths.argsort(stable=True).tolist()
        scores = torch.empty(len(indices), len(self.split.label_token_ids), device=device)
        size = MICRO_BATCH_EXAMPLES.get(device.type, len(indices))
        for start in range(0, len(indices), size):
            rows = by_length[start : start + size]
            scores[rows] = self._micro_batch([indices[row] for row in rows])
        return scores

    def _micro_batch(self, indices: list[int]) -> torch.Tensor:
        model = self.loaded.model
        tokens, lengths, _ = self.split.batch(indices, self.loaded.pad_token_id)
        if self.frozen is not None and self.entry is not None:
            self.entry.outputs = self.frozen.batch(indices, tokens.shape[1]).to(model.device)
        try:
            # Padding is on the right and attention causal: no mask is needed up to the label.
            hidden = model.base_model(input_ids=tokens.to(model.device), use_cache=False)
        finally:
            if self.entry is not None:
                self.entry.outputs = None
        rows = torch.arange(len(indices), device=model.device)
        last = hidden.last_hidden_state[rows, lengths.to(model.device) - 1]
        head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        return label_scores(head, last, self.split.label_token_ids)

    def loss(self, indices: list[int]) -> float:
        """Mean cross-entropy over a batch, in nats."""
        labels = self.split.labels[indices].to(self.loaded.model.device)
        return float(F.cross_entropy(self.scores(indices), labels))

    def num_tokens(self, indices: list[int]) -> int:
        """Tokens of a batch, padding excluded."""
        return sum(int(self.split.offsets[i + 1] - self.split.offsets[i]) for i in indices)


@torch.inference_mode()
def check_output_layer(model: PreTrainedModel) -> None:
    """See, on a few tokens, that the model's logits are what its output layer makes of the states.

    Raises:
        ValueError: If it scales or caps its logits, or has no linear output layer.
    """
    name = type(model).__name__
    head: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Linear):
        raise ValueError(f"model: {name} must have a linear output layer, got {head!r}")
    rows = len(head.weight)
    tokens = torch.arange(8, device=model.device).remainder(rows)[None]
    some = torch.arange(0, rows, -(-rows // _ROWS_CHECKED), device=model.device)
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, -1]
    logits = model(input_ids=tokens, use_cache=False).logits[:, -1, some].float()
    # Half precision rounds the full logits; in single precision only the order of sums differs.
    tolerance = max(4 * torch.finfo(model.dtype).eps, 1e-4) * float(logits.abs().max())
    error = float((label_scores(head, hidden, some) - logits).abs().max())
    if getattr(model.config, "final_logit_softcapping", None) or not error <= tolerance:
        raise ValueError(
            f"model: {name} scales or caps its logits, which the label-word loss leaves out (on a "
            f"few tokens they differ by {error:.2g}); choose a model whose logits are those of its "
            "output layer, such as OPT, Llama, Mistral, Qwen2 or GPT-NeoX"
        )


_ROWS_CHECKED = 256


def label_scores(
    head: nn.Module, hidden: torch.Tensor, label_token_ids: torch.Tensor
) -> torch.Tensor:
    """Rows of the output layer for the label words, applied in fp32.

    Args:
        head: The model's output layer (`torch.nn.Linear`).
        hidden: Hidden state at the label position. Shape: [B, hidden].
        label_token_ids: Shape: [C].

    Returns:
        Shape: [B, C], fp32.
    """
    assert isinstance(head, nn.Linear)
    ids = label_token_ids.to(hidden.device)
    bias: torch.Tensor | None = head.bias
    return F.linear(
        hidden.float(), head.weight[ids].float(), None if bias is None else bias[ids].float()
    )
