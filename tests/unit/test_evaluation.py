"""The area under the ROC curve, against counting every pair."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kerzoo.evaluation import area_under_curve

# A few values, so that ties are common, and any others.
SCORES = st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.floats(-1e6, 1e6))
EXAMPLES = st.lists(st.tuples(SCORES, st.integers(0, 1)), min_size=1, max_size=40)


def tensors(examples: list[tuple[float, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.tensor([score for score, _ in examples], dtype=torch.float64)
    return scores, torch.tensor([label for _, label in examples])


def count_pairs(examples: list[tuple[float, int]]) -> float | None:
    """P(positive above negative) + ½ P(equal) over all pairs."""
    pairs = [(p, n) for p, a in examples if a for n, b in examples if not b]
    if not pairs:
        return None
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


@given(EXAMPLES)
def test_the_area_is_the_share_of_pairs_in_the_right_order(
    examples: list[tuple[float, int]],
) -> None:
    assert area_under_curve(*tensors(examples)) == pytest.approx(count_pairs(examples), abs=1e-12)


@given(EXAMPLES)
def test_turning_the_scores_round_turns_the_area_round(examples: list[tuple[float, int]]) -> None:
    scores, labels = tensors(examples)
    area, turned = area_under_curve(scores, labels), area_under_curve(-scores, labels)
    assert (area is None) == (turned is None)
    if area is not None and turned is not None:
        assert area + turned == pytest.approx(1.0, abs=1e-12)


@given(EXAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(
    examples: list[tuple[float, int]], random: object
) -> None:
    shuffled = list(examples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert area_under_curve(*tensors(shuffled)) == area_under_curve(*tensors(examples))


def test_a_perfect_an_inverted_and_an_undecided_order() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    assert area_under_curve(torch.tensor([1.0, 2.0, 3.0, 4.0]), labels) == 1.0
    assert area_under_curve(torch.tensor([4.0, 3.0, 2.0, 1.0]), labels) == 0.0
    assert area_under_curve(torch.full((4,), 0.25), labels) == 0.5


def test_a_tie_between_a_positive_and_a_negative_counts_half() -> None:
    assert area_under_curve(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0, 0, 1])) == 0.75


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_there_is_no_area_when_a_label_does_not_occur(labels: list[int]) -> None:
    assert area_under_curve(torch.tensor([0.1, 0.2, 0.3]), torch.tensor(labels)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_there_is_no_area_when_a_score_is_not_finite(value: float) -> None:
    assert area_under_curve(torch.tensor([0.1, value]), torch.tensor([0, 1])) is None
