"""The report's figures. Adding one is adding a decorated function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from analysis.formats import format_count, format_level, format_loss
from analysis.load import Study
from analysis.registry import Panel, PanelGroup, figure
from analysis.selection import Which, average_seeds, compared_rung, last_of_settings
from analysis.style import (
    INK,
    MUTED,
    PAPER,
    RULE,
    colors_of,
    contrast_to,
    markers_of,
    new_figure,
    percent_tick,
    stem,
)

LOWEST = colormaps["viridis"]
MAX_PANELS = 12
"""More panels than this are left to the tables: nobody reads them, and each takes half a second."""

MAX_LINES = 24
"""More lines of an arm than this are thinned to evenly spaced ones, the leader always shown."""

MAX_LEVELS = 10
"""More levels than this on an axis are drawn as points, not as a grid."""

HATCHES = (
    "Hatched cells have no result: they are not in the plan, or the word says why. "
    "Cells with several seeds show the mean."
)


@figure("curves")
def curves(study: Study) -> PanelGroup | None:
    """Dev loss and score against forward passes, one line per trial."""
    frame = study.evaluations[study.evaluations["forward_passes"].notna()]
    if not (frame["step"] > 0).any():
        return None
    outcomes = (("dev_loss", "Dev loss"), ("score", f"Dev {study.score_name}"))
    wanted = [
        (context, column, label)
        for context in study.contexts
        for column, label in outcomes
        if frame.loc[frame["context"] == context, column].notna().any()
    ]
    panels = [
        _curve_panel(study, frame[frame["context"] == context], context, column, label)
        for context, column, label in wanted[:MAX_PANELS]
    ]
    note = (
        "The bold line of an arm, with markers, is its trial with the lowest dev loss at the last "
        "rung that a trial of the arm reached. Thin dashed lines were stopped by the scheduler; "
        "a cross is where a trial diverged after it."
    )
    if (frame.groupby(["context", "arm"])["trial_id"].nunique() > MAX_LINES).any():
        note += f" Of an arm with more than {MAX_LINES} trials, evenly spaced ones are drawn."
    return PanelGroup(panels, note + _tell_omitted(len(wanted)))


def _tell_omitted(wanted: int) -> str:
    """What is said where not every panel is drawn."""
    if wanted <= MAX_PANELS:
        return ""
    return f" The first {MAX_PANELS} of {wanted} panels are drawn; the tables hold all numbers."


def _curve_panel(study: Study, frame: pd.DataFrame, context: str, column: str, label: str) -> Panel:
    drawing = new_figure(5.5, 3.5)
    axes = drawing.add_subplot()
    colors, markers = colors_of(study.arms, study.baselines), markers_of(study.arms)
    ends: list[tuple[float, str]] = []
    for arm in [a for a in study.arms if (frame["arm"] == a).any()]:
        mine = frame[frame["arm"] == arm]
        leader = _leading_trial(mine)
        for trial_id, rows in _thin_lines(mine, leader).groupby("trial_id", sort=False):
            known = rows[rows[column].notna()]
            is_leader = trial_id == leader
            axes.plot(
                known["forward_passes"],
                known[column],
                color=colors[arm],
                zorder=3 if is_leader else 2,
                **_line(str(rows["status"].iloc[0]), is_leader, markers[arm]),
            )
            if rows["diverged"].any() and len(known):
                axes.plot(*known[["forward_passes", column]].iloc[-1], "x", color=colors[arm])
            if is_leader and len(known):
                ends.append((float(known[column].iloc[-1]), arm))
    num_outside = _limit(axes, frame, column)
    _label_ends(axes, ends, colors)
    rungs = [0, *study.rungs(context)]
    rungs = rungs[:: -(-len(rungs) // MAX_LEVELS)]
    axes.set_xticks(rungs, [format_count(rung) for rung in rungs])
    if column == "score":
        axes.yaxis.set_major_formatter(percent_tick)
    axes.set_xlabel("Forward passes")
    axes.set_title(f"{label}, {context}" if context else label)
    shown = "; ".join(f"{arm} ends at {value:.4g}" for value, arm in ends)
    more = f" {num_outside} points lie above the frame." if num_outside else ""
    description = f"{label} against forward passes{f' for {context}' if context else ''}. {shown}."
    if num_outside:
        axes.set_xlabel(f"Forward passes; {num_outside} points lie above the frame")
    return Panel(stem(column, context), drawing, description + more)


def _thin_lines(evaluations: pd.DataFrame, leader: str | None) -> pd.DataFrame:
    """The evaluations of at most MAX_LINES trials, evenly spaced in the plan, and the leader's."""
    trials = evaluations["trial_id"].drop_duplicates().tolist()
    if len(trials) <= MAX_LINES:
        return evaluations
    chosen = {trials[i] for i in np.linspace(0, len(trials) - 1, MAX_LINES).round().astype(int)}
    return evaluations[evaluations["trial_id"].isin(chosen | {leader})]


