"""The report: every registered table and figure, in one HTML file and as files of their own."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import matplotlib as mpl
from markupsafe import Markup

from analysis import comparison, figures, scores, standings_shown, tables, trials
from analysis.decision import decide, drop_screened
from analysis.formats import is_missing
from analysis.language import LANGUAGES, Language, load_language
from analysis.load import Study, load_study
from analysis.machine import write_json
from analysis.overview import describe, name_device, name_score
from analysis.registry import FIGURES, SECTIONS, TABLES, Exhibit, PanelGroup, Table
from analysis.sources import WANDB_PREFIX
from analysis.stages import plan_next
from analysis.style import SETTINGS, fix_layout, save_pdf, save_png, to_inline_svg
from analysis.summary import describe_stages, list_cautions, list_costs
from analysis.writers import write_table

EXHIBITS = (comparison, standings_shown, scores, trials, tables, figures)
"""The modules whose import registers the exhibits."""

FIRST = (
    "time_and_score",
    "confirmed_comparison",
    "best_at_final_rung",
    "best_at_first_rung",
    "curves",
)
"""Exhibits that stand before the others of their section."""

ODD_RECORDS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What an exhibit fails with on records that nobody thought of; the others are shown all the same,
and the report says which is missing and why."""

Shown = TypeVar("Shown")


@dataclasses.dataclass(frozen=True)
class ShownCell:
    """A cell of a table: its text and how it is set."""

    text: str
    numeric: bool
    bold: bool


@dataclasses.dataclass(frozen=True)
class ShownTable:
    """A table as the template takes it.

    Attributes:
        name: Names its files, and its place in the page.
        caption: What it shows.
        table: Its columns and note.
        rows: Its cells, where the template writes them.
        data: The same for the browser, which draws sortable tables itself; nothing otherwise.
    """

    name: str
    caption: str
    table: Table
    rows: list[list[ShownCell]]
    data: Markup


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


def write_report(
    folders: Sequence[Path],
    out: Path | None = None,
    language: str | None = None,
    baseline: str | None = None,
    tell: Callable[[str], None] = lambda warning: None,
) -> Path:
    """Write report.html, report.json, tables/ and figures/; see `analysis.build_report`."""
    folders = [Path(folder) for folder in folders]
    study = load_study(folders, baseline)
    for warning in study.warnings:
        tell(warning)
    words = load_language(language or _language_of(study))
    out = out or default_folder(folders, baseline)
    for name in ("tables", "figures"):
        (out / name).mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # A name in a script that the figures' font lacks: the page's own font has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        sections = list(_show_sections(study, out, words, faults))
    path = out / "report.html"
    draft = path.with_suffix(".html.tmp")
    draft.write_text(
        _render(study, sections, words, out, [*study.warnings, *faults]),
        encoding="utf-8",
        newline="\n",
    )
    draft.replace(path)  # whoever looks meanwhile sees a whole report
    return path


def default_folder(folders: Sequence[Path], baseline: str | None = None) -> Path:
    """Where a report goes that nobody gave a place: to the first folder, or beside us for W&B.

    One against another baseline than the plan's has a folder of its own in there.
    """
    first, *others = folders
    is_remote = str(first).startswith(WANDB_PREFIX)
    home = Path("results") / _name_source(first) if is_remote else first
    report = home / "report"
    if others:
        report /= f"with-{'-'.join(map(_name_source, others))}"
    return report / f"against-{_as_folder(baseline)}" if baseline else report


def _name_source(source: Path) -> str:
    """A source as the name of a folder: wandb:team/kerzoo as wandb-team-kerzoo."""
    is_remote = str(source).startswith(WANDB_PREFIX)
    name = str(source) if is_remote else source.resolve().name
    return _as_folder(name)


