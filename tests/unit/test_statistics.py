"""The statistics against scipy, tables and hand calculations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import (
    adjust_holm,
    attainable_size,
    equivalence,
    equivalence_power,
    interquartile_mean,
    kaplan_meier,
    kendall,
    paired_mean,
    performance_profile,
    seeds_needed,
    sign_flip_p,
    smallest_detectable_effect,
    spearman,
    stratified,
    student_power,
    weighted_difference,
    wilson_interval,
)

DIFFERENCES = np.array([0.3, -0.1, 0.4, 0.25, 0.05, 0.6])


def test_the_paired_mean_is_scipys_one_sample_t_test() -> None:
    found, reference = paired_mean(DIFFERENCES), stats.ttest_1samp(DIFFERENCES, 0)
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_leading_axes_are_separate_studies() -> None:
    studies = np.stack([DIFFERENCES, DIFFERENCES - 0.2])
    found = paired_mean(studies)
    assert found.low.tolist() == [paired_mean(study).low for study in studies]


@pytest.mark.parametrize("differences", [[0.2], [0.2, 0.2, 0.2], []])
def test_without_spread_there_is_neither_interval_nor_p(differences: list[float]) -> None:
    found = paired_mean(differences)
    assert np.isnan([found.low, found.high, found.p]).all()


def test_a_difference_that_is_not_finite_is_refused() -> None:
    for function in (paired_mean, sign_flip_p):
        with pytest.raises(ValueError, match="finite"):
            function([0.1, np.nan])


def test_one_stratum_is_a_student_interval_and_two_are_a_welch_interval() -> None:
    assert stratified([DIFFERENCES])[:4] == pytest.approx(paired_mean(DIFFERENCES)[:4])
    other = np.array([0.5, -1.0, 0.9, 0.1])
    welch = stats.ttest_ind(DIFFERENCES, -other, equal_var=False)
    found = stratified([DIFFERENCES, other])
    assert found.p == pytest.approx(welch.pvalue)
    assert found.freedom == pytest.approx(welch.df)


def test_equivalence_is_two_one_sided_tests_and_agrees_with_its_interval() -> None:
    found = paired_mean(DIFFERENCES)
    for margin in (0.3, 0.5, 0.8):
        below = stats.ttest_1samp(DIFFERENCES, -margin, alternative="greater").pvalue
        above = stats.ttest_1samp(DIFFERENCES, margin, alternative="less").pvalue
        tested = equivalence(found, margin)
        assert tested.p == pytest.approx(max(below, above))
        assert (tested.p < 0.05) == (tested.low > -margin and tested.high < margin)
    with pytest.raises(ValueError, match="margin must be > 0, got 0"):
        equivalence(found, 0.0)


def test_the_sign_flip_p_counts_all_sign_vectors() -> None:
    sums = [abs(np.dot(s, DIFFERENCES)) for s in itertools.product((1, -1), repeat=6)]
    expected = np.mean(np.array(sums) >= abs(DIFFERENCES.sum()) - 1e-12)
    assert sign_flip_p(DIFFERENCES) == pytest.approx(expected)
    reference = stats.permutation_test(
        (DIFFERENCES,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(DIFFERENCES) == pytest.approx(reference.pvalue)


def test_five_pairs_never_go_below_a_sixteenth() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0]) == 0.0625
    assert attainable_size(5) == 0
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0


def test_many_pairs_are_flipped_at_random_and_near_the_exact_p() -> None:
    values = np.random.default_rng(5).normal(0.4, 1, 16)
    exact = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_p(values) == pytest.approx(exact, abs=4 * np.sqrt(exact / 9999))
    assert sign_flip_p(np.ones(40)) == 1e-4  # never zero


def test_holm_is_the_step_down_of_bonferroni() -> None:
    assert adjust_holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert adjust_holm([0.02, np.nan, 0.9])[[0, 2]] == pytest.approx([0.04, 0.9])
    assert np.isnan(adjust_holm([0.02, np.nan, 0.9])[1])


@pytest.mark.parametrize(("pairs", "effect"), [(5, 1.6820), (10, 0.9960), (20, 0.6604)])
def test_the_smallest_detectable_effect_has_power_080(pairs: int, effect: float) -> None:
    found = smallest_detectable_effect(1.0, pairs)
    assert student_power(found, 1.0, pairs) == pytest.approx(0.8)
    assert found == pytest.approx(effect, abs=2e-4)


def test_without_an_effect_the_power_is_the_level() -> None:
    assert student_power(0.0, 1.0, 7) == pytest.approx(0.05)
    assert student_power(100.0, 1.0, 7) == 1.0
    assert student_power(1.0, 1.0, 1) == 0.0


def test_equivalence_within_one_point_is_out_of_reach_of_few_seeds() -> None:
    powers = [equivalence_power(1.0, 2.0, pairs) for pairs in (5, 10, 20)]
    assert powers == pytest.approx([0.0203, 0.0655, 0.3935], abs=1e-4)


def test_the_seeds_needed_decide_one_way_or_the_other() -> None:
    assert seeds_needed(1.0, 1.0, margin=0.01) == 10
    assert student_power(1.0, 1.0, 10) >= 0.8 > student_power(1.0, 1.0, 9)
    null = seeds_needed(0.0, 2.0, margin=1.0)
    assert null is not None
    assert equivalence_power(1.0, 2.0, null) >= 0.8 > equivalence_power(1.0, 2.0, null - 1)
    assert seeds_needed(0.01, 100.0, margin=0.01) is None


def test_wilsons_interval_is_the_published_one() -> None:
    assert tuple(wilson_interval(7, 10)) == pytest.approx((0.7, 0.3968, 0.8922), abs=1e-4)
    assert wilson_interval(0, 5).low == 0
    assert np.isnan(wilson_interval(0, 0).rate)


def test_kaplan_and_meiers_curve_is_that_of_a_hand_calculation() -> None:
    found = kaplan_meier([1, 2, 2, 3, 4, 5], [True, True, False, True, False, True])
    # at risk 6, 5, 3, 1: survival 5/6, 5/6·4/5, 2/3·2/3, 0
    assert found.times.tolist() == [1, 2, 3, 5]
    assert found.share == pytest.approx([1 / 6, 1 / 3, 5 / 9, 1])
    assert found.worst == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6])
    assert (found.median, found.worst_median) == (3, 3)
    assert (found.worst <= found.share + 1e-12).all()


def test_a_target_that_nobody_reaches_has_no_median() -> None:
    found = kaplan_meier([3.0, 4.0], [False, False])
    assert found.times.size == 0
    assert np.isnan(found.median)


def test_the_interquartile_mean_and_profiles_are_those_of_hand_calculations() -> None:
    assert interquartile_mean(range(8)) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert np.isnan(interquartile_mean([]))
    assert performance_profile([0.2, 0.4, 0.9, -np.inf], [0.2, 0.5]).tolist() == [0.75, 0.25]


def test_without_dropped_trials_the_difference_is_that_of_the_means() -> None:
    generator = np.random.default_rng(2)
    values, nobody = generator.normal(0, 1, 21), np.zeros(21, dtype=bool)
    ours = np.arange(21) < 12
    found = weighted_difference(values, nobody, ~nobody, ours, np.arange(21))
    assert found.mean == pytest.approx(values[ours].mean() - values[~ours].mean())
    low, high = stats.ttest_ind(values[ours], values[~ours], equal_var=False).confidence_interval()
    assert found.high - found.low == pytest.approx(high - low, rel=0.05)


def test_pairs_as_units_have_the_interval_of_their_differences() -> None:
    values = np.concatenate([DIFFERENCES + np.arange(6), np.arange(6)])
    nobody = np.zeros(12, dtype=bool)
    units = np.tile(np.arange(6), 2)
    found = weighted_difference(values, nobody, ~nobody, np.arange(12) < 6, units)
    expected = paired_mean(DIFFERENCES)
    assert found[:3] == pytest.approx((expected.mean, expected.low, expected.high))


def test_a_control_stands_for_the_dropped_trials_of_its_arm_that_converged() -> None:
    values = [1.0, np.nan, 3.0, np.nan, np.nan, 0.0, 1.0]
    dropped = [False, True, True, True, True, False, False]
    seen = [True, False, True, True, False, True, True]  # the second control diverged
    found = weighted_difference(values, dropped, seen, np.arange(7) < 5, np.arange(7))
    # four were dropped, two of them seen: 3.0 weighs two, and so does the one that diverged
    assert found.mean == pytest.approx((1.0 + 2 * 3.0) / 3 - 0.5)
    assert found.controls == 2


def test_without_controls_nothing_is_said_of_dropped_trials() -> None:
    found = weighted_difference(
        [1.0, np.nan, 0.0], [False, True, False], [True, False, True], [1, 1, 0], [0, 1, 2]
    )
    assert np.isnan(found[:3]).all()


def test_rank_correlations_are_scipys_and_have_an_interval_from_five_pairs_on() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 3.0, 5.0, 4.0, 6.0]
    rho, tau = spearman(first, second), kendall(first, second)
    assert rho.value == pytest.approx(stats.spearmanr(first, second).statistic)
    assert tau.value == pytest.approx(stats.kendalltau(first, second).statistic)
    assert rho.low < rho.value < rho.high < 1
    assert np.isnan(spearman(first[:4], second[:4]).low)
    assert np.isnan(spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).value)
    with pytest.raises(ValueError, match="finite"):
        kendall([1.0, np.nan, 2.0], [1.0, 2.0, 3.0])
