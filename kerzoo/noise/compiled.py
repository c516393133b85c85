"""out ← source + factor·u(key) on a CPU in one pass, with noise that stays in its nearest cache.

The values are those of `kerzoo.noise.philox` to the bit, for any number of threads. Numba compiles
the kernel once for a machine, in two or three seconds, and finds it beside the code afterwards.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from kerzoo.noise.engine import COMPILED_LAWS, NoiseEngine, Stretches
from kerzoo.noise.laws import Perturbation, Rademacher
from kerzoo.noise.numba_kernels import BLOCK, add

SMALL, PIECE = 16 * BLOCK, 1024 * BLOCK
"""Elements that a thread takes at a time, at least and at most: each costs Python 0.1 ms."""
CONVERTED = 64 * BLOCK
"""Elements that are converted to another precision at a time."""

T = TypeVar("T")
U = TypeVar("U")


class CompiledNoise(NoiseEngine):
    """The contract by Numba's kernel, on several threads.

    Args:
        num_elements: Length of u.
        perturbation: The law of u.
        device: A CPU.
        num_threads: Threads that work on one direction.
        part: As for `NoiseEngine`.
    """

    def __init__(
        self,
        num_elements: int,
        perturbation: Perturbation,
        device: torch.device,
        num_threads: int = 1,
        part: slice | None = None,
    ) -> None:
        assert type(perturbation) in COMPILED_LAWS
        super().__init__(num_elements, perturbation, device, part)
        self._is_sign = isinstance(perturbation, Rademacher)
        self._piece = min(PIECE, max(SMALL, -(-self.length // num_threads)))
        parallel = num_threads > 1 and self.length > self._piece
        self._pool = ThreadPoolExecutor(num_threads, "noise") if parallel else None
        with contextlib.suppress(OSError):  # a disk with no room for what was compiled
            nothing = torch.empty(0, dtype=torch.float32, device=device)
            self._add(0, nothing, nothing, 0, 1.0)

    def add(self, key: int, stretches: Stretches, source: torch.Tensor, out: torch.Tensor) -> None:
        """In pieces, at the same time on several threads."""
        scale = self.scale_of(key)
        computed = torch.promote_types(source.dtype, torch.float32)
        is_inference = source.is_inference() or out.is_inference()

        def work(piece: tuple[slice, float]) -> None:
            where, factor = piece
            if source.dtype == out.dtype == computed:
                self._add(key, source[where], out[where], where.start, factor * scale)
                return
            with torch.inference_mode(is_inference):  # each thread has a mode of its own
                for part, _ in _cut([piece], CONVERTED):
                    values = source[part].to(computed, copy=True)
                    self._add(key, values, values, part.start, factor * scale)
                    out[part].copy_(values)

        self._map(work, _cut(stretches(slice(0, self.length)), self._piece))

    def length_of(self, key: int) -> float:
        """A chunk at a time, as torch alone would measure it."""

        def sum_of_squares(offsets: slice) -> float:
            length = offsets.stop - offsets.start
            values = torch.zeros(length, dtype=torch.float32, device=self.device)
            self._add(key, values, values, offsets.start - self.part.start, 1.0)
            return self.sum_of_squares(values)

        chunks = self._chunks_of(slice(0, self.num_elements))
        return math.sqrt(math.fsum(self._map(sum_of_squares, chunks)))

    def _add(
        self, key: int, source: torch.Tensor, out: torch.Tensor, start: int, factor: float
    ) -> None:
        """out ← source + factor·z(key) on a stretch that starts at a place in this part."""
        start += self.part.start
        begin, result = source.detach().numpy(), out.detach().numpy()
        with np.errstate(over="ignore"):
            number = begin.dtype.type(factor)
        add(begin, result, start, start + len(result), number, np.uint64(key), self._is_sign)

    def _map(self, work: Callable[[U], T], pieces: Iterable[U]) -> list[T]:
        """The results of a function of each piece, in order. When it raises, all have ended."""
        if self._pool is None:
            return [work(piece) for piece in pieces]
        tasks = [self._pool.submit(work, piece) for piece in list(pieces)]
        try:
            return [task.result() for task in tasks]
        finally:
            futures.wait(tasks)


def _cut(stretches: Iterable[tuple[slice, float]], size: int) -> Iterator[tuple[slice, float]]:
    """The same in stretches of at most that size."""
    for where, factor in stretches:
        for start in range(where.start, where.stop, size):
            yield slice(start, min(start + size, where.stop)), factor
