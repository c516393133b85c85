"""Adding multiples of keyed directions to flat vectors: the inner loop of a step.

On the CPU a direction is cut into chunks of consecutive offsets, each with a generator of its own,
so that the values depend neither on the number of threads nor on the order of the chunks. On a GPU
they are a function of (key, offset) by `kerzoo.noise.philox`. A CPU and a GPU make different
values from the same key.
"""

from __future__ import annotations

import abc
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from kerzoo.noise.keys import chunk_seed
from kerzoo.noise.laws import Perturbation
from kerzoo.noise.philox import counter_noise

CHUNK_ELEMENTS = {"cpu": 1 << 15, "cuda": 1 << 22}
"""Elements of a chunk by device type: cache-sized on the CPU, launch-sized on a GPU."""

STORED_ELEMENTS = 1 << 20
"""Elements of a stored direction that are added at a time, by torch's own threads."""

SCALES_REMEMBERED = 64

Stretches = Callable[[slice], Iterable[tuple[slice, float]]]
"""The parts of a range that have one factor each, in order."""

T = TypeVar("T")


def noise_engine(
    num_elements: int,
    perturbation: Perturbation,
    device: torch.device,
    num_threads: int = 1,
    num_stored: int = 0,
    part: slice | None = None,
) -> NoiseEngine:
    """The fastest engine for a device: on a GPU Triton's, or torch's where Triton is missing.

    Args:
        num_elements: Length of u.
        perturbation: The law of u.
        device: Where u is made.
        num_threads: CPU only.
        num_stored: Directions kept in memory, CPU only: a GPU makes them faster than it reads.
        part: As for `NoiseEngine`.
    """
    if device.type == "cpu":
        return ChunkedNoise(num_elements, perturbation, device, num_threads, num_stored, part)
    try:
        from kerzoo.noise.fused import SUPPORTED, FusedNoise
    except ImportError as error:
        warnings.warn(
            f"{error}: noise is made by torch, which slows full tuning on a GPU down by a factor "
            "of up to 70; install triton",
            stacklevel=2,
        )
        return ChunkedNoise(num_elements, perturbation, device, part=part)
    if type(perturbation) in SUPPORTED:
        return FusedNoise(num_elements, perturbation, device, part)
    return ChunkedNoise(num_elements, perturbation, device, part=part)


def num_stored_directions(memory_gib: float, num_elements: int, num_directions: int) -> int:
    """How many of a step's directions fit a memory budget in fp32.

    >>> num_stored_directions(2.0, 125_000_000, 3)
    3
    >>> num_stored_directions(2.0, 400_000_000, 3)
    1
    """
    return min(num_directions, int(memory_gib * (1 << 30) / (4 * num_elements)))


