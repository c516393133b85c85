"""No early stopping."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from sweeps.halving import HalvingRule
from sweeps.schedulers.base import Scheduler


@dataclasses.dataclass(frozen=True)
class FIFO(Scheduler):
    """Every trial runs to the end of its budget, in the plan's order; no rung has a decision."""

    control_fraction: float = 0.0

    def decided_rungs(self, rungs: Sequence[int], bracket: int) -> tuple[int, ...]:
        """None."""
        return ()

    def cutoff(self, others: Iterable[float]) -> float:
        """Everything goes on."""
        return math.inf

    @property
    def rule(self) -> HalvingRule:
        """Stops nothing."""
        return HalvingRule(None)
