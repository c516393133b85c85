"""Linear layers of a model on a CPU, computed by oneDNN with the bias added on the way.

torch itself hands single precision to the BLAS it was built with, which on many processors is
slower than oneDNN's kernels, and writes the bias into the result beforehand, in a pass of its own.
"""

from __future__ import annotations

import torch
from torch import nn


def compute_by_onednn(model: nn.Module) -> None:
    """Have the linear layers of a model on a CPU compute by oneDNN wherever no gradient is asked.

    They stay `nn.Linear` to everybody else. Does nothing where torch was built without oneDNN.

    Args:
        model: In single precision, or nothing changes.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear


class OneDnnLinear(nn.Linear):
    """x·Wᵀ + b, where no gradient is asked by the operator that torch's own compiler uses."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The result differs from `nn.Linear`'s by rounding."""
        is_single = input.dtype == self.weight.dtype == torch.float32
        if torch.is_grad_enabled() or not is_single or input.device.type != "cpu":
            return super().forward(input)
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self.weight, self.bias, "none", [], ""
        )
        return result
