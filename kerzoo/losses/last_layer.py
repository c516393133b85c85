"""The last layer, computed where its output is asked for and nowhere else.

The output of any other layer is read at all positions, by the attention above it. The last
layer's is read where tokens are scored alone, and there it needs the keys and values of all
positions but its own queries, attention output and feed-forward: of SmolLM2's last layer 94 % of
the products are left out at the positions that nobody asks for, of OPT's 83 %.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from kerzoo.frozen import model_inputs
from kerzoo.models import LoadedModel
from kerzoo.tuning import decoder_layers, forward_replaced
from kerzoo.tuning.layers import (
    ATTENTION_OUTPUT,
    FEEDFORWARD_INPUT,
    FEEDFORWARD_OUTPUT,
    QUERY,
    paths_in_layers,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Of the largest state: what the order of sums may change, and less than a wrong state does."""


class LastLayer:
    """A model's last layer, found by the names of its modules.

    Queries and the attention's output are computed for some rows and are 0 in all others. Between
    its two halves the feed-forward works on those rows alone. Modules of other names, and layers
    with several modules of a name (a mixture of experts), compute as they are.

    Args:
        model: With whatever adapters are attached.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._layer: nn.Module = decoder_layers(model)[-1]
        self._spread = self._find(model, QUERY) + self._find(model, ATTENTION_OUTPUT)
        self._into = self._find(model, FEEDFORWARD_INPUT)
        self._out = self._find(model, FEEDFORWARD_OUTPUT)
        if not (self._into and len(self._out) == 1):
            self._into, self._out = [], []

    def _find(self, model: PreTrainedModel, names: Sequence[str]) -> list[nn.Module]:
        paths = [paths_in_layers(model, name) for name in names]
        return [self._layer.get_submodule(own[0]) for own in paths if len(own) == 1]

    @contextlib.contextmanager
    def at(self, rows: torch.Tensor, num_rows: int) -> Iterator[None]:
        """Within the block the layer's output is right in some rows, and meaningless in others.

        Where gradients are asked for, or the layer is given another number of rows (virtual
        tokens among them), it is right everywhere.

        Args:
            rows: Of the batch's positions, counted through from sequence to sequence.
            num_rows: Positions of the batch, padding included.
        """
        chosen = _Rows(rows, num_rows)
        if torch.is_grad_enabled() or len(rows) >= num_rows:
            yield
            return
        with contextlib.ExitStack() as stack:
            for modules, forward in (
                (self._spread, _SpreadForward),
                (self._into, _InnerForward),
                (self._out, _OuterForward),
            ):
                for module in modules:
                    stack.enter_context(forward_replaced(module, forward(module, chosen)))
            yield


@torch.inference_mode()
def can_be_computed_at_rows(loaded: LoadedModel) -> bool:
    """Whether the last layer, at some rows alone, gives the states of the whole one; on few tokens.

    It does not in a model whose modules of known names do something else than in OPT, Llama and
    BERT, such as one that mixes the queries of neighbouring positions.
    """
    model = loaded.model
    size = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    tokens = torch.arange(2, 18).remainder(size).view(2, 8)
    inputs = model_inputs(loaded, tokens, torch.tensor([8, 6]))
    rows = torch.tensor([4, 7, 13], device=model.device)
    whole = model.base_model(**inputs).last_hidden_state.flatten(0, 1)
    try:
        with LastLayer(model).at(rows, tokens.numel()):
            found = model.base_model(**inputs).last_hidden_state.flatten(0, 1)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    rows = rows.to(whole.device)
    error = (found[rows] - whole[rows]).abs().max()
    return bool(error <= _TOLERANCE[model.dtype] * whole[rows].abs().max())


class _Rows:
    """The rows at which one forward pass computes.

    Attributes:
        inside: The first dimensions of the input of a feed-forward that is being computed.
    """

    def __init__(self, rows: torch.Tensor, num_rows: int) -> None:
        self.rows = rows
        self.num_rows = num_rows
        self.inside: torch.Size | None = None

    def are_of(self, states: torch.Tensor) -> bool:
        """Whether states have a row for each position of the batch."""
        return math.prod(states.shape[:-1]) == self.num_rows

    def of(self, states: torch.Tensor) -> torch.Tensor:
        """Shape: [P, size]."""
        return states.flatten(0, -2).index_select(0, self.rows.to(states.device))

    def spread(self, values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Values in the rows and 0 in all others. Shape: [*shape, size]."""
        every = values.new_zeros(self.num_rows, values.shape[-1])
        every.index_copy_(0, self.rows.to(values.device), values)
        return every.view(*shape, -1)


class _Forward:
    """A module's forward and the rows for which it is asked."""

    def __init__(self, module: nn.Module, rows: _Rows) -> None:
        self.own = module.forward
        self.rows = rows


class _SpreadForward(_Forward):
    """Of some rows, written among zeros."""

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        rows = self.rows
        if not rows.are_of(states):
            return self.own(states)  # type: ignore[no-any-return]
        return rows.spread(self.own(rows.of(states)), states.shape[:-1])


class _InnerForward(_Forward):
    """Of some rows, handed on as they are."""

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        rows = self.rows
        if not rows.are_of(states):
            return self.own(states)  # type: ignore[no-any-return]
        rows.inside = states.shape[:-1]
        return self.own(rows.of(states))  # type: ignore[no-any-return]


class _OuterForward(_Forward):
    """Of what was handed on, written among zeros."""

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.own(states)
        shape, self.rows.inside = self.rows.inside, None
        return found if shape is None else self.rows.spread(found, shape)
