"""Adapters of several points in one batch.

The batch is P equal parts, one after another, and part p computes with the adapters of point p,

    y_p = W·x_p + s·B_p·A_p·x_p,

so that everything but A and B is one operation on all rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from kerzoo.tuning.base import Attached


class StackedAdapters:
    """Takes the place of the linear modules of adapters; outside `at` they compute as before.

    Args:
        attached: A model whose trainable parameters are the weights of linear modules without
            bias. They stay its parameters, under the same names.

    Raises:
        ValueError: If one of them is of another kind.
    """

    def __init__(self, attached: Attached) -> None:
        self.points: Sequence[torch.Tensor] | None = None
        for index, name in enumerate(attached.parameters):
            path = name.removesuffix(".weight")
            parent, _, child = path.rpartition(".")
            linear = attached.model.get_submodule(path) if path != name else None
            if not isinstance(linear, nn.Linear) or "bias" in dict(linear.named_parameters()):
                raise ValueError(
                    f"training.points_per_forward must be 1: {name} is not the weight of a linear "
                    "module, of which alone a batch can hold several"
                )
            setattr(
                attached.model.get_submodule(parent), child, _StackedLinear(linear, self, index)
            )

    @contextlib.contextmanager
    def at(self, points: Sequence[torch.Tensor]) -> Iterator[None]:
        """Within the block the parts of a batch compute with points.

        Args:
            points: For each parameter its values. Shape of each: [P, *shape of the parameter].
        """
        self.points = points
        try:
            yield
        finally:
            self.points = None

    @property
    def place(self) -> tuple[int, int] | None:
        """Within `at`, the number of points and where they lie; a recorded pass depends on both."""
        return None if self.points is None else (len(self.points[0]), self.points[0].data_ptr())


class _StackedLinear(nn.Linear):
    """A linear module without bias, and with a weight of its own for each part of a batch.

    Args:
        linear: Whose weight it has.
        adapters: Where the points are.
        index: Of the weight among the parameters.
    """

    def __init__(self, linear: nn.Linear, adapters: StackedAdapters, index: int) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight
        self.train(linear.training)
        self._adapters = adapters
        self._index = index

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """W·x, or W_p·x for the rows of part p. Rows are those of the first dimensions."""
        points = self._adapters.points
        if points is None:
            return super().forward(inputs)
        weights = points[self._index]  # [P, outputs, inputs]
        parts = inputs.reshape(len(weights), -1, self.in_features)
        return torch.bmm(parts, weights.mT).view(*inputs.shape[:-1], self.out_features)
