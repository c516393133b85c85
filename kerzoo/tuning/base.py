"""The contract of a tuning mode.

With the last k layers the outputs of the layers below are the same throughout a run, so they are
computed once per example and cached (`kerzoo.frozen`).
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

from kerzoo.models.sizes import ModelSizes

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class Attached:
    """A model with what a trial trains.

    Run the model that was attached to, whole, by its `base_model` or with `generate`: it computes
    with the trainable parameters, virtual tokens included, and returns states and logits of the
    input's own tokens.

    Attributes:
        parameters: The trainable parameters by name, in a fixed order.
        model: What `save_pretrained` writes: the whole model, or its adapters alone. Not to be
            run where it is a `PeftModel` of virtual tokens, which would be there twice.
    """

    parameters: dict[str, nn.Parameter]
    model: PreTrainedModel | PeftModel


class Tuning(abc.ABC):
    """The contract: attach to a model for the length of a trial, and name what is trainable.

    Attributes:
        last_layers: k, or None for all layers.
        changes_base_model: Whether the base model's own weights move.
        can_be_merged: Whether a whole model without adapters can compute the same.
        prepended_tokens: Tokens that are computed in front of every sequence.
        is_copied_per_sequence: Whether a batch holds the parameters once for each sequence.
        can_be_stacked: Whether parts of a batch can compute with parameters of several points
            (`kerzoo.tuning.stacked`).
    """

    last_layers: int | None
    changes_base_model: bool = False
    can_be_merged: bool = True
    is_copied_per_sequence: bool = False
    can_be_stacked: bool = False

    def __post_init__(self) -> None:
        if self.last_layers is not None and self.last_layers < 1:
            raise ValueError(f"last_layers must be at least 1 or null, got {self.last_layers}")

    @abc.abstractmethod
    def attach(
        self, model: PreTrainedModel, seed: int
    ) -> contextlib.AbstractContextManager[Attached]:
        """Make the trainable parameters trainable, initialised from the seed.

        On leaving the context the model has its own structure again. Weights of the base model
        that were trained stay changed: load the model afresh, or check its fingerprint.

        Args:
            model: A freshly loaded (or verified) model; nothing in it requires a gradient.
            seed: The run's seed, for initial values of adapters.

        Returns:
            A context that gives the model and its trainable parameters.

        Raises:
            ValueError: When the mode does not fit the model, or would change the input of layers
                whose outputs are cached.
        """

    @abc.abstractmethod
    def count_parameters(self, sizes: ModelSizes) -> int:
        """Number of trainable parameters, from the model's sizes."""

    def trained_dtype(self, model_dtype: str) -> str:
        """Precision of the trainable parameters: the model's where its own weights move.

        Adapters are in single precision whatever the model's is.
        """
        return model_dtype if self.changes_base_model else "float32"

    def added_bytes(self, sizes: ModelSizes, width: int) -> int:
        """Memory of the parameters beside the model's own.

        Args:
            sizes: Of the model.
            width: Bytes of one of its weights. Adapters are in single precision whatever it is.
        """
        return 4 * self.count_parameters(sizes)

    @property
    def prepended_tokens(self) -> int:
        """None, unless a mode says otherwise."""
        return 0


def adapters_in(model: PreTrainedModel, config: Any) -> PeftModel:
    """PEFT's model around a model; PEFT's own initial values leave the global generator alone.

    Args:
        model: Is changed in place where PEFT replaces modules; `unload` puts them back.
        config: PEFT's configuration.
    """
    import peft
    import torch

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for an attribute's old name
        adapted: PeftModel = peft.get_peft_model(model, config)
    adapted.eval()
    return adapted
