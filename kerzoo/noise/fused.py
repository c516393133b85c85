"""out ← source + factor·u(key) in one GPU kernel: the noise never leaves the registers.

The values are those of `kerzoo.noise.philox`, up to the last bits of the hardware's log, cos and
sin (3·10⁻⁶ of the unit standard deviation). A pass reads the source and writes the result, and
nothing else. Needs Triton; its interpreter (TRITON_INTERPRET=1) runs the same kernels on a CPU.
"""

from __future__ import annotations

import contextlib
import math
import os

import torch

from kerzoo.noise.engine import COMPILED_LAWS, NoiseEngine, PlainNoise, Stretches
from kerzoo.noise.keys import MASK32
from kerzoo.noise.laws import Perturbation, Rademacher
from kerzoo.noise.triton_kernels import BLOCK, add, sum_squares

NUM_WARPS = 4
"""With 4096 elements a block the fastest of 1024 to 4096 and 4 or 8 on an H200."""

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class FusedNoise(NoiseEngine):
    """The contract by Triton kernels; their values depend on (key, offset) alone."""

    def __init__(
        self,
        num_elements: int,
        perturbation: Perturbation,
        device: torch.device,
        part: slice | None = None,
    ) -> None:
        assert type(perturbation) in COMPILED_LAWS
        super().__init__(num_elements, perturbation, device, part)
        self._is_sign = isinstance(perturbation, Rademacher)
        self._is_exact = _INTERPRETED or torch.version.hip is not None
        self._plain = PlainNoise(num_elements, perturbation, device, part)
        nothing = torch.zeros(1, device=device)
        self._add(nothing, nothing, 0, slice(0, 1), 0.0, 0)  # raises where nothing can be compiled

    def add(self, key: int, stretches: Stretches, source: torch.Tensor, out: torch.Tensor) -> None:
        """One launch for each stretch; θ in double precision, which has no kernel, by torch."""
        if source.dtype == torch.float64:
            self._plain.add(key, stretches, source, out)
            return
        scale, base = self.scale_of(key), self.part.start
        for where, factor in stretches(slice(0, self.length)):
            offsets = slice(base + where.start, base + where.stop)
            self._add(source, out, base, offsets, factor * scale, key)

    def _add(
        self,
        source: torch.Tensor,
        out: torch.Tensor,
        base: int,
        offsets: slice,
        factor: float,
        key: int,
    ) -> None:
        blocks = -(-offsets.stop // BLOCK.value) - offsets.start // BLOCK.value
        with self._on_device():
            add[(blocks,)](
                source,
                out,
                base,
                offsets.start,
                offsets.stop,
                factor,
                *_halves(key),
                IS_SIGN=self._is_sign,
                IS_EXACT=self._is_exact,
                num_warps=NUM_WARPS,
            )

    def length_of(self, key: int) -> float:
        """|z| of the drawn values."""
        blocks = -(-self.num_elements // BLOCK.value)
        sums = torch.empty(blocks, device=self.device)
        with self._on_device():
            sum_squares[(blocks,)](
                sums,
                self.num_elements,
                *_halves(key),
                IS_EXACT=self._is_exact,
                num_warps=NUM_WARPS,
            )
        return math.sqrt(float(sums.double().sum()))

    def _on_device(self) -> contextlib.AbstractContextManager[None]:
        if self.device.type == "cuda":
            return torch.cuda.device(self.device)
        return contextlib.nullcontext()


def _halves(key: int) -> tuple[int, int]:
    """The two 32-bit words of a key as signed numbers, so that all keys have one type."""
    return _signed(key & MASK32), _signed(key >> 32)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
