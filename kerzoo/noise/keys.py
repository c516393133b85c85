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


def chunk_seed(key: int, chunk: int) -> int:
    """The 32-bit seed of a chunk; different for different chunks of one key.

    torch's CPU generator keeps the low 32 bits of a seed only. A bijective mix of
    (key + chunk) mod 2³² therefore rules out that two chunks of one direction coincide.
    """
    x = ((key & MASK32) + chunk) & MASK32
    x ^= key >> 32
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x ^= x >> shift
        x = (x * factor) & MASK32
    return x ^ (x >> 16)
