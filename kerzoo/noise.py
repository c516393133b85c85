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
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

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

_MASK32 = (1 << 32) - 1


def derive_key(seed: int, stream: Stream, step: int = 0, direction: int = 0) -> int:
    """A 64-bit key for one use of randomness: BLAKE2b of (seed, stream, step, direction)."""
    message = struct.pack("<qqqq", seed, _STREAM_CODES[stream], step, direction)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")


def uniform_from_key(key: int) -> float:
    """A float64 in [0, 1), uniform over keys, with 53 random bits."""
    digest = hashlib.blake2b(key.to_bytes(8, "little"), digest_size=8).digest()
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
    """The law of a direction u. Coordinates have mean 0 and variance 1."""

    @abc.abstractmethod
    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Fill a flat fp32 chunk with values of u, drawing from the generator alone."""


@dataclasses.dataclass(frozen=True)
class Gaussian(Perturbation):
    """u ~ N(0, I), as MeZO and KerZOO draw it."""

    def fill_(self, chunk: torch.Tensor, generator: torch.Generator) -> None:
        """Standard normal values."""
        chunk.normal_(generator=generator)


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
        parallel = device.type == "cpu" and num_threads > 1 and self.num_chunks > 1
        self._pool = ThreadPoolExecutor(num_threads, "noise") if parallel else None

    def for_each_chunk(self, key: int, function: Callable[[slice, torch.Tensor], None]) -> None:
        """Call `function(range, u[range])` once for every chunk of the direction `key`.

        The tensor is fp32, of the length of the range, and is overwritten after the call.
        Calls for different chunks may run at the same time.
        """

        def work(chunk: int) -> None:
            start = chunk * self.chunk_elements
            stop = min(start + self.chunk_elements, self.num_elements)
            buffer, generator = self._buffers()
            length = stop - start
            generator.manual_seed(chunk_seed(key, chunk))
            # torch makes normals in blocks of 16 and treats a shorter tail otherwise.
            self.perturbation.fill_(buffer[: -(-length // 16) * 16], generator)
            function(slice(start, stop), buffer[:length])

        run = map if self._pool is None else self._pool.map
        for _ in run(work, range(self.num_chunks)):
            pass

    def materialise(self, key: int) -> torch.Tensor:
        """The whole direction u. Shape: [num_elements], fp32."""
        direction = torch.empty(self.num_elements, device=self.device)

        def store(where: slice, noise: torch.Tensor) -> None:
            direction[where] = noise

        self.for_each_chunk(key, store)
        return direction

    def _buffers(self) -> tuple[torch.Tensor, torch.Generator]:
        if not hasattr(self._workspace, "noise"):
            self._workspace.noise = torch.empty(self.chunk_elements, device=self.device)
            self._workspace.generator = torch.Generator(device=self.device)
        return self._workspace.noise, self._workspace.generator
