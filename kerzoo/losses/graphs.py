"""Forward passes as CUDA graphs: one launch for the thousand small kernels of a model.

A small model's forward pass takes as long as it takes Python to launch it. On an H200 that is
31 ms for SmolLM2-135M at 16 sequences of 64 tokens, of which the GPU works 4.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

MAX_GRAPHS = 64
"""Shapes of a batch that are remembered; the one that was used longest ago makes room."""

Forward = Callable[[dict[str, Any]], torch.Tensor]


class Graph(NamedTuple):
    """A recorded forward pass.

    Attributes:
        recording: Reads `inputs` and writes `states`.
        inputs: The tensors among the inputs.
        states: What it computed last.
    """

    recording: torch.cuda.CUDAGraph
    inputs: dict[str, torch.Tensor]
    states: torch.Tensor


class ForwardGraphs:
    """Repeats the forward passes of one model: a graph for each shape of the inputs.

    A shape is recorded when it is seen for the second time. A graph reads the parameters where
    they were when it was recorded; when they have moved, all are recorded again. Outside inference
    mode, where gradients may be wanted, and after a recording that failed, passes run operation by
    operation.

    Args:
        parameters: All that may move while the model is in use: the trainable parameters.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self.parameters = tuple(parameters)
        self._places: list[int] = []
        self._graphs: dict[tuple[Any, ...], Graph | None] = {}
        self._pool: Any = None
        self._is_able = True

    def __call__(self, forward: Forward, inputs: dict[str, Any]) -> torch.Tensor:
        """The forward pass of some inputs.

        Args:
            forward: The same function of the inputs at every call.
            inputs: Tensors on the GPU, and constants.

        Returns:
            Overwritten by the next call.
        """
        if not (self._is_able and torch.is_inference_mode_enabled()):
            return forward(inputs)
        places = [parameter.data_ptr() for parameter in self.parameters]
        if places != self._places:
            self._places = places
            self._graphs.clear()
            self._pool = None  # dies with its graphs
        shape = tuple((k, v.shape if _is_tensor(v) else v) for k, v in inputs.items())
        if shape not in self._graphs:
            self._graphs[shape] = None
            return forward(inputs)
        graph = self._graphs.pop(shape) or self._record(forward, inputs)
        if graph is None:
            return forward(inputs)
        self._graphs[shape] = graph  # the newest
        while len(self._graphs) > MAX_GRAPHS:
            self._graphs.pop(next(iter(self._graphs)))
        for name, tensor in graph.inputs.items():
            tensor.copy_(inputs[name])
        graph.recording.replay()
        return graph.states

    def _record(self, forward: Forward, inputs: dict[str, Any]) -> Graph | None:
        """A recording for inputs of this shape; None where the model cannot be recorded."""
        own = {name: value.clone() for name, value in inputs.items() if _is_tensor(value)}
        recording = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            torch.cuda.synchronize()
            stream = torch.cuda.current_stream()
            with (
                torch.cuda.stream(stream),
                torch.cuda.graph(recording, self._pool, capture_error_mode="thread_local"),
            ):
                states = forward({**inputs, **own})
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._is_able = False
            warnings.warn(f"forward passes run without CUDA graphs: {error}", stacklevel=2)
            return None
        return Graph(recording, own, states)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
