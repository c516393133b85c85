"""Each arm's response to each factor: heat maps by arm, divergence maps, and curves with bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Rectangle

from analysis.formats import format_count, format_loss, format_score
from analysis.load import Study
from analysis.registry import (
    MAX_PANELS,
    Column,
    Panel,
    PanelGroup,
    Table,
    context_column,
    figure,
    table,
)
from analysis.sensitivity.robustness import levels
from analysis.sensitivity.robustness_shown import FIRST
from analysis.style import MUTED, RULE, colors_of, contrast_to, markers_of, new_figure, stem

LOSSES, RATES = colormaps["viridis"], colormaps["cividis_r"]
SYMBOLS = {"perturbation_scale": "ε", "learning_rate": "learning rate"}


@table("heat")
def responses(study: Study) -> Table | None:
    """Each arm's mean dev loss and divergence rate at each level of each factor."""
    frame = levels(study)
    if frame.empty:
        return None
    columns = (
        *context_column(study),
        Column("factor", "Factor"),
        Column("level", "Level", numeric=True),
        Column("arm", "Arm"),
        Column("settings", "Settings", format_count, numeric=True),
        Column("loss", "Mean dev loss", format_loss, numeric=True),
        Column("low", "95 % from", format_loss, numeric=True),
        Column("high", "to", format_loss, numeric=True),
        Column("diverged", "Diverged", format_count, numeric=True),
        Column("trials", "Of trials", format_count, numeric=True),
        Column("rate", "Rate", format_score, numeric=True),
        Column("rate_low", "95 % from", format_score, numeric=True),
        Column("rate_high", "to", format_score, numeric=True),
    )
    note = (
        f"{FIRST}Means over the other factors, given convergence; Student's interval over "
        "settings, Wilson's for rates. A numeric factor with many levels is in five bins."
    )
    return Table(frame, columns, note)


@figure("heat")
def factor_by_arm(study: Study) -> PanelGroup | None:
    """Mean dev loss of each arm at each level of a factor, at the first rung."""
    frame = levels(study)
    if frame.empty or frame["loss"].isna().all():
        return None
    groups = list(frame.groupby(["context", "factor"], sort=False))[:MAX_PANELS]
    panels = [_map(study, mine, key, "loss", LOSSES, format_loss) for key, mine in groups]
    note = (
        f"{FIRST}Means over all other factors, given convergence; darker is lower, and each panel "
        "has a scale of its own. Hatched: no result. Where the darkest level differs from row to "
        "row, the factor has to be tuned for each arm."
    )
    return PanelGroup(panels, note)


@figure("heat")
def divergence_map(study: Study) -> PanelGroup | None:
    """How many trials of each arm diverged at each level of a factor."""
    frame = levels(study)
    if frame.empty or not (frame["diverged"] > 0).any():
        return None
    groups = [g for g in frame.groupby(["context", "factor"], sort=False) if g[1]["diverged"].sum()]
    panels = [
        _map(study, mine, key, "rate", RATES, format_score) for key, mine in groups[:MAX_PANELS]
    ]
    note = "At the first rung: trials that had diverged by then. Hatched: no trial there."
    return PanelGroup(panels, note)


def _map(
    study: Study,
    frame: pd.DataFrame,
    key: tuple[str, str],
    column: str,
    colors: Colormap,
    form: Any,
) -> Panel:
    context, factor = key
    arms = [a for a in study.arms if (frame["arm"] == a).any()]
    places = sorted(set(frame["position"]))
    names = [frame.loc[frame["position"] == p, "level"].iloc[0] for p in places]
    known = frame[column].dropna()
    low = 0.0 if column == "rate" else float(known.min())
    scale = Normalize(low, 1.0 if column == "rate" else float(known.max()))
    longest = max(map(len, arms))
    widths = 0.25 + 0.085 * max(6, *map(len, names))
    drawing = new_figure(
        max(3.4, 0.6 + 0.08 * longest + widths * len(places)), 0.9 + 0.36 * len(arms)
    )
    axes = drawing.add_subplot()
    cells = frame.set_index(["arm", "position"])
    for y, arm in enumerate(arms):
        for x, place in enumerate(places):
            value = cells[column].get((arm, place), np.nan)
            _draw_cell(axes, x, y, float(value), scale, colors, form)
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xticks(range(len(places)), names)
    axes.set_yticks(range(len(arms)), arms)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    symbol = SYMBOLS.get(factor, factor)
    axes.set_xlabel(symbol)
    what = "Diverged" if column == "rate" else "Mean dev loss"
    title = f"{what}: {symbol} × arm"
    axes.set_title(f"{title}\n{context}" if context else title)
    said = "; ".join(
        f"{row['arm']} at {row['level']} {form(row[column])}" for row in frame.to_dict("records")
    )
    return Panel(
        stem(factor, context), drawing, f"{title}{f', {context}' if context else ''}. {said}."
    )