def _as_folder(name: str) -> str:
    """Words as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def _language_of(study: Study) -> str:
    """The language that the first plan asks for; English where it asks for none that is known."""
    config = study.sweeps[0].plan.get("config")
    asked = config.get("report") if isinstance(config, dict) else None
    code = asked.get("language") if isinstance(asked, dict) else None
    return code if code in LANGUAGES else LANGUAGES[0]


def _show_sections(
    study: Study, out: Path, words: Language, faults: list[str]
) -> Iterator[Section]:
    def show(form: Callable[..., Shown], exhibit: Exhibit[Any]) -> Shown | None:
        try:
            return form(exhibit, study, out)
        except ODD_RECORDS as error:
            faults.append(
                f"{exhibit.caption}: left out, as these records do not allow it "
                f"({type(error).__name__}: {error})."
            )
            return None

    for key in SECTIONS:
        shown_tables = [show(_show_table, e) for e in _list_exhibits(TABLES, key)]
        shown_figures = [show(_show_figure, e) for e in _list_exhibits(FIGURES, key)]
        yield Section(
            key,
            words.say(f"sections.{key}"),
            [shown for shown in shown_tables if shown],
            [shown for shown in shown_figures if shown],
        )


def _list_exhibits(registered: Mapping[str, Exhibit[Shown]], section: str) -> list[Exhibit[Shown]]:
    """The exhibits of a section, those of FIRST first, the others as they were registered."""
    chosen = [exhibit for exhibit in registered.values() if exhibit.section == section]
    order = {name: place for place, name in enumerate(FIRST)}
    return sorted(chosen, key=lambda exhibit: order.get(exhibit.name, len(order)))


def _show_table(exhibit: Exhibit[Table], study: Study, out: Path) -> ShownTable | None:
    table = exhibit.build(study)
    if table is None:
        return None
    write_table(table, exhibit.name, exhibit.caption, out / "tables")
    if not table.shown:
        return None
    if table.sortable:
        data = _embed(_list_rows(table, study))
        return ShownTable(exhibit.name, exhibit.caption, table, [], data)
    rows = [
        [ShownCell(c.text(record), c.numeric, c.is_bold(record)) for c in table.columns]
        for record in table.frame.to_dict("records")
    ]
    return ShownTable(exhibit.name, exhibit.caption, table, rows, Markup(""))


def _list_rows(table: Table, study: Study) -> dict[str, Any]:
    """A sortable table for the browser: each row's arm, status, texts, keys and command.

    A key is what a cell sorts by, where that is a number: null where there is none.
    """
    columns = table.columns
    records = table.frame.to_dict("records")
    axes = trials.list_axes(table) if "trial_id" in table.frame else []
    return {
        "columns": [{"label": c.label, "numeric": c.numeric} for c in columns],
        "axes": [dataclasses.asdict(axis) for axis in axes],
        "colors": trials.color_arms(study),
        "rows": [
            [
                str(record["arm"]),
                str(record["status"]),
                [column.text(record) for column in columns],
                [_sort_key(record[c.name]) if c.numeric else 0 for c in columns],
                str(record.get("command") or ""),
            ]
            for record in records
        ],
    }


def _sort_key(value: Any) -> float | str | None:
    if is_missing(value):
        return None
    if isinstance(value, int | float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return str(value)


def _embed(value: Any) -> Markup:
    """JSON that can stand in a script element whatever it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


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


def _render(
    study: Study, sections: Sequence[Section], words: Language, out: Path, warned: Sequence[str]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    decisions = decide(study)
    current = drop_screened(decisions)
    stages = plan_next(study, decisions)
    exhibits = {
        "tables": {t.name: t.caption for s in sections for t in s.tables},
        "figures": {f.name: f.caption for s in sections for f in s.figures},
    }
    write_json(out / "report.json", study, decisions, stages, exhibits, warned, now)
    device = name_device(study, words)
    descriptions = (str(s.plan.get("description") or "") for s in study.sweeps)
    return environment.get_template("report.html.j2").render(
        title=" and ".join(sweep.name for sweep in study.sweeps),
        descriptions=[text for text in dict.fromkeys(descriptions) if text],
        overviews=describe(study, current, words),
        stages=describe_stages(study, stages, device, current[0].arm, words),
        cautions=list_cautions(study, current, words),
        sections=sections,
        costs=list_costs(study),
        failures=trials.group_failures(study),
        warnings=warned,
        score_name=name_score(study, words),
        generated=now,
        words=words,
        say=words.say,
        texts=_embed(words.section("trials") | words.section("page")),
    )
