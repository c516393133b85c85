"""Tables as files: CSV with the values as they are, Markdown and LaTeX as they are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis.formats import MINUS, MISSING
from analysis.registry import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "ε": r"$\varepsilon$",
    "Δ": r"$\Delta$",
    "\n": " ",
    MINUS: r"$-$",
    MISSING: "--",
}


def escape_latex(text: str) -> str:
    """Text in which LaTeX finds no command: underscores, per cent signs and the like escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def escape_markdown(text: str) -> str:
    """Text that can stand in a cell of a Markdown table: neither markup nor HTML."""
    marked = "".join(f"\\{c}" if c in "\\|_*`[]~" else c for c in text.replace("\n", " "))
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shown_rows(table: Table, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    """The table's rows as text, without the heading.

    Args:
        table: The table.
        escape: What makes a cell's text safe.
        bold: The form of a cell in bold.
    """
    return [
        [
            (bold if column.is_bold(record) else "{}").replace("{}", escape(column.text(record)))
            for column in table.columns
        ]
        for record in table.frame.to_dict("records")
    ]


def to_csv(table: Table) -> str:
    """The shown columns and their spreads, to ten digits, under their own names."""
    names = [
        name
        for column in table.columns
        for name in (column.name, column.spread)
        if name is not None
    ]
    return str(table.frame[names].to_csv(index=False, float_format="%.10g", lineterminator="\n"))


def to_markdown(table: Table, caption: str) -> str:
    """The table in GitHub's Markdown, caption above and note below."""
    heading = [escape_markdown(column.label) for column in table.columns]
    rule = ["---:" if column.numeric else ":---" for column in table.columns]
    body = shown_rows(table, escape_markdown, "**{}**")
    lines = ["| " + " | ".join(cells) + " |" for cells in (heading, rule, *body)]
    return "\n".join([f"**{caption}**", "", *lines, *(["", table.note] if table.note else []), ""])


def to_latex(table: Table, name: str, caption: str) -> str:
    """The table as a LaTeX float; needs the package booktabs."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    heading = " & ".join(escape_latex(column.label) for column in table.columns)
    body = [" & ".join(row) + r" \\" for row in shown_rows(table, escape_latex, r"\textbf{{}}")]
    text = escape_latex(". ".join(part for part in (caption, table.note) if part))
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{text}}}",
        rf"  \label{{tab:{name.replace('_', '-')}}}",
        rf"  \begin{{tabular}}{{{align}}}",
        r"    \toprule",
        rf"    {heading} \\",
        r"    \midrule",
        *(f"    {line}" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def write_table(table: Table, name: str, caption: str, folder: Path) -> None:
    """Write NAME.csv, NAME.md and NAME.tex.

    Args:
        table: The table.
        name: The files' stem.
        caption: What it shows.
        folder: An existing folder.
    """
    contents = {
        "csv": to_csv(table),
        "md": to_markdown(table, caption),
        "tex": to_latex(table, name, caption),
    }
    for suffix, content in contents.items():
        (folder / f"{name}.{suffix}").write_text(content, encoding="utf-8", newline="\n")
