"""Batches: every example once an epoch, and a function of (seed, step) alone."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kerzoo.batches import BatchSampler


@st.composite
def samplers(draw: st.DrawFn) -> BatchSampler:
    size = draw(st.integers(1, 40))
    return BatchSampler(size, draw(st.integers(1, size)), draw(st.integers(0, 2**40)))


@given(samplers())
def test_every_example_comes_once_an_epoch(sampler: BatchSampler) -> None:
    epochs = 3
    steps = -(-epochs * sampler.num_examples // sampler.batch_size)
    seen = [i for step in range(steps) for i in sampler.indices(step)]
    for epoch in range(epochs):
        part = seen[epoch * sampler.num_examples : (epoch + 1) * sampler.num_examples]
        assert sorted(part) == list(range(sampler.num_examples))


@given(samplers(), st.lists(st.integers(0, 100), max_size=10))
def test_a_batch_depends_on_seed_and_step_alone(sampler: BatchSampler, order: list[int]) -> None:
    for step in order:
        twin = BatchSampler(sampler.num_examples, sampler.batch_size, sampler.seed)
        assert sampler.indices(step) == twin.indices(step)
        assert len(sampler.indices(step)) == sampler.batch_size


def test_batches_of_another_size_read_the_same_sequence() -> None:
    def first(batch_size: int) -> list[int]:
        sampler = BatchSampler(30, batch_size, seed=1)
        return [i for step in range(60 // batch_size) for i in sampler.indices(step)]

    assert first(5) == first(6) == first(20)


def test_another_seed_and_another_epoch_give_another_order() -> None:
    orders = {tuple(BatchSampler(50, 50, seed).indices(step)) for seed in (0, 1) for step in (0, 1)}
    assert len(orders) == 4


def test_the_first_example_is_uniform_over_seeds() -> None:
    """4 000 seeds, 8 examples, Pearson's χ² with 7 degrees of freedom at a false-alarm 1e-6."""
    counts = Counter(BatchSampler(8, 1, seed).indices(0)[0] for seed in range(4000))
    assert sum((counts[i] - 500) ** 2 / 500 for i in range(8)) < 40.5


def test_the_global_generators_are_neither_read_nor_changed() -> None:
    before = torch.get_rng_state()
    BatchSampler(1000, 10, seed=987).indices(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"training\.batch_size must not exceed the 7 training examples, got 8"
    ):
        BatchSampler(7, 8, seed=0)
