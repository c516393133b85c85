"""The model's own weights."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kerzoo.models.sizes import ModelSizes
from kerzoo.tuning.base import Attached, Tuning
from kerzoo.tuning.layers import decoder_layers, first_trainable_layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class FullTuning(Tuning):
    """All weights of the model, or all weights of its last k layers.

    Args:
        last_layers: k; null moves everything, embeddings and final norm included.
    """

    last_layers: int | None = None

    changes_base_model = True

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """Mark the base model's own parameters."""
        first = first_trainable_layer(model, self.last_layers)
        if self.last_layers is None:
            chosen = dict(model.named_parameters())
        else:
            kept = {id(p) for layer in decoder_layers(model)[first:] for p in layer.parameters()}
            chosen = {n: p for n, p in model.named_parameters() if id(p) in kept}
        yield Attached(chosen, model)

    def count_parameters(self, sizes: ModelSizes) -> int:
        """All, or those of k layers."""
        if self.last_layers is None:
            return sizes.num_parameters
        return min(self.last_layers, sizes.num_layers) * sizes.layer_parameters

    def added_bytes(self, sizes: ModelSizes, width: int) -> int:
        """None: they are the model's."""
        return 0
