"""What counts as a difference worth having, as the sweep's configuration says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from analysis.load import Study


@dataclasses.dataclass(frozen=True)
class Margins:
    """Differences within ±margin are as good as none.

    Attributes:
        score: Of accuracy or F1, as a fraction: .01 is one point.
        loss: Of a loss.
        auc: Of an area under the ROC curve.
        cost: Of a cost, as a ratio less one: .05 is five per cent.
    """

    score: float = 0.01
    loss: float = 0.01
    auc: float = 0.01
    cost: float = 0.05


def margins_of(study: Study) -> Margins:
    """The `margins` of the first sweep that says any; what is no positive number is the default."""
    for sweep in study.sweeps:
        given = (sweep.plan.get("config") or {}).get("margins")
        if isinstance(given, dict):
            names = [field.name for field in dataclasses.fields(Margins)]
            return Margins(**{n: float(given[n]) for n in names if _is_positive(given.get(n))})
    return Margins()


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0
