"""Counter-based noise: published test vectors, its law, and compiled kernels against it."""

from __future__ import annotations

import errno
import importlib.util
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from unittest import mock

import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.caching import CacheImpl, IndexDataCacheFile

from kerzoo.noise import (
    Gaussian,
    Perturbation,
    Rademacher,
    Sphere,
    compiled,
    derive_key,
    noise_engine,
    numba_kernels,
)
from kerzoo.noise.compiled import CompiledNoise
from kerzoo.noise.engine import PlainNoise
from kerzoo.noise.normal import normal_from_bits
from kerzoo.noise.numba_kernels import BLOCK
from kerzoo.noise.philox import counter_noise, philox

CPU = torch.device("cpu")
KEY = derive_key(0, "directions")
COUNT = 1 << 20
LAWS = (Gaussian(), Sphere(), Rademacher())
DTYPES = [
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.float64, torch.float64),
]
"""Of what noise is added to, and of the sum."""
each_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            2**64 - 1,
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            0x299F31D0A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_test_vectors(counter: str, key: int, expected: str) -> None:
    """`kat_vectors` of Random123."""
    words = tuple(torch.tensor([int(word, 16)]) for word in counter.split())
    assert " ".join(f"{int(word):08x}" for word in philox(words, key)) == expected


@each_law
def test_any_stretch_of_a_direction_is_the_same_stretch_of_the_whole(law: Perturbation) -> None:
    whole = counter_noise(law, KEY, slice(0, 1000), CPU)
    for where in (slice(0, 1), slice(3, 10), slice(4, 8), slice(997, 1000), slice(13, 514)):
        assert torch.equal(counter_noise(law, KEY, where, CPU), whole[where])


def test_offsets_beyond_32_bits_have_values_of_their_own() -> None:
    far = 1 << 36
    here = counter_noise(Gaussian(), KEY, slice(0, 64), CPU)
    there = counter_noise(Gaussian(), KEY, slice(far, far + 64), CPU)
    assert not torch.equal(here, there)


def test_counter_noise_is_standard_normal() -> None:
    """Moments and correlations at lags 1 to 4 at |z| < 5, and Kolmogorov–Smirnov at 2.3/√n.

    Together fewer than 1 false alarm in 10⁴ keys.
    """
    noise = counter_noise(Gaussian(), KEY, slice(0, COUNT), CPU).double()
    scale = math.sqrt(COUNT)
    assert abs(float(noise.mean())) * scale < 5
    assert abs(float(noise.square().mean()) - 1) * scale / math.sqrt(2) < 5
    assert abs(float(noise.pow(3).mean())) * scale / math.sqrt(15) < 5
    assert abs(float(noise.pow(4).mean()) - 3) * scale / math.sqrt(96) < 5
    for lag in (1, 2, 3, 4):
        assert abs(float((noise[lag:] * noise[:-lag]).mean())) * scale < 5
    expected = 0.5 * (1 + torch.erf(noise.sort().values / math.sqrt(2)))
    ranks = (torch.arange(COUNT).double() + 0.5) / COUNT
    assert float((expected - ranks).abs().max()) < 2.3 / scale


def test_signs_are_balanced_and_uncorrelated() -> None:
    """At |z| < 5: fewer than 1 false alarm in 10⁵ keys."""
    signs = counter_noise(Rademacher(), KEY, slice(0, COUNT), CPU).double()
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) * math.sqrt(COUNT) < 5
    assert abs(float((signs[1:] * signs[:-1]).mean())) * math.sqrt(COUNT) < 5


def test_neighbouring_keys_give_uncorrelated_directions() -> None:
    """At |z| < 5: fewer than 1 false alarm in 10⁵."""
    first, second = (counter_noise(Gaussian(), KEY + i, slice(0, COUNT), CPU) for i in (0, 1))
    assert abs(float((first.double() * second.double()).mean())) * math.sqrt(COUNT) < 5


