"""Philox4x32-10: random bits as a function of (key, counter), the same on every device.

A block of four values of a direction has one counter, its offset / 4, so that any stretch of u can
be made anywhere, in any order. `kerzoo.noise.compiled` and `kerzoo.noise.fused` make the same
values inside a kernel of a CPU or GPU; this is the plain form, in integer operations of torch.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
"""

from __future__ import annotations

import torch

from kerzoo.noise.keys import MASK32
from kerzoo.noise.laws import Perturbation

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
INCREMENTS = (0x9E3779B9, 0xBB67AE85)


def philox(words: tuple[torch.Tensor, ...], key: int) -> tuple[torch.Tensor, ...]:
    """Encrypt counters.

    >>> zero = torch.zeros(1, dtype=torch.int64)
    >>> [f"{int(word):08x}" for word in philox((zero,) * 4, key=0)]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']

    Args:
        words: The counters' four 32-bit words, the lowest first. Shape of each: [n], int64.
        key: 64 bits.

    Returns:
        Four 32-bit words. Shape of each: [n], int64.
    """
    c0, c1, c2, c3 = words
    k0, k1 = key & MASK32, key >> 32
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]  # mod 2⁶⁴
        c0, c1, c2, c3 = (
            _high(second) ^ c1 ^ k0,
            second & MASK32,
            _high(first) ^ c3 ^ k1,
            first & MASK32,
        )
        k0, k1 = (k0 + INCREMENTS[0]) & MASK32, (k1 + INCREMENTS[1]) & MASK32
    return c0, c1, c2, c3


def counter_noise(
    perturbation: Perturbation, key: int, where: slice, device: torch.device
) -> torch.Tensor:
    """u(key) on a range of offsets, before it is scaled to a sphere.

    Args:
        perturbation: The law of u.
        key: Of the direction.
        where: The range.
        device: Where the values are made.

    Returns:
        Shape: [length of the range], fp32.
    """
    first, last = where.start // 4, -(-where.stop // 4)
    counters = torch.arange(first, last, device=device)
    zero = torch.zeros_like(counters)
    bits = torch.stack(philox((counters & MASK32, counters >> 32, zero, zero), key))
    values = perturbation.from_bits(bits).T.flatten()
    return values[where.start - 4 * first : where.stop - 4 * first]


def _high(product: torch.Tensor) -> torch.Tensor:
    """The upper 32 bits of an unsigned 64-bit product."""
    return (product >> 32) & MASK32
