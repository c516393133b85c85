"""The kernel of `kerzoo.noise.compiled`, in the subset of Python that Numba compiles.

It does what `kerzoo.noise.philox` and `kerzoo.noise.normal` do in operations of torch: the same
operations in the same order, none contracted into another, so that both give the same bits on
every CPU. Loops have no branch and no call, for LLVM to make vector instructions of them.

What is compiled is kept on disk until this file changes, so that its numbers stand here, and are
not imported. Numba computes with integers in 64 bits unless a cast says otherwise.

Raises:
    ImportError: If NUMBA_DISABLE_JIT is set: as Python the kernel would take hours.
"""

from __future__ import annotations

import contextlib
import math

import numba
import numpy as np

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("NUMBA_DISABLE_JIT is set")

BLOCK = 4096
"""Elements that are made at a time: their noise stays in the nearest cache."""

u32, u64, i32, f32 = np.uint32, np.uint64, np.int32, np.float32

_LOW, _32 = u64(0xFFFFFFFF), u64(32)
_MULTIPLIERS = (u64(0xD2511F53), u64(0xCD9E8D57))
_INCREMENTS = (u64(0x9E3779B9), u64(0xBB67AE85))
_LOG = (
    f32(7.0376836292e-2),
    f32(-1.1514610310e-1),
    f32(1.1676998740e-1),
    f32(-1.2420140846e-1),
    f32(1.4249322787e-1),
    f32(-1.6668057665e-1),
    f32(2.0000714765e-1),
    f32(-2.4999993993e-1),
    f32(3.3333331174e-1),
)
_LOG_2 = (f32(0.693359375), f32(-2.12194440e-4))
_SIN = (f32(-1.9515295891e-4), f32(8.3321608736e-3), f32(-1.6666654611e-1))
_COS = (f32(2.443315711809948e-5), f32(-1.388731625493765e-3), f32(4.166664568298827e-2))
_EIGHTH_TURN = f32(math.pi / 4 * 2.0**-31)


def _kernel(function):
    """Compile at the first call, and keep the result where a folder can be written."""
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):
        compiled.enable_caching()
    return compiled


_inline = numba.njit(inline="always")


@_kernel
def add(source, out, start, stop, factor, key, is_sign):
    """out ← source + factor·u(key) on the offsets from start to stop of u.

    Args:
        source: Shape: [n], fp32 or fp64.
        out: The source, or apart from it. Shape and dtype: the source's.
        start: Offset of the first element of source and out.
        stop: Offset after the last.
        factor: A number of the source's dtype.
        key: 64 bits, unsigned.
        is_sign: Whether the values are signs, and not standard normal.
    """
    noise = np.empty(BLOCK, np.float32)
    is_copied = source.ctypes.data != out.ctypes.data
    first = start // BLOCK * BLOCK
    for block in range(first, stop, BLOCK):
        if is_sign:
            _fill_signs(noise, block // 4, key)
        else:
            _fill_normals(noise, block // 4, key)
        low, high = max(start, block), min(stop, block + BLOCK)
        values, drawn = out[low - start : high - start], noise[low - block : high - block]
        if is_copied:  # at once: a sum into memory that may be another's is not vectorised
            values[:] = source[low - start : high - start]
        for i in range(len(values)):
            values[i] += factor * drawn[i]


@_inline
def _fill_normals(noise, first, key):
    for i in range(len(noise) // 4):
        a, b, c, d = _philox(u64(first + i), key)
        noise[4 * i], noise[4 * i + 1] = _normal_pair(a, b)
        noise[4 * i + 2], noise[4 * i + 3] = _normal_pair(c, d)


@_inline
def _fill_signs(noise, first, key):
    for i in range(len(noise) // 4):
        a, b, c, d = _philox(u64(first + i), key)
        noise[4 * i], noise[4 * i + 1] = _sign(a), _sign(b)
        noise[4 * i + 2], noise[4 * i + 3] = _sign(c), _sign(d)


@_inline
def _philox(counter, key):
    """Four words; they are kept in 64 bits each, which is what their products need."""
    c0, c1, c2, c3 = counter, counter >> _32, u64(0), u64(0)
    k0, k1 = key & _LOW, key >> _32
    for _ in range(10):
        first, second = (c0 & _LOW) * _MULTIPLIERS[0], (c2 & _LOW) * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (second >> _32) ^ c1 ^ k0, second, (first >> _32) ^ c3 ^ k1, first
        k0, k1 = k0 + _INCREMENTS[0], k1 + _INCREMENTS[1]
    return u32(c0), u32(c1), u32(c2), u32(c3)


@_inline
def _normal_pair(a, b):
    """Box and Muller."""
    radius = np.sqrt(f32(-2.0) * _log(f32(a) * f32(2.0**-32) + f32(2.0**-33)))
    cos, sin = _cos_sin(b)
    return radius * cos, radius * sin


@_inline
def _log(value):
    """ln of a number in (0, 1]."""
    bits = f32(value).view(np.uint32)
    exponent = i32(i32(bits >> u32(23)) - i32(126))
    mantissa = u32((bits & u32(0x7FFFFF)) | u32(0x3F000000)).view(np.float32)
    is_small = mantissa < f32(0.70710678)
    power = f32(i32(exponent - i32(is_small)))
    x = mantissa + (mantissa if is_small else f32(0.0)) - f32(1.0)
    square = x * x
    series = _LOG[0]
    for factor in _LOG[1:]:
        series = series * x + factor
    tail = series * x * square + power * _LOG_2[1] - f32(0.5) * square
    return x + tail + power * _LOG_2[0]


@_inline
def _cos_sin(bits):
    """Of the angle 2π·bits / 2³²."""
    quarter = u32(u32(bits + u32(1 << 29)) >> u32(30))
    x = f32(i32(u32(bits << u32(2)))) * _EIGHTH_TURN
    square = x * x
    sin = _SIN[0]
    for factor in _SIN[1:]:
        sin = sin * square + factor
    sin = sin * square * x + x
    cos = _COS[0]
    for factor in _COS[1:]:
        cos = cos * square + factor
    cos = cos * square * square - f32(0.5) * square + f32(1.0)
    is_swapped = (quarter & u32(1)) != u32(0)
    cos, sin = (sin if is_swapped else cos), (cos if is_swapped else sin)
    cos_sign = u32(u32(u32(quarter + u32(1)) & u32(2)) << u32(30))
    sin_sign = u32(u32(quarter & u32(2)) << u32(30))
    return _with_sign(cos, cos_sign), _with_sign(sin, sin_sign)


@_inline
def _with_sign(value, sign):
    return u32(f32(value).view(np.uint32) ^ sign).view(np.float32)


@_inline
def _sign(bits):
    """1, or −1 where the highest bit is set."""
    return f32(1.0) - f32(2.0) * f32(bits >> u32(31))
