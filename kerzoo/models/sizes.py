"""The sizes of a model that say how many parameters a tuning mode has."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelSizes:
    """Sizes of a model.

    Attributes:
        num_parameters: Of the whole model, tied ones once.
        num_layers: Layers.
        hidden_size: Width of the states between layers; also that of the queries.
        layer_parameters: Of one layer.
        head_parameters: Of the output layer, tied to the embeddings or not.
        embedding_size: Width of the token embeddings.
        key_value_size: Width of the keys, and of the values: heads that have them · head size.
        feedforward_size: Width between the two feed-forward matrices.
    """

    num_parameters: int
    num_layers: int
    hidden_size: int
    layer_parameters: int
    head_parameters: int
    embedding_size: int
    key_value_size: int
    feedforward_size: int
