"""Outputs of the frozen layers: computed once per example, kept on disk, shared by all workers.

When only the last k layers move, the layers below give the same output for an example at every
step of every trial. They are run once over a split's sequences, in a fixed order with fixed
padding and one thread a batch, so that the content depends neither on which trial asked first nor
on the number of threads; the file is then memory-mapped by everybody. The model runs with the
frozen layers replaced by the stored outputs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import nn

from kerzoo import METHOD_VERSION
from kerzoo.assets import cache_folder
from kerzoo.models import LoadedModel
from kerzoo.progress import Progress, no_progress
from kerzoo.tasks.encoding import Sequences
from kerzoo.tuning import decoder_layers

BATCH_EXAMPLES = 8
"""Examples of a batch when the cache is filled; part of its identity."""

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class FrozenOutputs:
    """The frozen layers' outputs for one split, memory-mapped.

    Attributes:
        values: One row per token. Shape: [tokens, hidden].
        sequences: Their offsets say which rows belong to which sequence.
    """

    values: torch.Tensor
    sequences: Sequences

    def batch(self, indices: list[int], length: int) -> torch.Tensor:
        """Outputs of some sequences, padded on the right with zeros.

        Shape: [len(indices), length, hidden].
        """
        batch = self.values.new_zeros(len(indices), length, self.values.shape[1])
        for row, index in enumerate(indices):
            start, stop = int(self.sequences.offsets[index]), int(self.sequences.offsets[index + 1])
            batch[row, : stop - start] = self.values[start:stop]
        return batch


class CachedEntry(nn.Module):
    """Stands where the last frozen layer stood and returns what it is given in advance."""

    outputs: torch.Tensor | None = None

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """The outputs set for the batch at hand."""
        assert self.outputs is not None
        return self.outputs


class SkippedLayer(nn.Module):
    """Stands where a frozen layer stood whose output nobody needs."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Its input."""
        return hidden_states


@contextlib.contextmanager
def frozen_layers_replaced(model: nn.Module, first: int) -> Iterator[CachedEntry]:
    """Within the block, layers 0 … first − 1 are replaced by one entry that returns cached outputs.

    The number and the indices of the layers stay as they are.
    """
    layers = decoder_layers(model)  # type: ignore[arg-type]
    originals = list(layers[:first])
    entry = CachedEntry()
    try:
        for index in range(first - 1):
            layers[index] = SkippedLayer()
        layers[first - 1] = entry
        yield entry
    finally:
        for index, layer in enumerate(originals):
            layers[index] = layer


def frozen_outputs(
    loaded: LoadedModel,
    sequences: Sequences,
    first: int,
    num_threads: int = 1,
    progress: Progress = no_progress,
) -> FrozenOutputs:
    """The outputs of layer first − 1 for sequences: from the cache, or computed into it.

    Args:
        loaded: The untouched model.
        sequences: Of the examples.
        first: Index of the first layer that moves; ≥ 1.
        num_threads: Batches computed at the same time, each by one thread; changes no bit.
        progress: Told about batches done.
    """
    model = loaded.model
    hidden = int(model.config.hidden_size)
    identity = {
        "format": _FORMAT,
        "method_version": METHOD_VERSION,
        "model": loaded.revision,
        "dtype": str(model.dtype),
        "device": model.device.type,
        "first_trainable_layer": first,
        "sequences": sequences.fingerprint,
        "batch_examples": BATCH_EXAMPLES,
        "torch": torch.__version__,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / "frozen"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.bin"
    if not path.exists():
        with filelock.FileLock(folder / f"{key}.lock"):
            if not path.exists():
                _fill(path, loaded, sequences, first, num_threads, progress)
                (folder / f"{key}.json").write_text(json.dumps(identity, indent=1))
    shape = (len(sequences.tokens), hidden)
    values = torch.from_file(str(path), shared=False, size=shape[0] * shape[1], dtype=model.dtype)
    return FrozenOutputs(values.view(shape), sequences)


def _fill(
    path: Path,
    loaded: LoadedModel,
    sequences: Sequences,
    first: int,
    num_threads: int,
    progress: Progress,
) -> None:
    model = loaded.model
    temporary = path.with_suffix(f".{os.getpid()}")
    shape = (len(sequences.tokens), int(model.config.hidden_size))
    values = torch.from_file(
        str(temporary), shared=True, size=shape[0] * shape[1], dtype=model.dtype
    ).view(shape)
    order = sequences.order_by_length()
    batches = [order[i : i + BATCH_EXAMPLES] for i in range(0, len(order), BATCH_EXAMPLES)]

    def compute(indices: list[int]) -> None:
        tokens, lengths = sequences.batch(indices, loaded.pad_token_id)
        try:
            with torch.inference_mode():
                model.base_model(**model_inputs(loaded, tokens, lengths))
        except _LayerReachedError as reached:
            outputs = reached.outputs
        for row, (index, length) in enumerate(zip(indices, lengths.tolist(), strict=True)):
            start = int(sequences.offsets[index])
            values[start : start + length] = outputs[row, :length].to(values.device)

    handle = decoder_layers(model)[first - 1].register_forward_hook(_stop_forward)
    try:
        with one_torch_thread(), ThreadPoolExecutor(num_threads, "frozen") as pool:
            for done, _ in enumerate(pool.map(compute, batches), start=1):
                progress("computing the frozen layers' outputs", done, len(batches))
        temporary.chmod(0o644)  # torch made it readable for its owner alone
        os.replace(temporary, path)
    finally:
        handle.remove()
        temporary.unlink(missing_ok=True)


def model_inputs(
    loaded: LoadedModel, tokens: torch.Tensor, lengths: torch.Tensor
) -> dict[str, Any]:
    """What a model is called with for a batch that is padded on the right.

    A causal model needs no mask: padding comes after all positions that anybody asks for.

    Args:
        loaded: The model.
        tokens: Shape: [B, T].
        lengths: Shape: [B].
    """
    device = loaded.model.device
    if loaded.is_causal:
        return {"input_ids": tokens.to(device), "use_cache": False}
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    return {"input_ids": tokens.to(device), "attention_mask": mask.long().to(device)}


class _LayerReachedError(Exception):
    """Ends a forward pass at the layer whose output is wanted: the layers above are not needed."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = outputs


def _stop_forward(layer: nn.Module, arguments: Any, outputs: torch.Tensor) -> None:
    raise _LayerReachedError(outputs)


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Within the block, each torch operation runs on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
