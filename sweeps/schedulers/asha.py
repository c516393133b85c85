"""Asynchronous successive halving with strata, a quota and controls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable

from sweeps.halving import HalvingRule
from sweeps.schedulers.base import Scheduler, nth_best


@dataclasses.dataclass(frozen=True)
class StratifiedASHA(Scheduler):
    """Judges a trial the moment it arrives, against those that arrived before.

    Of m trials at a rung so far, the arriving one included, it goes on if it is among the best
    max(1, ⌊m/η⌋), or among the best `survivors_per_arm` of its own arm. Which trials survive
    depends on the order of arrival; their order of start is shuffled by the plan's seed.

    Args:
        reduction_factor: η > 1.
        survivors_per_arm: The quota, ≥ 0: early stopping never takes an arm, or the baseline,
            out of the comparison. 0 for plain ASHA.

    Source: Li et al. 2020, arXiv 1810.05934, in the form that stops a trial instead of promoting
    it; strata, quota and controls are ours.
    """

    reduction_factor: float = 3.0
    survivors_per_arm: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.reduction_factor) and self.reduction_factor > 1):
            raise ValueError(f"reduction_factor must be > 1, got {self.reduction_factor}")
        if self.survivors_per_arm < 0:
            raise ValueError(f"survivors_per_arm must be ≥ 0, got {self.survivors_per_arm}")

    @property
    def rule(self) -> HalvingRule:
        """Its own."""
        return HalvingRule(self.reduction_factor, self.survivors_per_arm)

    @property
    def quota(self) -> int:
        """`survivors_per_arm`."""
        return self.survivors_per_arm

    def cutoff(self, others: Iterable[float]) -> float:
        """The value of the last of the best max(1, ⌊m/η⌋)."""
        values = others if isinstance(others, Collection) else list(others)
        return nth_best(values, self.rule.num_kept(len(values)))
