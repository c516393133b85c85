"""The tables and figures of the report: each is one decorated function.

A function takes the study and returns its table or figure, or None where there is nothing to
show. Its docstring's first line is the caption. Registering it is all it takes to appear in the
report and to be written to files.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pandas as pd

from analysis.formats import format_text
from analysis.load import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECTIONS = ("best", "cells", "curves", "heat", "rungs", "arms", "cost")
"""Where an exhibit can stand, in the order of the report."""

Shown = TypeVar("Shown")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table as it is shown.

    Attributes:
        name: The frame's column, and its name in the CSV.
        label: The heading.
        format: A value as text.
        numeric: Whether it is set flush right.
        spread: The frame's column with the standard deviation over seeds, if there is one.
        spread_form: How value and spread are written.
        bold: Whether a row's cell is set in bold; never, by default.
    """

    name: str
    label: str
    format: Callable[[Any], str] = format_text
    numeric: bool = False
    spread: str | None = None
    spread_form: str = "{} ± {}"
    bold: Callable[[Mapping[str, Any]], bool] | None = None

    def text(self, row: Mapping[str, Any]) -> str:
        """The column's cell in a row, with its spread where that is known."""
        shown = self.format(row[self.name])
        spread = row.get(self.spread) if self.spread else None
        if spread is None or pd.isna(spread) or pd.isna(row[self.name]):
            return shown
        return self.spread_form.format(shown, self.format(spread).lstrip("+±"))

    def is_bold(self, row: Mapping[str, Any]) -> bool:
        """Whether the column's cell in a row is set in bold."""
        return self.bold is not None and self.bold(row)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: its values, and which of them are shown how.

    Attributes:
        frame: The values; a sortable one needs `arm` and `status`.
        columns: What is shown, in order.
        note: What a reader must know to read it.
        sortable: Whether the browser may sort and filter it.
        shown: Whether it stands in the report, or among the files alone.
    """

    frame: pd.DataFrame
    columns: tuple[Column, ...]
    note: str = ""
    sortable: bool = False
    shown: bool = True


@dataclasses.dataclass(frozen=True)
class Panel:
    """One drawing of a figure.

    Attributes:
        name: Distinguishes the figure's files: FIGURE-NAME.png; the figure's own where empty.
        drawing: The drawing.
        description: What it shows, for those who do not see it.
    """

    name: str
    drawing: Figure
    description: str


@dataclasses.dataclass(frozen=True)
class PanelGroup:
    """The panels of a figure, and what a reader must know to read them."""

    panels: list[Panel]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Exhibit(Generic[Shown]):
    """A registered table or figure: where it stands, its caption, and what makes it."""

    name: str
    section: str
    caption: str
    build: Callable[[Study], Shown | None]


MAX_PANELS = 6
"""Of a figure with a panel for each context or factor; the tables hold the rest."""


def context_column(study: Study) -> tuple[Column, ...]:
    """The column that says which context a row is of, where there are several."""
    return (Column("context", "Study"),) if len(study.contexts) > 1 else ()


TABLES: dict[str, Exhibit[Table]] = {}
FIGURES: dict[str, Exhibit[PanelGroup]] = {}

TableFunction = Callable[[Study], Table | None]
FigureFunction = Callable[[Study], PanelGroup | None]


def table(section: str) -> Callable[[TableFunction], TableFunction]:
    """Register a function as a table of a section; its name names the files."""

    def register(function: TableFunction) -> TableFunction:
        _add(TABLES, section, function)
        return function

    return register


def figure(section: str) -> Callable[[FigureFunction], FigureFunction]:
    """Register a function as a figure of a section; its name names the files."""

    def register(function: FigureFunction) -> FigureFunction:
        _add(FIGURES, section, function)
        return function

    return register


def _add(
    registry: dict[str, Exhibit[Shown]],
    section: str,
    function: Callable[[Study], Shown | None],
) -> None:
    name = function.__name__
    if section not in SECTIONS:
        raise ValueError(f"{name}: section must be one of {', '.join(SECTIONS)}, got {section!r}")
    if name in registry:
        raise ValueError(f"{name}: the name must be new, got one that is registered already")
    caption = (inspect.getdoc(function) or name).splitlines()[0].rstrip(".")
    registry[name] = Exhibit(name, section, caption, function)
