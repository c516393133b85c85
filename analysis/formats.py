"""Numbers as a reader sees them: the same everywhere in the report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MISSING = "–"
MINUS = "−"


def is_missing(value: Any) -> bool:
    """Whether there is nothing to show: None, or a float that is not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def format_text(value: Any) -> str:
    """Any value as plain text."""
    return MISSING if is_missing(value) or value == "" else str(value)


def format_count(value: Any) -> str:
    """A whole number with thousands separated: 1,728."""
    return MISSING if is_missing(value) else f"{round(float(value)):,}".replace("-", MINUS)


def format_level(value: Any) -> str:
    """The level of a factor, as one would type it: 0.01, 1e-6.

    >>> format_level(1e-06)
    '1e-6'
    """
    if is_missing(value):
        return MISSING
    mantissa, mark, exponent = f"{float(value):.4g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else mantissa


def format_loss(value: Any) -> str:
    """A loss with four decimals, with fewer where it is large."""
    if is_missing(value):
        return MISSING
    number = float(value)
    return f"{number:.4f}" if abs(number) < 100 else f"{number:.4g}"


def format_change(value: Any) -> str:
    """A change of a loss or an AUC, signed."""
    if is_missing(value):
        return MISSING
    return _signed(float(value), 4)


def format_score(value: Any) -> str:
    """A score between 0 and 1, in per cent: 57.4 %."""
    return MISSING if is_missing(value) else f"{100 * float(value):.1f} %"


def format_points(value: Any) -> str:
    """A change of a score, in percentage points, signed."""
    return MISSING if is_missing(value) else _signed(100 * float(value), 1)


def format_area(value: Any) -> str:
    """An area under the ROC curve."""
    return MISSING if is_missing(value) else f"{float(value):.3f}"


def format_seconds(value: Any) -> str:
    """Seconds, with one decimal below a hundred: 12.3, 1,338."""
    if is_missing(value):
        return MISSING
    return f"{float(value):.1f}" if float(value) < 100 else f"{float(value):,.0f}"


def format_duration(seconds: Any) -> str:
    """A duration in the unit that suits it: 38 s, 12.5 min, 3.2 h."""
    if is_missing(seconds):
        return MISSING
    number = float(seconds)
    if number < 120:
        return f"{number:.0f} s"
    return f"{number / 60:.1f} min" if number < 7200 else f"{number / 3600:.1f} h"


def format_gib(value: Any) -> str:
    """Memory in GiB."""
    if is_missing(value):
        return MISSING
    return f"{float(value):.2f}" if float(value) >= 0.1 else f"{float(value):.2g}"


def format_number(value: Any) -> str:
    """A number to three digits: 0.0312."""
    return MISSING if is_missing(value) else f"{float(value):.3g}".replace("-", MINUS)


def format_range(low: Any, high: Any, decimals: int = 4) -> str:
    """An interval: [−0.0120, 0.0034]; nothing where an end is missing."""
    if is_missing(low) or is_missing(high):
        return ""
    ends = (f"{float(end):.{decimals}f}".replace("-", MINUS) for end in (low, high))
    return "[{}, {}]".format(*ends)


def format_ranges(lows: Iterable[Any], highs: Iterable[Any], decimals: int = 4) -> list[str]:
    """Intervals, one for each pair of ends."""
    return [format_range(low, high, decimals) for low, high in zip(lows, highs, strict=True)]


def _signed(number: float, decimals: int) -> str:
    text = f"{abs(number):.{decimals}f}"
    if float(text) == 0:
        return f"±{text}"
    return f"{'+' if number > 0 else MINUS}{text}"
