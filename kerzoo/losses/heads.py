"""From token ids to scores: hidden states where they are needed, and the output layer on them.

The output layer is most of a small model's weights. It is applied at the positions that are
asked for and, where label words are compared, to their rows alone; in fp32, because a loss that
was rounded to half precision has a resolution of .24 in its slope at ε = 1e-3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from kerzoo.frozen import CachedEntry, FrozenOutputs, model_inputs
from kerzoo.losses.graphs import ForwardGraphs
from kerzoo.losses.last_layer import LastLayer
from kerzoo.models import LoadedModel
from kerzoo.tasks import Sequences
from kerzoo.tuning import StackedAdapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MICRO_BATCH_SEQUENCES = {"cpu": 8}
"""Sequences run together, by device type; all of a batch where none is named."""

_BATCHES_REMEMBERED = 8

_ROWS_CHECKED = 256


class SequenceRunner:
    """Runs sequences through the model and returns its states in front of the output layer.

    Args:
        loaded: The model, with whatever adapters are attached.
        sequences: The sequences of a split.
        frozen: The frozen layers' outputs for them, where the layers are replaced.
        entry: The module that hands those outputs to the model.
        micro_batch: Sequences run together, each once for every point; 0 for
            `MICRO_BATCH_SEQUENCES`.
        graphs: Repeats forward passes as CUDA graphs; None runs them operation by operation.
        adapters: Of several points, for `at`.
        last_layer: Computes where states are asked for; None has it computed at all positions.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sequences: Sequences,
        frozen: FrozenOutputs | None = None,
        entry: CachedEntry | None = None,
        micro_batch: int = 0,
        graphs: ForwardGraphs | None = None,
        adapters: StackedAdapters | None = None,
        last_layer: LastLayer | None = None,
    ) -> None:
        assert (frozen is None) == (entry is None)
        self.loaded = loaded
        self.sequences = sequences
        self.frozen = frozen
        self.entry = entry
        self.micro_batch = micro_batch
        self.graphs = graphs
        self.adapters = adapters
        self.last_layer = last_layer
        self._inputs: dict[tuple[Any, ...], tuple[dict[str, Any], torch.Tensor]] = {}
        self._turn: int | None = None
        self._computed: dict[tuple[Any, ...], tuple[torch.Tensor, ...]] = {}

    @contextlib.contextmanager
    def at(self, points: Sequence[torch.Tensor]) -> Iterator[Iterator[int]]:
        """Within the block the states are those of one point after another.

        They are computed at all points together when they are asked for at the first.

        Args:
            points: As for `StackedAdapters.at`.

        Returns:
            The points' numbers; taking the next one goes to that point.
        """
        assert self.adapters is not None
        with self.adapters.at(points):
            try:
                yield self._take_turns(len(points[0]))
            finally:
                self._turn = None
                self._computed.clear()

    def _take_turns(self, num_points: int) -> Iterator[int]:
        for self._turn in range(num_points):
            yield self._turn

    @property
    def _place(self) -> tuple[int, int] | None:
        return None if self.adapters is None else self.adapters.place

    @property
    def _num_points(self) -> int:
        return 1 if self._place is None else self._place[0]

    def micro_batches(self, indices: Sequence[int]) -> list[list[int]]:
        """The sequences in groups of similar length; depends on indices and number of points."""
        ordered = self.sequences.order_by_length(indices)
        device = self.loaded.model.device.type
        rows = self.micro_batch or MICRO_BATCH_SEQUENCES.get(device)
        size = len(ordered) if rows is None else max(1, rows // self._num_points)
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def states(self, indices: Sequence[int], positions: Sequence[Sequence[int]]) -> torch.Tensor:
        """What the output layer is given at some positions.

        Args:
            indices: The sequences of one micro-batch. Length: B.
            positions: Of each sequence.

        Returns:
            States of all positions in turn. Shape: [total positions, hidden].
        """
        if self._turn is None:
            return self._compute(indices, positions)
        key = (tuple(indices), tuple(map(tuple, positions)))
        if key not in self._computed:
            states = self._compute(indices, positions)
            self._computed[key] = states.chunk(self._num_points)
        return self._computed[key][self._turn]

    def _compute(self, indices: Sequence[int], positions: Sequence[Sequence[int]]) -> torch.Tensor:
        """`states` of all points in turn. Shape: [points · total positions, hidden]."""
        inputs, rows = self._inputs_of(tuple(indices), tuple(map(tuple, positions)))
        hidden = self._run(inputs) if self.graphs is None else self.graphs(self._run, inputs)
        asked = hidden.flatten(0, 1).index_select(0, rows.to(hidden.device))
        return before_output_layer(self.loaded.model, asked)

    def _run(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The model's last hidden states; with "rows", right in those. Shape: [B, T, hidden]."""
        inputs = dict(inputs)
        inputs.pop("place", None)
        frozen, rows = inputs.pop("frozen", None), inputs.pop("rows", None)
        if self.entry is not None:
            self.entry.outputs = frozen
        computed: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if rows is not None and self.last_layer is not None:
            computed = self.last_layer.at(rows, inputs["input_ids"].numel())
        try:
            with computed:
                states: torch.Tensor = self.loaded.model.base_model(**inputs).last_hidden_state
        finally:
            if self.entry is not None:
                self.entry.outputs = None
        return states

    def _inputs_of(
        self, indices: tuple[int, ...], positions: tuple[tuple[int, ...], ...]
    ) -> tuple[dict[str, Any], torch.Tensor]:
        """What the model is given for some sequences, on its device; the newest are remembered.

        A step runs each of its micro-batches at every point. Where points share a forward pass,
        the sequences follow one another once for each, and "place" tells one such pass from others.

        Returns:
            The inputs, and the rows of the states that are asked for, counted through from sequence
            to sequence. They are "rows" of the inputs too, but where graphs would be needed for any
            number of them.
        """
        # What is made in inference mode has no gradient.
        key = (torch.is_inference_mode_enabled(), self._place, indices, positions)
        if key not in self._inputs:
            while len(self._inputs) >= _BATCHES_REMEMBERED:
                self._inputs.pop(next(iter(self._inputs)))
            device = self.loaded.model.device
            tokens, lengths = self.sequences.batch(indices, self.loaded.pad_token_id)
            inputs = model_inputs(self.loaded, tokens, lengths)
            if self.frozen is not None:
                inputs["frozen"] = self.frozen.batch(list(indices), tokens.shape[1]).to(device)
            if self._place is not None:
                inputs = {k: _repeat(v, self._num_points) for k, v in inputs.items()}
                inputs["place"] = self._place
            of_each, width = positions * self._num_points, tokens.shape[1]
            places = [row * width + place for row, own in enumerate(of_each) for place in own]
            rows = torch.tensor(places, device=device)
            if self.graphs is None or len(rows) == len(of_each):
                inputs["rows"] = rows
            self._inputs[key] = inputs, rows
        return self._inputs[key]


def _repeat(value: Any, times: int) -> Any:
    """A batch so many times along its first dimension; constants as they are."""
    return torch.cat([value] * times) if isinstance(value, torch.Tensor) else value


def before_output_layer(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """What the model's head makes of its last states before the output layer.

    A causal model's head is the output layer itself; a masked one's has a layer in front of it.

    Args:
        model: With a linear output layer.
        states: Shape: [P, hidden].

    Returns:
        Shape: [P, hidden].
    """
    output = output_layer(model)
    head = next(child for child in model.children() if any(m is output for m in child.modules()))
    if head is output:
        return states
    given: list[torch.Tensor] = []

    def catch(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        given.append(arguments[0])
        raise _OutputLayerReachedError

    handle = output.register_forward_pre_hook(catch)
    try:
        head(states)
    except _OutputLayerReachedError:
        pass
    finally:
        handle.remove()
    return given[0]


class _OutputLayerReachedError(Exception):
    """Ends a head in front of the output layer, which is not applied to the whole vocabulary."""


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The model's output layer.

    Raises:
        ValueError: If it is not linear.
    """
    layer: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"model: {type(model).__name__} must have a linear output layer, got {layer!r}"
        )
    return layer


def scores_of_tokens(
    layer: nn.Linear, states: torch.Tensor, token_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Rows of the output layer, applied in fp32.

    Args:
        layer: The model's output layer.
        states: Shape: [P, hidden].
        token_ids: The rows, C of them; None for all.

    Returns:
        Shape: [P, C], fp32, on the output layer's device.
    """
    device = layer.weight.device
    rows = slice(None) if token_ids is None else token_ids.to(device)
    bias: torch.Tensor | None = layer.bias
    return F.linear(
        states.to(device).float(),
        layer.weight[rows].float(),
        None if bias is None else bias[rows].float(),
    )


@torch.inference_mode()
def check_output_layer(model: PreTrainedModel) -> None:
    """See, on a few tokens, that the model's logits are what its output layer makes of the states.

    Raises:
        ValueError: If it scales or caps its logits, or has no linear output layer.
    """
    layer = output_layer(model)
    rows = len(layer.weight)
    tokens = torch.arange(8, device=model.device).remainder(rows)[None]
    some = torch.arange(0, rows, -(-rows // _ROWS_CHECKED))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    states = before_output_layer(model, model.base_model(**inputs).last_hidden_state[:, -1])
    logits = model(**inputs).logits[:, -1, some].float()
    # Half precision rounds the full logits; in single precision only the order of sums differs.
    tolerance = max(4 * torch.finfo(model.dtype).eps, 1e-4) * float(logits.abs().max())
    scores = scores_of_tokens(layer, states, some).to(logits.device)
    error = float((scores - logits).abs().max())
    if getattr(model.config, "final_logit_softcapping", None) or not error <= tolerance:
        raise ValueError(
            f"model: {type(model).__name__} scales or caps its logits, which the losses here leave "
            f"out (on a few tokens they differ by {error:.2g}); choose a model whose logits are "
            "those of its output layer, such as OPT, Llama, Mistral, Qwen2 or RoBERTa"
        )
