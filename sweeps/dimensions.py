"""What a swept key takes its values from: a list, or something to draw from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from sweeps.compose import ConfigError

DIGITS = 6
"""Significant digits of a drawn number: few enough that no id hangs on a libm's last bit."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included.

    Uniform, or uniform in the logarithm: low^(1−u) · high^u for u uniform in [0, 1). An integer is
    ⌊x⌋ of such an x in [low, high + 1).

    Args:
        low: The least value.
        high: The greatest.
        log: Whether the logarithm is uniform; low must then be > 0.
        integer: Whether only integers are drawn.

    Raises:
        ValueError: For bounds that are no range.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if not _is_number(value):
                raise ValueError(f"{name} must be a finite number, got {value!r}")
            if self.integer and value != int(value):
                raise ValueError(f"{name} must be whole where integer is true, got {value!r}")
        for name in ("log", "integer"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be > 0 where log is true, got {self.low}")

    def at(self, u: float) -> float | int:
        """The value at a coordinate in [0, 1)."""
        high = self.high + 1 if self.integer else self.high
        if self.log:
            value = math.exp((1 - u) * math.log(self.low) + u * math.log(high))
        else:
            value = self.low + u * (high - self.low)
        if self.integer:
            return int(min(max(math.floor(value), self.low), self.high))
        return min(max(float(f"{value:.{DIGITS}g}"), float(self.low)), float(self.high))

    def __contains__(self, value: Any) -> bool:
        if not _is_number(value) or (self.integer and value != int(value)):
            return False
        return bool(self.low <= value <= self.high)


@dataclasses.dataclass(frozen=True)
class Choices:
    """One of some values, each as likely.

    Args:
        values: At least one.
    """

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at a coordinate in [0, 1)."""
        return self.values[self.place(u)]

    def place(self, u: float) -> int:
        """Where the value at a coordinate stands."""
        return min(int(u * len(self.values)), len(self.values) - 1)

    def __contains__(self, value: Any) -> bool:
        return value in self.values


Dimension = list[Any] | Range | Choices


def read_dimension(key: str, values: Any) -> Dimension:
    """What a space's entry stands for.

    Args:
        key: For messages, such as "space.arm".
        values: A list; or {low, high, log, integer}; or {choices: a list}.

    Raises:
        ConfigError: If it is none of these.
    """
    if isinstance(values, list) and values:
        return list(values)
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{key}: must be a list with at least one value, got {values!r}; or, to draw from, "
            "{low: …, high: …} or {choices: […]}"
        )
    keys = set(values)
    if keys == {"choices"}:
        choices = values["choices"]
        if not isinstance(choices, list) or not choices:
            raise ConfigError(
                f"{key}.choices: must be a list with at least one value, got {choices!r}"
            )
        return Choices(tuple(choices))
    if not {"low", "high"} <= keys <= {"low", "high", "log", "integer"}:
        raise ConfigError(
            f"{key}: a range has low and high, and log and integer if wanted; or choices alone; "
            f"got {', '.join(map(str, values)) or 'nothing'}"
        )
    try:
        return Range(**{str(name): value for name, value in values.items()})
    except ValueError as error:
        raise ConfigError(f"{key}.{error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
