"""The rule of early stopping, apart from whoever runs the trials."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class HalvingRule:
    """Asynchronous successive halving (ASHA), with a quota for each arm.

    Of m trials that reached a rung so far, the arriving one included, it goes on if it is among
    the best max(1, ⌊m/η⌋) of them, or among the best `survivors_per_arm` of its own arm: early
    stopping then never takes an arm, or the baseline, out of the comparison. Ties go on; a value
    that is not finite never does.

    Args:
        reduction_factor: η > 1; None stops nothing (FIFO).
        survivors_per_arm: The quota; 0 for plain ASHA.

    Source: Li et al. 2020, arXiv 1810.05934, in the form that stops a trial instead of promoting
    it; the quota is ours.
    """

    reduction_factor: float | None
    survivors_per_arm: int = 0

    def num_kept(self, num_others: int) -> int:
        """How many go on of all trials at a rung where an arriving one meets `num_others`."""
        if self.reduction_factor is None:
            return num_others + 1
        return max(1, math.floor((num_others + 1) / self.reduction_factor))

    def goes_on(self, value: float, others: Iterable[float], own: Iterable[float]) -> bool:
        """Whether a trial goes on; lower values are better.

        Args:
            value: The trial's own.
            others: Of the other trials at its rung.
            own: Of those among them that have its arm.
        """
        others = list(others)
        return is_among_best(value, others, self.num_kept(len(others))) or is_among_best(
            value, own, self.survivors_per_arm
        )

    def fractions_running(self, num_rungs: int, num_trials: int, num_arms: int) -> list[float]:
        """Expected share of the trials that runs each segment between rungs, the first being 1.

        For trials that arrive in random order, arms in turn. The i-th trial at a rung survives
        with the probability of the larger of the two chances that the rule gives it.
        """
        fractions = [1.0]
        alive = float(num_trials)
        for _ in range(num_rungs - 1):
            alive = self._expected_survivors(round(alive), num_arms)
            fractions.append(alive / num_trials)
        return fractions

    def _expected_survivors(self, num_trials: int, num_arms: int) -> float:
        return math.fsum(
            max(
                self.num_kept(i - 1) / i,
                min(1.0, self.survivors_per_arm / math.ceil(i / num_arms)),
            )
            for i in range(1, num_trials + 1)
        )


def is_among_best(value: float, others: Iterable[float], kept: int) -> bool:
    """Whether fewer than `kept` of the others are strictly better than a finite value."""
    return math.isfinite(value) and sum(other < value for other in others) < kept
