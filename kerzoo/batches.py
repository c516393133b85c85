"""Which examples the batch of a step holds: a function of (seed, step) alone."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from kerzoo.noise import derive_key


@dataclasses.dataclass(frozen=True)
class BatchSampler:
    """Epochs of shuffled examples, read off without a gap: every example once an epoch.

    Position p = step · batch_size + j lies in epoch p // N and is entry p mod N of that epoch's
    permutation, which is keyed by (seed, "batches", epoch).

    Args:
        num_examples: N ≥ 1.
        batch_size: At most N.
        seed: The run's seed.

    Raises:
        ValueError: If a batch is larger than the split.
    """

    num_examples: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size > self.num_examples:
            raise ValueError(
                f"training.batch_size must not exceed the {self.num_examples} training examples, "
                f"got {self.batch_size}"
            )

    def indices(self, step: int) -> list[int]:
        """The examples of a step. Length: batch_size."""
        start = step * self.batch_size
        return [
            int(
                _permutation(self.seed, p // self.num_examples, self.num_examples)[
                    p % self.num_examples
                ]
            )
            for p in range(start, start + self.batch_size)
        ]


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    generator = np.random.Generator(np.random.Philox(derive_key(seed, "batches", epoch)))
    return generator.permutation(size)
