"""The output layer alone."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kerzoo.models.sizes import ModelSizes
from kerzoo.tuning.base import Attached, Tuning

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class HeadTuning(Tuning):
    """A copy of the output layer, from which the loss reads the label words' rows.

    Where it is tied to the embeddings, those stay: the copy is not tied, and the model is saved
    whole and with `tie_word_embeddings` false, so that `from_pretrained` loads both. It starts as
    the model's own; nothing is drawn.

    Args:
        last_layers: 0 caches the outputs of all layers; null computes them each time, which
            answers that are generated need.
    """

    last_layers: int | None = 0

    def __post_init__(self) -> None:
        if self.last_layers not in (0, None):
            raise ValueError(
                f"last_layers must be 0 or null: no layer moves, got {self.last_layers}"
            )

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """Put the copy in the output layer's place; put that back on leaving."""
        from torch import nn

        untyped: Any = model
        original, config = untyped.get_output_embeddings(), untyped.config
        if not isinstance(original, nn.Linear):
            raise ValueError(
                f"model: {type(model).__name__} must have a linear output layer, got {original!r}"
            )
        head = copy.deepcopy(original)
        tied, config.tie_word_embeddings = config.tie_word_embeddings, False
        tied_keys, untyped.all_tied_weights_keys = untyped.all_tied_weights_keys, {}
        untyped.set_output_embeddings(head)
        try:
            ours = {id(parameter) for parameter in head.parameters()}
            chosen = {n: p for n, p in model.named_parameters() if id(p) in ours}
            yield Attached(chosen, model)
        finally:
            untyped.set_output_embeddings(original)
            untyped.all_tied_weights_keys = tied_keys
            config.tie_word_embeddings = tied

    def count_parameters(self, sizes: ModelSizes) -> int:
        """Those of the output layer."""
        return sizes.head_parameters

    def trained_dtype(self, model_dtype: str) -> str:
        """The copy has the model's own precision."""
        return model_dtype

    def added_bytes(self, sizes: ModelSizes, width: int) -> int:
        """The copy has the model's own precision."""
        return width * sizes.head_parameters
