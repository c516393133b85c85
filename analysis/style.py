"""How the figures look, and how a drawing becomes a file or an inline SVG.

The SVG's colours are CSS variables with the printed colour as their fallback, so that one drawing
serves the light and the dark page.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1b1f24", "#66707a", "#d5dade", "#fffffe"
OKABE_ITO = {
    "black": INK,
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "orange": "#e69f00",
    "sky": "#56b4e9",
    "yellow": "#c9b800",
}
"""Okabe and Ito's palette, told apart by colour-blind readers; yellow darkened for white paper."""

MARKERS = "osD^vPX*"
CSS_COLORS = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"} | {
    value: name for name, value in OKABE_ITO.items() if name != "black"
}

SETTINGS: dict[Any, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "kerzoo",
    "pdf.fonttype": 42,
}
"""Matplotlib's settings while figures are drawn and saved."""


def colors_of(arms: Sequence[str], baselines: Sequence[str]) -> dict[str, str]:
    """A colour for each arm: the baseline in ink, the others round the palette."""
    palette = [color for name, color in OKABE_ITO.items() if name != "black"]
    others = [arm for arm in arms if arm not in baselines[:1]]
    colors = {arm: palette[place % len(palette)] for place, arm in enumerate(others)}
    return {arm: colors.get(arm, INK) for arm in arms}


def markers_of(arms: Sequence[str]) -> dict[str, str]:
    """A marker for each arm, so that colour is not the only difference."""
    return {arm: MARKERS[place % len(MARKERS)] for place, arm in enumerate(arms)}


def contrast_to(shade: Sequence[float]) -> str:
    """Black or white, whichever is the more legible on a shade (red, green, blue in 0 … 1)."""
    linear = [part**2.2 for part in shade[:3]]
    luminance = sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#ffffff" if luminance < 0.18 else "#000000"


def percent_tick(value: float, position: float = 0) -> str:
    """A share on an axis, with the decimals that the ticks have.

    >>> percent_tick(0.575), percent_tick(0.6)
    ('57.5 %', '60 %')
    """
    return f"{round(100 * value, 2):g} %"


def stem(*parts: str) -> str:
    """Words as a part of a file's name."""
    words = (re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in parts)
    return "-".join(word for word in words if word)


def new_figure(width: float, height: float) -> Figure:
    """An empty drawing, in inches, that needs no window and leaves no global state."""
    return Figure(figsize=(width, height), layout="constrained")


def fix_layout(drawing: Figure) -> None:
    """Lay the drawing out once, instead of again for every format it is saved in.

    With an engine, even one that does nothing, each `savefig` would draw twice.
    """
    drawing.draw_without_rendering()
    drawing.set_layout_engine(None)


def save_png(drawing: Figure, path: Path) -> None:
    """Write a picture on white, without a date."""
    drawing.savefig(path, dpi=160, facecolor="white", metadata={"Software": None})


def save_pdf(drawings: Sequence[Figure], path: Path) -> None:
    """Write one PDF with a page for each drawing, fonts embedded once, without a date."""
    with PdfPages(path, metadata={"CreationDate": None, "Producer": None}) as pages:
        for drawing in drawings:
            pages.savefig(drawing, facecolor="white")


def to_inline_svg(drawing: Figure, name: str, description: str) -> str:
    """The drawing as an `<svg>` element for a page that defines the palette's CSS variables.

    Args:
        drawing: The drawing.
        name: Unique in the page; prefixes every id.
        description: The alternative text.

    Returns:
        Markup that scales down with its container and is announced as one image.
    """
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.DOTALL)
    markup = re.sub(r' id="', f' id="{name}-', markup)
    markup = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", markup)
    for color, variable in CSS_COLORS.items():
        markup = markup.replace(color, f"var(--{variable}, {color})")
    width, height = (72 * inches for inches in drawing.get_size_inches())
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}" style="width: {4 * width / 3:.0f}px" role="img" '
        f'aria-label="{html.escape(description, quote=True)}">'
    )
    return opening + markup[markup.index(">") + 1 :]