def test_normal_values_are_those_of_box_and_muller() -> None:
    """In double precision, from the same bits; also where the logarithm is 0, or at its largest."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 1 << 32, (4, 100_000), generator=generator)
    ends = torch.tensor([0, 1, (1 << 29) - 1, 1 << 29, 3 << 29, 1 << 31, (1 << 32) - 1])
    bits[:, :7], bits[1::2, 7:14] = ends, ends
    radius = torch.sqrt(-2 * torch.log(bits[0::2].float().double() / 2**32 + 2.0**-33).clamp(max=0))
    angle = 2 * math.pi * bits[1::2].double() / 2**32
    expected = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1).reshape(4, -1)
    assert float((normal_from_bits(bits).double() - expected).abs().max()) < 2e-6


@settings(max_examples=60)
@given(data=st.data(), law=st.sampled_from(LAWS), key=st.integers(0, 2**64 - 1))
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_a_cpus_kernel_gives_the_bits_of_torch_alone(
    data: st.DataObject,
    law: Perturbation,
    key: int,
    threads: int,
    dtypes: tuple[torch.dtype, torch.dtype],
) -> None:
    """On any stretches of any part, in place or not, in any precision."""
    total = data.draw(st.integers(1, 4 * BLOCK))
    cuts = st.lists(st.integers(0, total), min_size=2, max_size=6, unique=True)
    ends = sorted(data.draw(cuts))
    part = slice(ends[0], ends[-1])
    stretches = [
        (slice(a - part.start, b - part.start), 0.5 - 0.3 * i)
        for i, (a, b) in enumerate(itertools.pairwise(ends))
        if i != 2  # which nothing writes to
    ]

    def pieces(where: slice) -> Iterator[tuple[slice, float]]:
        for stretch, factor in stretches:
            start, stop = max(stretch.start, where.start), min(stretch.stop, where.stop)
            if start < stop:
                yield slice(start, stop), factor

    found = []
    with mock.patch.object(compiled, "PIECE", 1000):
        for engine in (
            CompiledNoise(total, law, CPU, threads, part),
            PlainNoise(total, law, CPU, part),
        ):
            source = torch.linspace(-2, 2, part.stop - part.start).to(dtypes[0])
            out = torch.full_like(source, 7.0, dtype=dtypes[1])
            engine.add(key, pieces, source, out)
            engine.add(key ^ 1, pieces, source, source)
            found.append(torch.cat([source.double(), out.double()]))
    assert torch.equal(*found)


OF_SEVERAL_MACHINES = """
import hashlib, torch
from kerzoo.noise import Gaussian, noise_engine
values = noise_engine(100_003, Gaussian(), torch.device("cpu"), 2).materialise(2**63 + 5)
print(type(noise_engine(9, Gaussian(), torch.device("cpu"))).__name__)
print(hashlib.sha256(values.numpy().tobytes()).hexdigest())
"""
NO_NUMBA = "import sys; sys.modules['numba'] = None\n"


def test_noise_has_the_same_bits_on_processors_with_other_instructions_and_without_numba(
    tmp_path: Path,
) -> None:
    """A processor's name sets what LLVM may use; a cache of its own keeps what is compiled."""
    cache, generic = tmp_path / "cache", tmp_path / "generic"
    kept = {"NUMBA_CACHE_DIR": str(cache)}
    runs = [
        ("", kept),
        ("", kept),
        (
            "",
            {
                "NUMBA_CPU_NAME": "generic",
                "NUMBA_CPU_FEATURES": "",
                "NUMBA_CACHE_DIR": str(generic),
            },
        ),
        (NO_NUMBA, {}),
        ("", {"NUMBA_DISABLE_JIT": "1", "ATEN_CPU_CAPABILITY": "default"}),
    ]
    found = []
    for before, environment in runs:
        done = _run_python(before + OF_SEVERAL_MACHINES, dict(os.environ) | environment)
        found.append((*done.stdout.split(), "see that numba" in done.stderr))
    engines, digests, warned = zip(*found, strict=True)
    assert engines == ("CompiledNoise",) * 3 + ("PlainNoise",) * 2
    assert len(set(digests)) == 1
    assert warned == (False,) * 3 + (True,) * 2
    for folder in (cache, generic):
        assert len(list(folder.rglob("*.nbc"))) == 1