def _leading_trial(evaluations: pd.DataFrame) -> str | None:
    """The trial with the lowest dev loss at the highest rung that any of these reached."""
    known = evaluations[evaluations["dev_loss"].notna()]
    if known.empty:
        return None
    last = known[known["rung"] == known["rung"].max()]
    return str(last.loc[last["dev_loss"].idxmin(), "trial_id"])


def _line(status: str, is_leader: bool, marker: str) -> dict[str, Any]:
    if is_leader:
        return {"linewidth": 2.0, "marker": marker, "markersize": 4.5}
    if status == "stopped":
        return {"linewidth": 0.8, "linestyle": (0, (3, 2)), "alpha": 0.6}
    return {"linewidth": 1.1, "alpha": 0.75}


def _limit(axes: Axes, frame: pd.DataFrame, column: str) -> int:
    """Keep exploding losses from flattening the others; returns how many points are cut off."""
    values = frame[column].dropna()
    if column != "dev_loss":
        return 0
    start = float(frame["dev_loss_start"].median())
    low = float(values.min())
    cap = start + max(2 * (start - low), 0.3 * abs(start))
    num_outside = int((values > cap).sum())
    if num_outside:
        margin = 0.05 * (cap - low)
        axes.set_ylim(low - margin, cap)
    return num_outside


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str]], colors: dict[str, str]) -> None:
    """Write each arm's name to the right of its line's end, without overlaps."""
    low, high = axes.get_ylim()
    heights = [float(np.clip((value - low) / (high - low), 0, 1)) for value, _ in ends]
    for height, (_, arm) in zip(_spread(heights, 0.075), ends, strict=True):
        axes.annotate(
            arm,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            color=colors[arm],
            va="center",
            weight="bold",
            fontsize=8.5,
        )


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved apart to at least `gap`, in the same order, within 0 and 1 if there is room.

    >>> [round(height, 3) for height in _spread([0.99, 1.0, 0.2], 0.1)]
    [0.9, 1.0, 0.2]
    """
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    spread = [heights[place] for place in order]
    for i in range(1, len(spread)):
        spread[i] = max(spread[i], spread[i - 1] + gap)
    for i in reversed(range(len(spread))):
        above = spread[i + 1] - gap if i + 1 < len(spread) else 1.0
        spread[i] = min(spread[i], above)
    return [height for _, height in sorted(zip(order, spread, strict=True))]


@figure("heat")
def heat_at_first_rung(study: Study) -> PanelGroup | None:
    """Dev loss at the first rung, where no trial has been stopped yet."""
    frame = study.evaluations
    rungs: dict[str, int | None] = {c: compared_rung(study, c, "first") for c in study.contexts}
    chosen = frame[(frame["rung"] == frame["context"].map(rungs)) & frame["dev_loss"].notna()]
    return _heat(study, average_seeds(chosen), "first", HATCHES)


@figure("heat")
def heat_at_last_rung(study: Study) -> PanelGroup | None:
    """Dev loss at the last rung that each cell reached."""
    note = (
        f"{HATCHES} “at” marks a cell that reached no further: its number has had a smaller budget "
        "than the others and is not comparable with them."
    )
    return _heat(study, last_of_settings(study), "final", note)


def _heat(study: Study, values: pd.DataFrame, which: Which, note: str) -> PanelGroup | None:
    known = values.loc[values["dev_loss"].notna()]
    if known.empty:
        return None
    statuses = last_of_settings(study).set_index("setting")["status"]
    panels: list[Panel] = []
    num_wanted = 0
    for context in study.contexts:
        here = known[known["context"] == context]
        if here.empty:
            continue
        middle, low = float(here["dev_loss"].median()), float(here["dev_loss"].min())
        scale = Normalize(low, min(float(here["dev_loss"].max()), middle + 2 * (middle - low)))
        cells = study.cells[study.cells["context"] == context]
        full = compared_rung(study, context, which)
        for arm in [a for a in study.arms if (cells["arm"] == a).any()]:
            num_wanted += 1
            if num_wanted > MAX_PANELS:
                continue
            settings = cells[cells["arm"] == arm].drop_duplicates("setting").set_index("setting")
            settings = settings.join(here.set_index("setting")[["dev_loss", "rung"]], how="left")
            settings["status"] = statuses.reindex(settings.index)
            panels.append(_heat_panel(cells, settings, context, arm, scale, full))
    shades = "Darker is lower; all panels of a study share the scale."
    if study.has_extra_factors:
        shades += " Where other factors were swept too, the lowest loss over them is shown."
    if _has_many_levels(study.cells):
        note = "Each point is a cell; small ones did not reach the rung, crosses have no loss."
    return PanelGroup(panels, f"{shades} {note}{_tell_omitted(num_wanted)}")


def _heat_panel(
    cells: pd.DataFrame,
    settings: pd.DataFrame,
    context: str,
    arm: str,
    scale: Normalize,
    full: int | None,
) -> Panel:
    rates, epsilons = (
        sorted(cells[name].dropna().unique()) if settings[name].notna().any() else []
        for name in ("learning_rate", "perturbation_scale")
    )
    known = settings["dev_loss"].dropna()
    title = f"{arm}\n{context}" if context else arm
    best = f"the lowest is {format_loss(known.min())}" if len(known) else "no cell has a result"
    shown = " for ".join(part for part in (arm, context) if part)
    description = f"Dev loss of {shown} by learning rate and epsilon; {best}."
    if _has_many_levels(cells):
        drawing = new_figure(3.7, 3.0)
        _draw_points(drawing.add_subplot(), settings, scale, full)
    else:
        rates, epsilons = rates or [float("nan")], epsilons or [float("nan")]
        width = max(1.0 + 0.85 * max(len(rates), 2), 0.8 + 0.085 * max(len(arm), len(context)))
        drawing = new_figure(width, 0.9 + 0.5 * len(epsilons) + (0.15 if context else 0))
        _draw_grid(drawing.add_subplot(), settings, rates, epsilons, scale, full)
    axes = drawing.axes[0]
    axes.set_xlabel("Learning rate")
    axes.set_ylabel("ε", rotation=0)
    axes.set_title(title)
    return Panel(stem(arm, context), drawing, description)


def _has_many_levels(cells: pd.DataFrame) -> bool:
    """Whether a grid would be too fine to read, as after random search."""
    levels = cells[["learning_rate", "perturbation_scale"]].nunique()
    return bool((levels > MAX_LEVELS).any())


def _draw_grid(
    axes: Axes,
    settings: pd.DataFrame,
    rates: Sequence[float],
    epsilons: Sequence[float],
    scale: Normalize,
    full: int | None,
) -> None:
    for x, rate in enumerate(rates):
        column = settings[_equal(settings["learning_rate"], rate)].sort_values("dev_loss")
        for y, epsilon in enumerate(epsilons):
            found = column[_equal(column["perturbation_scale"], epsilon)]
            _draw_cell(axes, x, y, found, scale, full)
    axes.set_xlim(-0.5, len(rates) - 0.5)
    axes.set_ylim(-0.5, len(epsilons) - 0.5)
    axes.set_xticks(range(len(rates)), [format_level(rate) for rate in rates])
    axes.set_yticks(range(len(epsilons)), [format_level(epsilon) for epsilon in epsilons])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _equal(values: pd.Series, level: float) -> pd.Series:
    return values.isna() if np.isnan(level) else values == level


def _draw_cell(
    axes: Axes, x: int, y: int, found: pd.DataFrame, scale: Normalize, full: int | None
) -> None:
    box = Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor="none", edgecolor=RULE)
    axes.add_patch(box)
    if found.empty or pd.isna(found["dev_loss"].iloc[0]):
        box.set_hatch("////")
        if len(found):
            text = str(found["status"].iloc[0]).replace(", ", "\n")
            backing = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
            label = axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color=MUTED)
            label.set_bbox(backing)
        return
    loss, rung = float(found["dev_loss"].iloc[0]), int(found["rung"].iloc[0])
    shade = LOWEST(scale(loss))
    box.set(facecolor=shade, edgecolor=shade)
    color = contrast_to(shade)
    is_partial = full is not None and rung < full
    axes.text(x, y + 0.1 * is_partial, format_loss(loss), ha="center", va="center", color=color)
    if is_partial:
        below = f"at {format_count(rung)}"
        axes.text(x, y - 0.26, below, ha="center", va="center", color=color, fontsize=7)


def _draw_points(axes: Axes, settings: pd.DataFrame, scale: Normalize, full: int | None) -> None:
    known = settings[settings["dev_loss"].notna()].sort_values("dev_loss", ascending=False)
    lost = settings[settings["dev_loss"].isna()]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.scatter(
        known["learning_rate"],
        known["perturbation_scale"],
        c=[LOWEST(scale(loss)) for loss in known["dev_loss"]],
        s=[34 if full is None or rung >= full else 12 for rung in known["rung"]],
        linewidths=0.5,
        edgecolors=MUTED,
    )
    axes.scatter(lost["learning_rate"], lost["perturbation_scale"], marker="x", s=22, c=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: format_level(value))
        axis.set_minor_formatter(lambda value, _: "")
