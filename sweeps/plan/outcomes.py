"""What the trials of a cell came to, over its seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from kerzoo.records import Row


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What trials that differ in the seed alone came to.

    Attributes:
        is_finished: Whether all ran to their end; otherwise some were stopped.
        rung: The last that all reached.
        loss: Their mean dev loss there.
    """

    is_finished: bool
    rung: int
    loss: float

    @property
    def order(self) -> tuple[bool, int, float]:
        """The best is the least: what finished first, then what came further, then by loss."""
        return not self.is_finished, -self.rung, self.loss


def outcome_of(
    trials: Sequence[str], statuses: Mapping[str, str], rows: Mapping[str, Sequence[Row]]
) -> Outcome | None:
    """The outcome of ended trials.

    Returns:
        None where one of them diverged or failed, or was never evaluated after an update.
    """
    losses = [losses_at_rungs(rows[trial]) for trial in trials]
    ended = {statuses[trial] for trial in trials}
    common = set.intersection(*map(set, losses)) if losses else set()
    if not ended <= {"finished", "stopped"} or not common:
        return None
    rung = max(common)
    loss = math.fsum(seed[rung] for seed in losses) / len(losses)
    return Outcome(ended == {"finished"}, rung, loss)


def losses_at_rungs(rows: Sequence[Row]) -> dict[int, float]:
    """Rung → dev loss, after step 0; nothing for a trial that diverged."""
    if any(row["diverged"] for row in rows):
        return {}
    return {int(row["rung"]): float(row["dev_loss"]) for row in rows if row["step"] > 0}
