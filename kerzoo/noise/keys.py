"""Keys: one 64-bit number for each use of randomness in a run."""

from __future__ import annotations

import hashlib
import struct
from typing import Literal

Stream = Literal["batches", "directions", "radii", "initialisation"]
_STREAM_CODES: dict[Stream, int] = {
    "batches": 0,
    "directions": 1,
    "radii": 2,
    "initialisation": 3,
}
MASK32 = (1 << 32) - 1


def derive_key(seed: int, stream: Stream, step: int = 0, direction: int = 0) -> int:
    """A 64-bit key for one use of randomness: BLAKE2b of (seed, stream, step, direction)."""
    message = struct.pack("<qqqq", seed, _STREAM_CODES[stream], step, direction)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")


def uniform_from_key(key: int, index: int = 0) -> float:
    """A float64 in [0, 1) with 53 random bits, one for each key and index."""
    digest = hashlib.blake2b(struct.pack("<QQ", key, index), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53
