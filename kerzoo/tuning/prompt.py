"""Embeddings of virtual tokens in front of the input."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kerzoo.models.sizes import ModelSizes
from kerzoo.tuning.base import Attached, Tuning, adapters_in
from kerzoo.tuning.prefix import check_virtual_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class PromptTuning(Tuning):
    """Trained embeddings in front of the input's, through PEFT.

    They start as the embeddings of T tokens drawn uniformly from the vocabulary: the first
    outputs are those for an input with these tokens in front.

    Args:
        num_tokens: T.
        last_layers: Must be null: a prompt changes what every layer sees.

    Source: Lester et al. 2021, arXiv 2104.08691.
    """

    num_tokens: int = 5
    last_layers: int | None = None

    can_be_merged = False

    def __post_init__(self) -> None:
        check_virtual_tokens(self.num_tokens, self.last_layers, "prompt")

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """Let every forward of the model begin with the prompt."""
        import peft
        import torch

        from kerzoo.tuning.virtual_tokens import PromptTokens, draw_tokens, task_type_of

        embed: Any = model.get_input_embeddings()
        with torch.no_grad():
            values = embed(draw_tokens(model, self.num_tokens, seed))[0]
        adapted = adapters_in(
            model,
            peft.PromptTuningConfig(
                task_type=task_type_of(model),
                num_virtual_tokens=self.num_tokens,
                token_dim=values.shape[1],  # PEFT would take hidden_size, which OPT-350m's is not
            ),
        )
        ((name, weight),) = [
            (n, p) for n, p in adapted.named_parameters() if n.startswith("prompt_encoder.")
        ]
        with torch.no_grad():
            weight.copy_(values)
        with PromptTokens(model, weight).in_front():
            yield Attached({name: weight}, adapted)

    def count_parameters(self, sizes: ModelSizes) -> int:
        """T · the width of the embeddings."""
        return self.num_tokens * sizes.embedding_size

    @property
    def prepended_tokens(self) -> int:
        """T."""
        return self.num_tokens
