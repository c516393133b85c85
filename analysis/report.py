"""The report: every registered table and figure, in one HTML file and as files of their own."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from markupsafe import Markup

from analysis import comparison, figures, scores, tables
from analysis.formats import is_missing
from analysis.load import Study, load_study
from analysis.registry import FIGURES, SECTIONS, TABLES, Exhibit, PanelGroup, Table
from analysis.style import SETTINGS, fix_layout, save_pdf, save_png, to_inline_svg
from analysis.summary import list_cautions, list_costs, summarise
from analysis.writers import write_table

EXHIBITS = (comparison, scores, tables, figures)
"""The modules whose import registers the exhibits."""

HEADINGS = {
    "best": "Best cell of each arm",
    "cells": "All cells",
    "curves": "Curves",
    "heat": "Where each arm works",
    "rungs": "Rungs",
    "arms": "Arms",
    "cost": "Plan and cost",
}


@dataclasses.dataclass(frozen=True)
class ShownCell:
    """A cell of a table: its text, what it sorts by, and how it is set."""

    text: str
    key: str
    numeric: bool
    bold: bool


@dataclasses.dataclass(frozen=True)
class ShownTable:
    """A table as the template takes it: rows of (status or nothing, cells)."""

    name: str
    caption: str
    table: Table
    rows: list[tuple[str, list[ShownCell]]]


@dataclasses.dataclass(frozen=True)
class ShownFigure:
    """A figure as the template takes it."""

    name: str
    caption: str
    note: str
    drawings: list[Markup]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report."""

    key: str
    heading: str
    tables: list[ShownTable]
    figures: list[ShownFigure]


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write report.html, tables/ and figures/; see `analysis.build_report`."""
    folders = [Path(folder) for folder in folders]
    study = load_study(folders)
    out = out or _default_folder(folders)
    for name in ("tables", "figures"):
        (out / name).mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(SETTINGS):
        sections = list(_show_sections(study, out))
    path = out / "report.html"
    path.write_text(_render(study, sections), encoding="utf-8", newline="\n")
    return path


def _default_folder(folders: Sequence[Path]) -> Path:
    first, *others = folders
    report = first / "report"
    return report / f"with-{'-'.join(o.resolve().name for o in others)}" if others else report


def _show_sections(study: Study, out: Path) -> Iterator[Section]:
    for key in SECTIONS:
        shown_tables = [_show_table(e, study, out) for e in TABLES.values() if e.section == key]
        shown_figures = [_show_figure(e, study, out) for e in FIGURES.values() if e.section == key]
        yield Section(
            key,
            HEADINGS[key],
            [shown for shown in shown_tables if shown],
            [shown for shown in shown_figures if shown],
        )


def _show_table(exhibit: Exhibit[Table], study: Study, out: Path) -> ShownTable | None:
    table = exhibit.build(study)
    if table is None:
        return None
    write_table(table, exhibit.name, exhibit.caption, out / "tables")
    rows = []
    for record in table.frame.to_dict("records"):
        cells = [
            ShownCell(
                column.text(record),
                _sort_key(record[column.name]),
                column.numeric,
                column.is_bold(record),
            )
            for column in table.columns
        ]
        rows.append((str(record["status"]) if table.sortable else "", cells))
    return ShownTable(exhibit.name, exhibit.caption, table, rows)


def _sort_key(value: Any) -> str:
    return "" if is_missing(value) else str(value)


def _show_figure(exhibit: Exhibit[PanelGroup], study: Study, out: Path) -> ShownFigure | None:
    group = exhibit.build(study)
    if group is None:
        return None
    drawings = []
    for panel in group.panels:
        name = f"{exhibit.name}-{panel.name}" if panel.name else exhibit.name
        fix_layout(panel.drawing)
        save_png(panel.drawing, out / "figures" / f"{name}.png")
        drawings.append(Markup(to_inline_svg(panel.drawing, name, panel.description)))
    save_pdf([panel.drawing for panel in group.panels], out / "figures" / f"{exhibit.name}.pdf")
    return ShownFigure(exhibit.name, exhibit.caption, group.note, drawings)


def _render(study: Study, sections: Sequence[Section]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    failed = study.trials[study.trials["failure_kind"] != ""]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return environment.get_template("report.html.j2").render(
        title=" and ".join(sweep.name for sweep in study.sweeps),
        descriptions=list(
            dict.fromkeys(str(s.plan.get("description") or "") for s in study.sweeps)
        ),
        summary=summarise(study),
        cautions=list_cautions(study),
        sections=sections,
        costs=list_costs(study),
        failures=failed.to_dict("records"),
        warnings=study.warnings,
        score_name=study.score_name,
        generated=now,
    )