def _draw_cell(
    axes: Axes, x: int, y: int, value: float, scale: Normalize, colors: Colormap, form: Any
) -> None:
    box = Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor="none", edgecolor=RULE)
    axes.add_patch(box)
    if np.isnan(value):
        box.set_hatch("////")
        return
    shade = colors(scale(value))
    box.set(facecolor=shade, edgecolor=shade)
    axes.text(x, y, form(value), ha="center", va="center", color=contrast_to(shade), fontsize=8)


@figure("heat")
def response_curves(study: Study) -> PanelGroup | None:
    """Mean dev loss of each arm along each numeric factor, with 95 % bands."""
    frame = levels(study)
    if frame.empty:
        return None
    frame = frame[frame["value"].notna() & frame["loss"].notna()]
    groups = [
        (key, mine)
        for key, mine in frame.groupby(["context", "factor"], sort=False)
        if mine["position"].nunique() > 1
    ]
    panels = [_curve(study, mine, key) for key, mine in groups[:MAX_PANELS]]
    note = (
        f"{FIRST}Means over all other factors, given convergence. Bands are Student's 95 % "
        "intervals over settings: how much the other factors leave open, not the seeds."
    )
    return PanelGroup(panels, note) if panels else None


def _curve(study: Study, frame: pd.DataFrame, key: tuple[str, str]) -> Panel:
    context, factor = key
    drawing = new_figure(5.6, 3.2)
    axes = drawing.add_subplot()
    colors, markers = colors_of(study.arms, study.baselines), markers_of(study.arms)
    said = []
    for arm in [a for a in study.arms if (frame["arm"] == a).any()]:
        mine = frame[frame["arm"] == arm].sort_values("position")
        axes.plot(
            mine["value"],
            mine["loss"],
            color=colors[arm],
            marker=markers[arm],
            markersize=4,
            label=arm,
        )
        band = mine[mine["low"].notna()]
        axes.fill_between(
            band["value"], band["low"], band["high"], color=colors[arm], alpha=0.12, linewidth=0
        )
        best = mine.loc[mine["loss"].idxmin()]
        said.append(f"{arm} is lowest at {best['level']} with {format_loss(best['loss'])}")
    values = sorted(set(frame["value"]))
    if values[0] > 0 and values[-1] / values[0] > 5:
        axes.set_xscale("log")
    names = [frame.loc[frame["value"] == v, "level"].iloc[0].split(" … ")[0] for v in values]
    axes.set_xticks(values, names)
    axes.set_xticks([], minor=True)
    _limit(axes, frame)
    symbol = SYMBOLS.get(factor, factor)
    axes.set_xlabel(symbol)
    title = f"Dev loss along {symbol}"
    axes.set_title(f"{title}, {context}" if context else title)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    axes.tick_params(axis="x", colors=MUTED)
    where_shown = f", {context}" if context else ""
    return Panel(stem(factor, context), drawing, f"{title}{where_shown}. {'; '.join(said)}.")


def _limit(axes: Axes, frame: pd.DataFrame) -> None:
    """Keep wide bands from flattening the lines."""
    low, high = float(frame["loss"].min()), float(frame["loss"].max())
    room = max(high - low, 1e-6)
    axes.set_ylim(low - room, high + room)