def test_where_nothing_can_be_compiled_torch_makes_the_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triton says so when the first kernel is launched, here on a device that needs no GPU."""

    class NoCompiler:
        def __getitem__(self, grid: tuple[int, ...]) -> NoReturn:
            raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr("kerzoo.noise.fused.add", NoCompiler())
    with pytest.warns(UserWarning, match=r"find C compiler: noise is made by torch.*see that trit"):
        engine = noise_engine(8, Gaussian(), torch.device("meta"))
    assert type(engine) is PlainNoise


def test_threads_write_what_was_made_in_inference_mode() -> None:
    with torch.inference_mode():
        weights = torch.ones(1 << 18, dtype=torch.bfloat16)
    found = torch.ones(1 << 18, dtype=torch.bfloat16)
    engine = noise_engine(len(found), Gaussian(), CPU, num_threads=2)
    with torch.inference_mode():
        engine.add(1, lambda where: [(where, 0.5)], weights, weights)
    engine.add(1, lambda where: [(where, 0.5)], found, found)
    assert torch.equal(weights.clone(), found)


@pytest.mark.parametrize("law", [Gaussian(), Rademacher()], ids=lambda law: type(law).__name__)
@pytest.mark.parametrize("power", [32, 34, 45])
def test_a_cpus_kernel_gives_the_bits_of_torch_alone_at_large_offsets(
    law: Perturbation, power: int
) -> None:
    """On both sides of where the counter, or an offset, outgrows a word."""
    part = slice((1 << power) - 777, (1 << power) + 555)
    engines = [kind(1 << 46, law, CPU, part=part) for kind in (CompiledNoise, PlainNoise)]
    one, other = (engine.materialise((1 << 64) - 1) for engine in engines)
    assert torch.equal(one, other)


def test_a_part_may_be_empty() -> None:
    empty = CompiledNoise(100, Gaussian(), CPU, 2, slice(40, 40)).materialise(KEY)
    assert len(empty) == 0


def test_a_disk_without_room_for_the_compiled_kernel_stops_nothing() -> None:
    kernel = numba_kernels._kernel(numba_kernels.add.py_func)
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        mock.patch.object(compiled, "add", kernel),
        mock.patch.object(IndexDataCacheFile, "load", return_value=None),
        mock.patch.object(IndexDataCacheFile, "save", side_effect=full) as save,
    ):
        found = CompiledNoise(1000, Gaussian(), CPU).materialise(KEY)
    assert save.called
    assert torch.equal(found, PlainNoise(1000, Gaussian(), CPU).materialise(KEY))


def test_when_a_piece_fails_no_thread_writes_on() -> None:
    """As after Ctrl-C, or where memory is short: what is restored then stays restored."""
    running, finished = [], []

    def work(piece: int) -> None:
        running.append(piece)
        if piece == 3:
            raise MemoryError
        time.sleep(0.01)
        finished.append(piece)

    with mock.patch.object(compiled, "PIECE", 1):
        engine = CompiledNoise(100, Gaussian(), CPU, 2)
    with pytest.raises(MemoryError):
        engine._map(work, range(20))
    assert len(running) == 20
    assert len(finished) == 19


def test_a_kernel_that_no_folder_can_keep_is_compiled_all_the_same() -> None:
    with mock.patch.object(CacheImpl, "_locator_classes", []):
        with pytest.raises(RuntimeError, match="cannot cache function"):
            numba.njit(lambda x: x, cache=True)
        assert numba_kernels._kernel(lambda x: x + 1)(2) == 3


FUSED = """
import sys, torch
from kerzoo.noise import Gaussian, Rademacher, Sphere, derive_key
from kerzoo.noise.fused import FusedNoise
from kerzoo.noise.philox import counter_noise
device, size = torch.device(sys.argv[1]), 3 * 4096 + 77
stretches = [(slice(3, 10), 0.5), (slice(4000, 9000), -2.0), (slice(9000, size), 0.0)]
for law in (Gaussian(), Sphere(), Rademacher()):
    engine = FusedNoise(size, law, device)
    for key in (0, 2**64 - 1, derive_key(0, "directions")):
        expected = counter_noise(law, key, slice(0, size), torch.device("cpu"))
        if law.on_sphere:
            expected *= size**0.5 / float(expected.double().norm())
        assert (engine.materialise(key).cpu() - expected).abs().max() < 2e-5, (law, key)
    expected = engine.materialise(5)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        source = torch.linspace(-2, 2, size, device=device)
        found = torch.full_like(source, 7.0, dtype=dtype)
        engine.add(5, lambda _: stretches, source, found)
        wanted = torch.full_like(source, 7.0)
        for where, factor in stretches:
            wanted[where] = source[where] + factor * expected[where]
        error = (found.float() - wanted).abs()
        assert (error <= torch.finfo(dtype).eps * wanted.abs() + 2e-5).all(), (law, dtype)
        assert (found[10:4000] == 7.0).all() and (found[:3] == 7.0).all()
    exact = torch.linspace(-2, 2, size, device=device, dtype=torch.float64)
    found = torch.empty_like(exact)
    engine.add(5, lambda _: [(slice(0, size), 1e-12)], exact, found)
    assert 0 < (found - exact).abs().max() < 1e-11, law
    for part in (slice(0, 16), slice(16, 4111), slice(5, 8200), slice(8192, size)):
        shard = FusedNoise(size, law, device, part)
        assert torch.equal(shard.materialise(5), expected[part]), (law, part)
        source = torch.linspace(-2, 2, size, device=device)
        whole, found = source.clone(), source[part].clone()
        engine.add(5, lambda _: [(slice(0, size), 0.5)], whole, whole)
        shard.add(5, lambda where: [(where, 0.5)], found, found)
        assert torch.equal(found, whole[part]), (law, part)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_of_a_gpu_make_the_same_noise_in_tritons_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    assert _run_fused("cpu", environment) == "equal\n"


@pytest.mark.gpu
def test_the_kernels_of_a_gpu_make_the_same_noise_on_it() -> None:
    assert _run_fused("cuda", dict(os.environ)) == "equal\n"


@pytest.mark.gpu
@each_law
def test_torch_alone_makes_the_noise_of_the_kernels(law: Perturbation) -> None:
    device, size = torch.device("cuda"), (1 << 22) + 1001
    fused = noise_engine(size, law, device)
    assert not isinstance(fused, PlainNoise)
    plain = PlainNoise(size, law, device)
    assert float((fused.materialise(KEY) - plain.materialise(KEY)).abs().max()) < 2e-5


def _run_fused(device: str, environment: dict[str, str]) -> str:
    return _run_python(FUSED, environment, device).stdout


def _run_python(
    program: str, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done
