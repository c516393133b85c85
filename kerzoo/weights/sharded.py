"""θ over several devices: flat shards under one numbering."""

from __future__ import annotations

from collections.abc import Sequence

from kerzoo.weights.base import Factors, Weights
from kerzoo.weights.flat import FlatWeights


class ShardedWeights(Weights):
    """The contract by shards, each of which has the noise of its own offsets made where it lies.

    Neighbouring parameters of one device are a shard, and a device may have several. No value
    travels between devices: what a step adds to θ follows from the key, the offset and numbers
    that the host knows (losses, radii, and |z| where directions lie on a sphere, which the first
    shard's device measures). Every bit of θ is that of one flat vector.

    Args:
        shards: In the order of their offsets, which follow each other without a gap.

    Raises:
        ValueError: If they are of several dtypes.
    """

    def __init__(self, shards: Sequence[FlatWeights]) -> None:
        kinds = {shard.working.dtype for shard in shards}
        if len(kinds) > 1:
            raise ValueError(f"parameters must share one dtype, got {sorted(map(str, kinds))}")
        ends = [0, *(shard.noise.part.stop for shard in shards)]
        assert ends[:-1] == [shard.noise.part.start for shard in shards]
        self._shards = tuple(shards)
        self.parameters = tuple(p for shard in shards for p in shard.parameters)
        self.sizes = tuple(size for shard in shards for size in shard.sizes)
        for shard in self._shards[1:]:
            shard.noise.share_scales(self._shards[0].noise)

    @property
    def shards(self) -> tuple[FlatWeights, ...]:
        """In the order of their offsets."""
        return self._shards

    def perturb_(self, key: int, scales: Factors) -> None:
        """Shard by shard."""
        for shard, own in zip(self._shards, self.share(scales), strict=True):
            shard.perturb_(key, own)

    def restore_(self) -> None:
        """Shard by shard."""
        for shard in self._shards:
            shard.restore_()

    def move_(self, key: int, factors: Factors) -> None:
        """Shard by shard."""
        for shard, own in zip(self._shards, self.share(factors), strict=True):
            shard.move_(key, own)

    def retrace_(self, key: int, points: Sequence[Factors]) -> None:
        """Shard by shard."""
        for shard, *own in zip(self._shards, *map(self.share, points), strict=True):
            shard.retrace_(key, own)

    def adopt_(self) -> None:
        """Shard by shard."""
        for shard in self._shards:
            shard.adopt_()

    def squared_norms(self, keys: Sequence[int], factors: Sequence[Factors]) -> list[float]:
        """Shard by shard."""
        parts = zip(self._shards, *map(self.share, factors), strict=True)
        return [square for shard, *own in parts for square in shard.squared_norms(keys, own)]
