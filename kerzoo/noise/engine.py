"""Adding multiples of keyed directions to flat vectors: the inner loop of a step.

The values of a direction are a function of (key, offset) by `kerzoo.noise.philox`, for any number
of threads, on every CPU and, up to their last bits, on a GPU.
"""

from __future__ import annotations

import abc
import math
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch

from kerzoo.noise.laws import Gaussian, Perturbation, Rademacher, Sphere
from kerzoo.noise.philox import counter_noise

CHUNK_ELEMENTS = {"cpu": 1 << 15, "cuda": 1 << 22}
"""Elements of a chunk by device type: cache-sized on the CPU, launch-sized on a GPU."""

COMPILED_LAWS: tuple[type[Perturbation], ...] = (Gaussian, Sphere, Rademacher)
"""Laws that the compiled kernels know."""

SCALES_REMEMBERED = 64

Stretches = Callable[[slice], Iterable[tuple[slice, float]]]
"""The parts of a range that have one factor each, in order."""


def noise_engine(
    num_elements: int,
    perturbation: Perturbation,
    device: torch.device,
    num_threads: int = 1,
    part: slice | None = None,
) -> NoiseEngine:
    """The fastest engine for a device: Triton's on a GPU, Numba's on a CPU, else torch's.

    Args:
        num_elements: Length of u.
        perturbation: The law of u.
        device: Where u is made.
        num_threads: CPU only.
        part: As for `NoiseEngine`.

    Raises:
        ValueError: If `num_threads` is below 1.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, got {num_threads}")
    plain = PlainNoise(num_elements, perturbation, device, part)
    if type(perturbation) not in COMPILED_LAWS:
        return plain
    try:
        if device.type == "cpu":
            from kerzoo.noise.compiled import CompiledNoise

            return CompiledNoise(num_elements, perturbation, device, num_threads, part)
        from kerzoo.noise.fused import FusedNoise

        return FusedNoise(num_elements, perturbation, device, part)
    except torch.OutOfMemoryError:
        raise
    except (ImportError, OSError, RuntimeError) as error:  # the last where nothing can be compiled
        package, slower = ("numba", 60) if device.type == "cpu" else ("triton", 70)
        warnings.warn(
            f"{error}: noise is made by torch, whose passes over the weights take up to {slower} "
            f"times as long; see that {package} can be imported and can compile",
            stacklevel=2,
        )
        return plain


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
            out: The source, or apart from it. Shape: [length], any floating dtype.
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
        direction = torch.zeros(self.length, dtype=torch.float32, device=self.device)
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


class PlainNoise(NoiseEngine):
    """The contract by operations of torch: slow, on any device, the reference of the others."""

    def add(self, key: int, stretches: Stretches, source: torch.Tensor, out: torch.Tensor) -> None:
        """A chunk at a time."""
        scale = self.scale_of(key)
        computed = torch.promote_types(source.dtype, torch.float32)
        for offsets in self._chunks_of(self.part):
            where = self._from_start(offsets)
            noise = counter_noise(self.perturbation, key, offsets, self.device)
            for piece, factor in stretches(where):
                values = noise[piece.start - where.start : piece.stop - where.start]
                added = values.to(computed) * (factor * scale)
                out[piece].copy_(source[piece].to(computed) + added)

    def length_of(self, key: int) -> float:
        """A chunk at a time."""
        chunks = self._chunks_of(slice(0, self.num_elements))
        return math.sqrt(
            math.fsum(
                self.sum_of_squares(counter_noise(self.perturbation, key, offsets, self.device))
                for offsets in chunks
            )
        )