class NoiseEngine(abc.ABC):
    """The contract.

    The values of u are a function of the offset in the whole of it, so that engines for parts of u
    make together what one for all of it makes. The ranges that an engine is given, and gives, are
    counted from the start of its part.

    Args:
        num_elements: Length of u.
        perturbation: The law of u.
        device: Where u is made.
        part: The offsets that this engine has to do with; None for all.

    Attributes:
        length: Of the part.
    """

    def __init__(
        self,
        num_elements: int,
        perturbation: Perturbation,
        device: torch.device,
        part: slice | None = None,
    ) -> None:
        self.num_elements = num_elements
        self.perturbation = perturbation
        self.device = device
        self.part = slice(0, num_elements) if part is None else part
        self.length = self.part.stop - self.part.start
        self.chunk_elements = CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cuda"])
        self._scales: dict[int, float] = {}

    @abc.abstractmethod
    def add(self, key: int, stretches: Stretches, source: torch.Tensor, out: torch.Tensor) -> None:
        """out ← source + factor·u(key), stretch by stretch; nothing else is written.

        Args:
            key: Of the direction.
            stretches: Where it is added, and with which factors.
            source: Shape: [length].
            out: May be the source. Shape: [length], any floating dtype.
        """

    @abc.abstractmethod
    def length_of(self, key: int) -> float:
        """|z| of the values z that are drawn for a whole direction, before any scaling."""

    @property
    def chunks(self) -> Iterator[slice]:
        """The ranges of the chunks, in order."""
        return map(self._from_start, self._chunks_of(self.part))

    def _chunks_of(self, part: slice) -> Iterator[slice]:
        """Offsets of the chunks, or of what a part of u has of them."""
        size = self.chunk_elements
        for start in range(part.start // size * size, part.stop, size):
            yield slice(max(start, part.start), min(start + size, part.stop))

    def _from_start(self, where: slice) -> slice:
        """Offsets counted from the start of the part."""
        return slice(where.start - self.part.start, where.stop - self.part.start)

    def materialise(self, key: int) -> torch.Tensor:
        """The direction u, or the part of it. Shape: [length], fp32."""
        direction = torch.zeros(self.length, device=self.device)
        self.add(key, lambda where: [(where, 1.0)], direction, direction)
        return direction

    def sum_of_squares(self, values: torch.Tensor) -> float:
        """Σ v² in float64, summed chunk by chunk: the same bits for any number of threads."""
        chunks = torch.split(values, self.chunk_elements)
        return math.fsum(torch.stack([c.double().square_().sum() for c in chunks]).tolist())

    def scale_of(self, key: int) -> float:
        """What drawn values are multiplied by: √d / |z| on a sphere (the newest are remembered)."""
        if not self.perturbation.on_sphere:
            return 1.0
        if key not in self._scales:
            while len(self._scales) >= SCALES_REMEMBERED:
                self._scales.pop(next(iter(self._scales)))
            self._scales[key] = math.sqrt(self.num_elements) / self.length_of(key)
        return self._scales[key]

    def share_scales(self, other: NoiseEngine) -> None:
        """Have each direction measured once for two engines of the same u."""
        self._scales = other._scales


class ChunkedNoise(NoiseEngine):
    """The contract by operations of torch, a chunk at a time while it is in the cache.

    Values are bit-identical for any number of threads, stored or made again.

    Args:
        num_elements: Length of u.
        perturbation: The law of u.
        device: Where u is made.
        num_threads: Threads that work on chunks (CPU only).
        num_stored: Directions kept in memory, so that only their first use makes noise.
        part: As for `NoiseEngine`.

    Raises:
        ValueError: If `num_threads` is below 1.
    """

    def __init__(
        self,
        num_elements: int,
        perturbation: Perturbation,
        device: torch.device,
        num_threads: int = 1,
        num_stored: int = 0,
        part: slice | None = None,
    ) -> None:
        super().__init__(num_elements, perturbation, device, part)
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self.num_chunks = sum(1 for _ in self.chunks)
        self.num_stored = num_stored
        self._stored: dict[int, torch.Tensor] = {}
        self._workspace = threading.local()
        parallel = device.type == "cpu" and num_threads > 1 and self.num_chunks > 1
        self._pool = ThreadPoolExecutor(num_threads, "noise") if parallel else None

    def add(self, key: int, stretches: Stretches, source: torch.Tensor, out: torch.Tensor) -> None:
        """Chunk by chunk, at the same time on several threads."""

        def write(where: slice, noise: torch.Tensor) -> None:
            for piece, factor in stretches(where):
                values = noise[piece.start - where.start : piece.stop - where.start]
                values = values.to(source.dtype)
                if source.dtype == out.dtype:
                    torch.add(source[piece], values, alpha=factor, out=out[piece])
                else:
                    out[piece].copy_(torch.add(source[piece], values, alpha=factor))

        if key in self._stored:
            direction = self._stored[key]
            # In half precision torch rounds by the size of the range: there it stays the chunk.
            for where in self.chunks if source.element_size() <= 2 else self._blocks():
                write(where, direction[where])
        else:
            self._make(key, write)

    def length_of(self, key: int) -> float:
        """Drawn for this alone."""
        whole = self._chunks_of(slice(0, self.num_elements))
        squares = self._map(lambda where: self.sum_of_squares(self._draw(key, where)), whole)
        return math.sqrt(math.fsum(squares))

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, self.length, STORED_ELEMENTS):
            yield slice(start, min(start + STORED_ELEMENTS, self.length))

    def _make(self, key: int, function: Callable[[slice, torch.Tensor], None]) -> None:
        """Draw a direction and call `function(range, u[range])` for each chunk; keep it if asked.

        A direction that was not made to its end is not kept.
        """
        scale = self.scale_of(key)
        direction: torch.Tensor | None = None
        if self.num_stored:
            if len(self._stored) >= self.num_stored:
                direction = self._stored.pop(next(iter(self._stored)))
            else:
                direction = torch.empty(self.length + 15, device=self.device)  # blocks of 16

        def work(offsets: slice) -> None:
            where = self._from_start(offsets)
            noise = self._draw(
                key, offsets, None if direction is None else direction[where.start :]
            )
            function(where, noise if scale == 1.0 else noise.mul_(scale))

        self._map(work, self._chunks_of(self.part))
        if direction is not None:
            self._stored[key] = direction

    def _draw(self, key: int, where: slice, direction: torch.Tensor | None = None) -> torch.Tensor:
        """The values drawn for offsets of one chunk, in their place or in a thread's buffer."""
        if self.device.type != "cpu":
            return counter_noise(self.perturbation, key, where, self.device)
        if not hasattr(self._workspace, "generator"):
            self._workspace.noise = torch.empty(self.chunk_elements)
            self._workspace.generator = torch.Generator()
        generator: torch.Generator = self._workspace.generator
        chunk, skipped = divmod(where.start, self.chunk_elements)
        length = where.stop - chunk * self.chunk_elements
        generator.manual_seed(chunk_seed(key, chunk))
        # torch makes normals in blocks of 16 and treats a shorter tail otherwise.
        whole = -(-length // 16) * 16
        buffer = self._workspace.noise if direction is None or skipped else direction
        self.perturbation.fill_(buffer[:whole], generator)
        values: torch.Tensor = buffer[skipped:length]
        if direction is None or buffer is direction:
            return values
        return direction[: len(values)].copy_(values)

    def _map(self, work: Callable[[slice], T], chunks: Iterable[slice]) -> list[T]:
        """The results of a function of each chunk's offsets, in the order of the chunks."""
        run = map if self._pool is None else self._pool.map
        return list(run(work, chunks))
