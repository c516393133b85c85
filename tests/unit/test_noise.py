"""Keyed noise: independent of threads and of the global generator, and Gaussian."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from kerzoo.noise import Gaussian, derive_key, noise_engine, uniform_from_key
from kerzoo.noise.compiled import SMALL

CPU = torch.device("cpu")
LENGTH = 5 * SMALL + 123


def direction(key: int, threads: int = 1, length: int = LENGTH) -> torch.Tensor:
    return noise_engine(length, Gaussian(), CPU, threads).materialise(key)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_noise_is_bit_identical_for_any_number_of_threads(threads: int) -> None:
    assert torch.equal(direction(7), direction(7, threads))


def test_noise_depends_on_the_offset_alone_and_not_on_the_length() -> None:
    assert torch.equal(direction(7)[:1000], direction(7, length=1000))


def test_noise_leaves_the_global_generator_untouched() -> None:
    before = torch.get_rng_state()
    direction(3, threads=2)
    assert torch.equal(before, torch.get_rng_state())


def test_noise_is_standard_normal() -> None:
    """Mean, variance, fourth moment and lag-one correlation at |z| < 5: 1 false alarm in 10^5."""
    noise = direction(11).double()
    count = len(noise)
    scale = math.sqrt(count)
    assert abs(float(noise.mean())) * scale < 5
    assert abs(float(noise.square().mean()) - 1) * scale / math.sqrt(2) < 5
    assert abs(float(noise.pow(4).mean()) - 3) * scale / math.sqrt(96) < 5
    assert abs(float((noise[1:] * noise[:-1]).mean())) * scale < 5


def test_directions_of_neighbouring_steps_are_uncorrelated() -> None:
    """Ten pairs at |z| < 5: fewer than 1 false alarm in 10^5."""
    noises = [direction(derive_key(0, "directions", step)).double() for step in range(5)]
    for a, b in itertools.combinations(noises, 2):
        assert abs(float((a * b).mean())) * math.sqrt(LENGTH) < 5


def test_streams_steps_directions_and_seeds_have_keys_of_their_own() -> None:
    keys = {
        derive_key(seed, stream, step, index)
        for seed in range(3)
        for stream in ("batches", "directions", "radii", "initialisation")
        for step in range(5)
        for index in range(3)
    }
    assert len(keys) == 3 * 4 * 5 * 3


def test_uniform_numbers_from_keys_are_uniform() -> None:
    """Kolmogorov-Smirnov at 1.95/√n: about 1 false alarm in 1000 sets of keys; this set passes."""
    values = sorted(uniform_from_key(derive_key(0, "radii", step)) for step in range(4000))
    distance = max(abs(v - (i + 0.5) / 4000) for i, v in enumerate(values))
    assert distance < 1.95 / math.sqrt(4000)
    assert values[0] >= 0
    assert values[-1] < 1


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        noise_engine(10, Gaussian(), CPU, 0)
