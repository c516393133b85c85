"""Intervals drawn into the first page's table, on a common scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from analysis.standings import Estimate

BAR_WIDTH, BAR_HEIGHT = 120, 16
"""Of a drawn interval, in CSS pixels."""


class Scale:
    """A common scale for drawn intervals, with a broken line at the baseline."""

    def __init__(
        self, estimates: Sequence[Estimate], reference: float, start: float | None = None
    ) -> None:
        values = [v for e in estimates for v in (e.mean, e.low, e.high) if not math.isnan(v)]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
        self.low = low - room if start is None else start
        self.high = high + room
        self.is_bar = start is not None
        self.reference = reference

    def place(self, value: float) -> str:
        """Where a value lies, in pixels from the left."""
        return f"{BAR_WIDTH * (value - self.low) / (self.high - self.low):.1f}"

    def draw(self, estimate: Estimate) -> Markup:
        """The interval as a line, the mean as a dot, or as a bar from the start."""
        if math.isnan(estimate.mean):
            return Markup("")
        middle, mean = BAR_HEIGHT / 2, self.place(estimate.mean)
        parts = []
        if not math.isnan(self.reference):
            x = self.place(self.reference)
            parts.append(f'<line class="base" x1="{x}" x2="{x}" y1="0" y2="{BAR_HEIGHT}"/>')
        if self.is_bar:
            parts.append(f'<rect class="bar" x="0" y="4" width="{mean}" height="8"/>')
        if not math.isnan(estimate.low):
            ends = self.place(max(estimate.low, self.low)), self.place(estimate.high)
            parts.append(
                f'<line class="span" x1="{ends[0]}" x2="{ends[1]}" y1="{middle}" y2="{middle}"/>'
            )
        parts.append(f'<circle class="dot" cx="{mean}" cy="{middle}" r="4"/>')
        return Markup(
            f'<svg class="interval" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" width="{BAR_WIDTH}" '
            f'height="{BAR_HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>'
        )
