"""Counter-based noise: published test vectors, its law, and Triton's kernels against it."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kerzoo.noise import Gaussian, Perturbation, Rademacher, Sphere, derive_key, noise_engine
from kerzoo.noise.engine import ChunkedNoise
from kerzoo.noise.philox import counter_noise, philox

CPU = torch.device("cpu")
KEY = derive_key(0, "directions")
COUNT = 1 << 20
LAWS = (Gaussian(), Sphere(), Rademacher())
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
    assert not isinstance(fused, ChunkedNoise)
    plain = ChunkedNoise(size, law, device)
    assert float((fused.materialise(KEY) - plain.materialise(KEY)).abs().max()) < 2e-5


def _run_fused(device: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FUSED, device],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
