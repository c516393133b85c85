"""Keys and values of virtual tokens in every layer."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from kerzoo.models.sizes import ModelSizes
from kerzoo.noise import derive_key
from kerzoo.tuning.base import Attached, Tuning, adapters_in

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Initialisation = Literal["activations", "random"]


@dataclasses.dataclass(frozen=True)
class PrefixTuning(Tuning):
    """Trained keys and values in front of every layer's own, without reparametrisation.

    As in MeZO the prefix starts as real activations: T tokens are drawn uniformly from the
    vocabulary, the untouched model runs on them alone, as one sequence, and every layer's prefix
    is the keys and values that it computed. A causal model's first outputs are then exactly
    those for an input with these tokens in front; in a masked one the prefix does not see the
    input. The input's positions follow the prefix's, as in PEFT; in MeZO's code they begin at 0.

    Args:
        num_tokens: T.
        initialisation: "activations"; or "random" for N(0, 1), MeZO's without activations.
        last_layers: Must be null: a prefix changes what every layer sees.

    Source: Li & Liang 2021, arXiv 2101.00190; T = 5 from activations as in MeZO.
    """

    num_tokens: int = 5
    initialisation: Initialisation = "activations"
    last_layers: int | None = None

    can_be_merged = False
    is_copied_per_sequence = True

    def __post_init__(self) -> None:
        check_virtual_tokens(self.num_tokens, self.last_layers, "prefix")
        if self.initialisation not in get_args(Initialisation):
            raise ValueError(
                f"initialisation must be one of {', '.join(get_args(Initialisation))}, "
                f"got {self.initialisation!r}"
            )

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """Let every forward of the model begin with the prefix in its cache."""
        import peft
        import torch

        from kerzoo.tuning.virtual_tokens import PrefixTokens, task_type_of

        activations = prefix_activations(model, self.num_tokens, seed)
        heads = activations.shape[3]
        values = activations.flatten(1)
        if self.initialisation == "random":
            generator = torch.Generator().manual_seed(derive_key(seed, "initialisation"))
            values = torch.randn(values.shape, generator=generator)
        adapted = adapters_in(
            model,
            peft.PrefixTuningConfig(
                task_type=task_type_of(model),
                num_virtual_tokens=self.num_tokens,
                num_layers=activations.shape[1],
                num_attention_heads=heads,
                token_dim=heads * activations.shape[4],
            ),
        )
        ((name, weight),) = [
            (n, p) for n, p in adapted.named_parameters() if n.startswith("prompt_encoder.")
        ]
        with torch.no_grad():
            weight.copy_(values)
        with PrefixTokens(model, weight, heads).in_front():
            yield Attached({name: weight}, adapted)

    def count_parameters(self, sizes: ModelSizes) -> int:
        """T · layers · 2 · the width of keys."""
        return self.num_tokens * sizes.num_layers * 2 * sizes.key_value_size


def prefix_activations(model: PreTrainedModel, count: int, seed: int) -> torch.Tensor:
    """Keys and values that the model computes for drawn tokens, run alone as one sequence.

    Args:
        model: The untouched model.
        count: T.
        seed: The run's.

    Returns:
        Shape: [T, layers, 2 (keys, values), heads, head size], fp32.

    Raises:
        ValueError: If the layers differ in their shapes, or keep no keys and values.
    """
    import torch
    from transformers import DynamicCache

    from kerzoo.tuning.virtual_tokens import draw_tokens

    cache = DynamicCache()
    tokens = draw_tokens(model, count, seed)
    with torch.no_grad():
        model.base_model(input_ids=tokens, past_key_values=cache)
    layers: list[Any] = list(cache.layers)
    pairs = [(layer.keys, layer.values) for layer in layers if hasattr(layer, "keys")]
    shapes = {tuple(tensor.shape) for pair in pairs for tensor in pair if tensor is not None}
    if len(pairs) != model.config.num_hidden_layers or len(shapes) != 1:
        raise ValueError(
            f"tuning: a prefix needs keys and values of one shape in all layers; "
            f"{type(model).__name__} has {len(pairs)} layers that keep some, of shapes "
            f"{sorted(shapes)}"
        )
    first = model.device  # layers may lie elsewhere
    stacked = torch.stack([torch.stack([keys[0], values[0]]).to(first) for keys, values in pairs])
    return stacked.permute(3, 0, 1, 2, 4).float()  # [layers, 2, heads, T, size] before


def check_virtual_tokens(num_tokens: int, last_layers: int | None, kind: str) -> None:
    """Refuse sizes that virtual tokens cannot have.

    Raises:
        ValueError: Without tokens, or with frozen layers.
    """
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be at least 1, got {num_tokens}")
    if last_layers is not None:
        raise ValueError(
            f"last_layers must be null: a {kind} changes the input of every layer, so that no "
            f"layer's outputs can be cached, got {last_layers}"
        )
