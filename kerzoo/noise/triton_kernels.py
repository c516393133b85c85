"""The kernels of `kerzoo.noise.fused`. What Triton compiles has no annotations but its own."""

import triton
import triton.language as tl

BLOCK = tl.constexpr(4096)
"""Elements that one program makes, from BLOCK / 4 counters."""

_UNSPECIALISED = ["start", "stop", "key_low", "key_high"]


@triton.jit(do_not_specialize=_UNSPECIALISED)
def add(
    source,
    out,
    base,
    start,
    stop,
    factor,
    key_low,
    key_high,
    IS_SIGN: tl.constexpr,
    IS_EXACT: tl.constexpr,
):
    """out ← source + factor·u on the offsets from start to stop of u, rounded once.

    Offset `base` of u is the first element of source and out. Triton specialises a base that 16
    divides, 0 among them, so that loads stay wide.
    """
    block = tl.program_id(0).to(tl.int64) + start // BLOCK
    noise = _noise(block, key_low, key_high, IS_SIGN, IS_EXACT)
    offsets = block * BLOCK + tl.arange(0, BLOCK)
    places = block * BLOCK - base + tl.arange(0, BLOCK)
    if (block * BLOCK >= start) & ((block + 1) * BLOCK <= stop):
        values = tl.load(source + places).to(tl.float32) + factor * noise
        tl.store(out + places, values.to(out.dtype.element_ty))
    else:
        inside = (offsets >= start) & (offsets < stop)
        values = tl.load(source + places, mask=inside, other=0.0).to(tl.float32) + factor * noise
        tl.store(out + places, values.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_UNSPECIALISED)
def sum_squares(sums, stop, key_low, key_high, IS_EXACT: tl.constexpr):
    """sums[b] ← Σ z² over the offsets of block b that lie before `stop`."""
    block = tl.program_id(0).to(tl.int64)
    noise = _noise(block, key_low, key_high, False, IS_EXACT)
    offsets = block * BLOCK + tl.arange(0, BLOCK)
    tl.store(sums + block, tl.sum(tl.where(offsets < stop, noise * noise, 0.0)))


@triton.jit
def _noise(block, key_low, key_high, IS_SIGN: tl.constexpr, IS_EXACT: tl.constexpr):
    """u on the offsets of a block, before it is scaled. Shape: [BLOCK]."""
    counters = block * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    b0, b1, b2, b3 = _philox(counters, key_low.to(tl.uint32), key_high.to(tl.uint32))
    if IS_SIGN:
        z0, z1, z2, z3 = _sign(b0), _sign(b1), _sign(b2), _sign(b3)
    else:
        z0, z1 = _normal_pair(b0, b1, IS_EXACT)
        z2, z3 = _normal_pair(b2, b3, IS_EXACT)
    return tl.reshape(tl.join(tl.join(z0, z2), tl.join(z1, z3)), [BLOCK])


@triton.jit
def _philox(counters, k0, k1):
    """Ten rounds over (counter, 0, 0)."""
    c0 = counters.to(tl.uint32)
    c1 = (counters >> 32).to(tl.uint32)
    c2 = tl.zeros_like(c0)
    c3 = tl.zeros_like(c0)
    first = tl.full(c0.shape, 0xD2511F53, tl.uint32)
    second = tl.full(c0.shape, 0xCD9E8D57, tl.uint32)
    for _ in tl.static_range(10):
        low, high = c0 * first, tl.umulhi(c0, first)
        c0 = tl.umulhi(c2, second) ^ c1 ^ k0
        c1 = c2 * second
        c2 = high ^ c3 ^ k1
        c3 = low
        k0 = (k0 + 0x9E3779B9).to(tl.uint32)
        k1 = (k1 + 0xBB67AE85).to(tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def _normal_pair(a, b, IS_EXACT: tl.constexpr):
    """Box and Muller."""
    uniform = a.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10
    angle = b.to(tl.float32) * 2.3283064365386963e-10 * 6.283185307179586
    if IS_EXACT:
        radius = tl.sqrt(-2.0 * tl.log(uniform))
        cos = tl.cos(angle)
        sin = tl.sin(angle)
    else:
        radius = tl.sqrt(-1.3862943611198906 * tl.log2(uniform))
        cos = tl.inline_asm_elementwise(
            "cos.approx.ftz.f32 $0, $1;", "=f,f", [angle], dtype=tl.float32, is_pure=True, pack=1
        )
        sin = tl.inline_asm_elementwise(
            "sin.approx.ftz.f32 $0, $1;", "=f,f", [angle], dtype=tl.float32, is_pure=True, pack=1
        )
    return radius * cos, radius * sin


@triton.jit
def _sign(bits):
    """1, or −1 where the highest bit is set."""
    return 1.0 - 2.0 * (bits >> 31).to(tl.float32)
