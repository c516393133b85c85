"""HyperBand: several synchronous halvings that begin to stop trials at different rungs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from sweeps.schedulers.halving import SynchronousHalving


@dataclasses.dataclass(frozen=True)
class HyperBand(SynchronousHalving):
    """Bracket b of K rungs stops nobody before its rung b + 1, for b = 0 … K − 1.

    It hedges against first rungs that mislead: bracket 0 is synchronous halving, the last stops
    nobody. A trial's bracket is drawn at planning and recorded in plan.json; the bracket with s
    halvings has weight ⌈K/(s + 1) · η^s⌉, which gives all brackets about the same cost. Only
    trials of one bracket are compared, and the quota holds in each.

    Source: Li et al. 2018, JMLR 18(185), algorithm 1.
    """

    def decided_rungs(self, rungs: Sequence[int], bracket: int) -> tuple[int, ...]:
        """Without the first `bracket` of them."""
        return tuple(rungs[bracket:-1])

    def bracket_weights(self, num_rungs: int) -> list[float]:
        """By bracket, the one with most halvings first."""
        return [
            float(math.ceil(num_rungs / (s + 1) * self.reduction_factor**s))
            for s in reversed(range(max(1, num_rungs)))
        ]
