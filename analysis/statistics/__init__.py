"""Estimates, intervals and tests, each on plain arrays.

Functions of paired differences take an array whose last axis are the pairs and answer for all
leading axes at once, so that thousands of simulated studies go through the very code that
reads a real one.
"""

from __future__ import annotations

from analysis.statistics.distributions import (
    interquartile_interval,
    interquartile_mean,
    performance_profile,
)
from analysis.statistics.multiplicity import adjust_holm
from analysis.statistics.paired import Equivalence, PairedMean, equivalence, paired_mean, stratified
from analysis.statistics.permutation import attainable_size, sign_flip_p
from analysis.statistics.power import (
    equivalence_power,
    seeds_needed,
    smallest_detectable_effect,
    student_power,
)
from analysis.statistics.proportions import wilson_interval
from analysis.statistics.ranks import RankCorrelation, kendall, spearman
from analysis.statistics.survival import Survival, kaplan_meier
from analysis.statistics.weighting import (
    WeightedMean,
    control_share_needed,
    weighted_difference,
)

__all__ = [
    "Equivalence",
    "PairedMean",
    "RankCorrelation",
    "Survival",
    "WeightedMean",
    "adjust_holm",
    "attainable_size",
    "control_share_needed",
    "equivalence",
    "equivalence_power",
    "interquartile_interval",
    "interquartile_mean",
    "kaplan_meier",
    "kendall",
    "paired_mean",
    "performance_profile",
    "seeds_needed",
    "sign_flip_p",
    "smallest_detectable_effect",
    "spearman",
    "stratified",
    "student_power",
    "weighted_difference",
    "wilson_interval",
]
