"""Synchronous successive halving."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from sweeps.schedulers.asha import StratifiedASHA


@dataclasses.dataclass(frozen=True)
class SynchronousHalving(StratifiedASHA):
    """ASHA's rule at a rung where everybody has arrived; trials wait for each other, paused.

    Verdicts follow from the values alone: the same sweep has the same survivors on any cluster,
    at any timing and after any interruption. A trial that diverged or failed counts as arrived
    with the worst value, so that a rung never waits for a trial that cannot come; a control
    does not wait.

    Source: Jamieson & Talwalkar 2016, arXiv 1502.07943; strata, quota and controls are ours.
    """

    waits: ClassVar[bool] = True
