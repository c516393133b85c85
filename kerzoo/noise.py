"""Random streams without a global generator, and the directions u as keyed, chunked noise.

Every random number of a run is a function of (seed, stream, step, direction) and, inside a
direction, of the parameter's offset. Batches, directions, radii and initial values are separate
streams: arms with one seed share batches and directions, and drawing r never shifts u.

A direction is cut into chunks of consecutive offsets. Each chunk has a generator of its own, so
that the values depend neither on the number of threads nor on the order of the chunks.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import math
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import torch

Stream = Literal["batches", "directions", "radii", "initialisation"]
_STREAM_CODES: dict[Stream, int] = {
    "batches": 0,
    "directions": 1,
    "radii": 2,
    "initialisation": 3,
}
CHUNK_ELEMENTS = {"cpu": 1 << 15, "cuda": 1 << 24}
"""Elements of a chunk by device type: cache-sized on the CPU, launch-sized on a GPU."""

SCALES_REMEMBERED = 64

T = TypeVar("T")

_MASK32 = (1 << 32) - 1


def derive_key(seed: int, stream: Stream, step: int = 0, direction: int = 0) -> int:
    """A 64-bit key for one use of randomness: BLAKE2b of (seed, stream, step, direction)."""
    message = struct.pack("<qqqq", seed, _STREAM_CODES[stream], step, direction)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")


def uniform_from_key(key: int, index: int = 0) -> float:
    """A float64 in [0, 1) with 53 random bits, one for each key and index."""
    digest = hashlib.blake2b(struct.pack("<QQ", key, index), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def chunk_seed(key: int, chunk: int) -> int:
    """The 32-bit seed of a chunk; different for different chunks of one key.

    torch's CPU generator keeps the low 32 bits of a seed only. A bijective mix of
    (key + chunk) mod 2³² therefore rules out that two chunks of one direction coincide.
    """
    x = ((key & _MASK32) + chunk) & _MASK32
    x ^= key >> 32
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x ^= x >> shift
        x = (x * factor) & _MASK32
    return x ^ (x >> 16)


class Perturbation(abc.ABC):
    """The law of a direction u in R^d, with E[u] = 0 and E[u·uᵀ] = I.

    Attributes:
        on_sphere: Whether u is scaled to the norm √d after its values were drawn.
    """

    on_sphere = False

    @abc.abstractmethod
    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Fill a flat fp32 chunk with values of u, drawing from the generator alone."""


@dataclasses.dataclass(frozen=True)
class Gaussian(Perturbation):
    """u ~ N(0, I), as MeZO and KerZOO draw it."""

    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Standard normal values."""
        chunk.normal_(generator=generator)


@dataclasses.dataclass(frozen=True)
class Sphere(Perturbation):
    """u uniform on the sphere of radius √d: a Gaussian direction scaled to that norm.

    For a linear loss E|g|² is V_s·d·|∇L|², against V_s·(d + 2)·|∇L|² with a Gaussian u.
    """

    on_sphere = True

    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Standard normal values, yet to be scaled."""
        chunk.normal_(generator=generator)


@dataclasses.dataclass(frozen=True)
class Rademacher(Perturbation):
    """Coordinates ±1 with equal probability; |u|² = d exactly."""

    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Signs."""
        chunk.random_(0, 2, generator=generator).mul_(2.0).sub_(1.0)


class NoiseEngine:
    """Applies a function of (offset range, u on that range) to every chunk of a direction.

    Values are bit-identical for any number of threads.

    Args:
        num_elements: Length of u.
        perturbation: The law of u.
        device: Where u is made. A CPU and a GPU make different values from the same key.
        num_threads: Threads that work on chunks (CPU only).

    Raises:
        ValueError: If `num_threads` is below 1.
    """

    def __init__(
        self,
        num_elements: int,
        perturbation: Perturbation,
        device: torch.device,
        num_threads: int = 1,
    ) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self.num_elements = num_elements
        self.perturbation = perturbation
        self.device = device
        self.chunk_elements = CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cuda"])
        self.num_chunks = -(-num_elements // self.chunk_elements)
        self._workspace = threading.local()
        self._scales: dict[int, float] = {}
        parallel = device.type == "cpu" and num_threads > 1 and self.num_chunks > 1
        self._pool = ThreadPoolExecutor(num_threads, "noise") if parallel else None

    @property
    def chunks(self) -> Iterator[slice]:
        """The ranges of the chunks, in order."""
        for start in range(0, self.num_elements, self.chunk_elements):
            yield slice(start, min(start + self.chunk_elements, self.num_elements))

    def for_each_chunk(self, key: int, function: Callable[[slice, torch.Tensor], None]) -> None:
        """Call `function(range, u[range])` once for every chunk of the direction `key`.

        The tensor is fp32, of the length of the range, and is overwritten after the call.
        Calls for different chunks may run at the same time.
        """
        scale = self._scale(key) if self.perturbation.on_sphere else None

        def work(chunk: int) -> None:
            where, noise = self._draw(key, chunk)
            function(where, noise if scale is None else noise.mul_(scale))

        self._map(work)

    def materialise(self, key: int) -> torch.Tensor:
        """The whole direction u. Shape: [num_elements], fp32."""
        direction = torch.empty(self.num_elements, device=self.device)

        def store(where: slice, noise: torch.Tensor) -> None:
            direction[where] = noise

        self.for_each_chunk(key, store)
        return direction

    def sum_of_squares(self, values: torch.Tensor) -> float:
        """Σ v² in float64, summed chunk by chunk: the same bits for any number of threads."""
        chunks = torch.split(values, self.chunk_elements)
        return math.fsum(torch.stack([c.double().square_().sum() for c in chunks]).tolist())

    def _scale(self, key: int) -> float:
        """√d / |z| for the values z that are drawn for a direction; the newest are remembered."""
        if key not in self._scales:
            squares = self._map(lambda chunk: self.sum_of_squares(self._draw(key, chunk)[1]))
            while len(self._scales) >= SCALES_REMEMBERED:
                self._scales.pop(next(iter(self._scales)))
            self._scales[key] = math.sqrt(self.num_elements / math.fsum(squares))
        return self._scales[key]

    def _draw(self, key: int, chunk: int) -> tuple[slice, torch.Tensor]:
        """A chunk's range, and the values drawn for it in a buffer of this thread."""
        start = chunk * self.chunk_elements
        stop = min(start + self.chunk_elements, self.num_elements)
        length = stop - start
        buffer, generator = self._buffers()
        generator.manual_seed(chunk_seed(key, chunk))
        # torch makes normals in blocks of 16 and treats a shorter tail otherwise.
        self.perturbation.fill_(buffer[: -(-length // 16) * 16], generator)
        return slice(start, stop), buffer[:length]

    def _map(self, work: Callable[[int], T]) -> list[T]:
        """The results of a function of every chunk, in the order of the chunks."""
        run = map if self._pool is None else self._pool.map
        return list(run(work, range(self.num_chunks)))

    def _buffers(self) -> tuple[torch.Tensor, torch.Generator]:
        if not hasattr(self._workspace, "noise"):
            self._workspace.noise = torch.empty(self.chunk_elements, device=self.device)
            self._workspace.generator = torch.Generator(device=self.device)
        return self._workspace.noise, self._workspace.generator
