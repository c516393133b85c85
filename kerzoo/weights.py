"""The trainable parameters as one flat vector: a master copy, and the working copy in the model.

The model's parameters become views of one flat working buffer in the model's own dtype. θ itself
is kept apart, in fp32. Perturbing writes working = cast(θ + a·u) and never touches θ: there is
no drift, one rounding a pass, and a forward that raises leaves θ exactly as it was. Updating
writes θ ← θ + b·u and the working copy in the same pass, so a direction costs three passes of
noise (+, −, update) and not four.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from kerzoo.noise import NoiseEngine, Perturbation


class FlatWeights:
    """Flat view of the trainable parameters, with keyed perturbations and updates.

    Args:
        parameters: The trainable parameters, in a fixed order: offsets, and with them the noise,
            follow from it. One device, one floating dtype. They become views of one buffer.
        perturbation: The law of the directions.
        num_threads: Threads for the noise (CPU only); changes no bit of the result.

    Attributes:
        master: θ. Shape: [d], fp32.
        working: What the model computes with. Shape: [d], the parameters' dtype.

    Raises:
        ValueError: Without parameters, or with several devices or dtypes.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], perturbation: Perturbation, num_threads: int = 1
    ) -> None:
        self.parameters = tuple(parameters)
        if not self.parameters:
            raise ValueError("parameters must not be empty: nothing is trainable")
        kinds = {(p.device, p.dtype) for p in self.parameters}
        if len(kinds) > 1:
            raise ValueError(
                f"parameters must share one device and dtype, got {sorted(map(str, kinds))}"
            )
        device, dtype = kinds.pop()
        if not dtype.is_floating_point:
            raise ValueError(f"parameters must be floating point, got {dtype}")
        num_elements = sum(p.numel() for p in self.parameters)
        self.working = torch.empty(num_elements, dtype=dtype, device=device)
        offset = 0
        for parameter in self.parameters:
            view = self.working[offset : offset + parameter.numel()].view(parameter.shape)
            view.copy_(parameter.data)
            parameter.data = view
            offset += parameter.numel()
        self.master = self.working.float().clone()
        self.noise = NoiseEngine(num_elements, perturbation, device, num_threads)

    def __len__(self) -> int:
        return self.master.numel()

    @contextlib.contextmanager
    def intact(self) -> Iterator[None]:
        """After the block, and after an exception in it, the model computes with θ, exactly."""
        try:
            yield
        finally:
            self.restore_()

    def perturb_(self, key: int, scale: float) -> None:
        """working ← cast(θ + scale·u(key)); θ stays."""

        def write(where: slice, noise: torch.Tensor) -> None:
            self._write(where, torch.add(self.master[where], noise, alpha=scale, out=noise))

        self.noise.for_each_chunk(key, write)

    def move_(self, key: int, scale: float) -> None:
        """θ ← θ + scale·u(key), and working ← cast(θ)."""

        def write(where: slice, noise: torch.Tensor) -> None:
            self._write(where, self.master[where].add_(noise, alpha=scale))

        self.noise.for_each_chunk(key, write)

    def restore_(self) -> None:
        """working ← cast(θ)."""
        self.working.copy_(self.master)

    def adopt_(self) -> None:
        """Take over parameters that somebody wrote to from outside: θ ← working.

        In half precision θ holds more than the working copy, which is then adopted only where it
        differs from cast(θ).
        """
        if self.working.dtype == torch.float32:
            self.master.copy_(self.working)
            return
        changed = self.working != self.master.to(self.working.dtype)
        self.master[changed] = self.working[changed].float()

    def _write(self, where: slice, values: torch.Tensor) -> None:
        self.working[where].copy_(values)
