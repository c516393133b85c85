"""Robustness, divergence and the gaps between splits, as tables and a profile."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.formats import (
    format_change,
    format_count,
    format_level,
    format_loss,
    format_points,
    format_ranges,
    format_score,
)
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
from analysis.sensitivity.effects_shown import caution_of
from analysis.sensitivity.robustness import gaps, robustness, settings_at_first_rung
from analysis.statistics import performance_profile, wilson_interval
from analysis.style import colors_of, markers_of, new_figure, percent_tick, stem

FIRST = "At the first rung, where nothing has been stopped; seeds are averaged within a setting. "


def _ranges(frame: pd.DataFrame, name: str, decimals: int = 4, factor: float = 1.0) -> list[str]:
    return format_ranges(frame[f"{name}_low"] * factor, frame[f"{name}_high"] * factor, decimals)


@table("heat")
def robustness_of_arms(study: Study) -> Table | None:
    """How much of the searched volume is nearly as good as each arm's best."""
    frame = robustness(study)
    if frame.empty:
        return None
    frame["interval"] = format_ranges(100 * frame["low"], 100 * frame["high"], 1)
    frame["iqm_interval"] = _ranges(frame, "iqm")
    columns = (
        *context_column(study),
        Column("arm", "Arm"),
        Column("best", "Best dev loss", format_loss, numeric=True),
        Column("share", "Share within δ of it", format_score, numeric=True),
        Column("interval", "95 % interval, %", numeric=True),
        Column("near_all", "Share within δ of the best of all arms", format_score, numeric=True),
        Column("iqm", "Interquartile mean of the losses", format_loss, numeric=True),
        Column("iqm_interval", "95 % interval", numeric=True),
        Column("settings", "Settings", format_count, numeric=True),
        Column("diverged", "With a divergence", format_count, numeric=True),
    )
    note = (
        f"{FIRST}δ = {format_level(frame['delta'].iloc[0])} (margins.loss). A setting with a "
        "diverged seed is never within δ. The share's interval is Wilson's, as if the settings "
        "were drawn at random from the volume; the interquartile mean is given convergence, its "
        "interval that of a trimmed mean. An arm with a wide good region needs less tuning."
    )
    return Table(frame, columns, note + caution_of(study))


@table("heat")
def divergence_by_cell(study: Study) -> Table | None:
    """Cells in which a trial diverged."""
    cells = study.cells[study.cells["status"].isin(["finished", "diverged", "stopped"])]
    cells = cells.assign(lost=cells["status"] == "diverged")
    groups = cells.groupby("setting", sort=True)
    frame = groups[["context", "arm", "perturbation_scale", "learning_rate", "extra"]].first(
        skipna=False
    )
    frame["diverged"], frame["ended"] = groups["lost"].sum().astype(int), groups.size()
    frame = frame[frame["diverged"] > 0].copy()
    if frame.empty:
        return None
    rates = [
        wilson_interval(*counts) for counts in zip(frame["diverged"], frame["ended"], strict=True)
    ]
    frame["rate"], frame["low"], frame["high"] = zip(*rates, strict=True)
    columns = (
        *context_column(study),
        Column("arm", "Arm"),
        Column("perturbation_scale", "ε", format_level, numeric=True),
        Column("learning_rate", "Learning rate", format_level, numeric=True),
        *((Column("extra", "Other factors"),) if study.has_extra_factors else ()),
        Column("diverged", "Diverged", format_count, numeric=True),
        Column("ended", "Of trials that ended", format_count, numeric=True),
        Column("rate", "Rate", format_score, numeric=True),
        Column("low", "95 % from", format_score, numeric=True),
        Column("high", "to", format_score, numeric=True),
    )
    note = "Intervals are Wilson's. A stopped trial had not diverged when it was stopped."
    return Table(frame.reset_index(), columns, note)


@table("best")
def gaps_between_splits(study: Study) -> Table | None:
    """Dev less train, and test less dev: what each arm's finished trials hide."""
    if not (study.evaluations["status"] == "finished").any():
        return None
    frame = gaps(study)
    if frame.empty or frame[["dev_train", "test_dev"]].isna().all(axis=None):
        return None
    for name in ("dev_train", "test_dev"):
        frame[f"{name}_interval"] = _ranges(frame, name)
    frame["test_dev_score_interval"] = _ranges(frame, "test_dev_score", 1, 100.0)
    columns = [
        *context_column(study),
        Column("phase", "Phase"),
        Column("arm", "Arm"),
        Column("trials", "Trials", format_count, numeric=True),
    ]
    for name, label, form in (
        ("dev_train", "Dev less train, loss", format_change),
        ("test_dev", "Test less dev, loss", format_change),
        ("test_dev_score", f"Test less dev, points of {study.score_name}", format_points),
    ):
        if frame[name].notna().any():
            columns.append(Column(name, label, form, numeric=True))
            columns.append(Column(f"{name}_interval", "95 % interval", numeric=True))
    note = (
        "Means over finished trials with Student's interval. Train is the mean perturbed loss of "
        "the mini-batches before the last evaluation; test and dev are at the checkpoint that dev "
        "chose, so a test loss above that of dev is what choosing on dev has flattered."
    )
    return Table(frame, tuple(columns), note)


@figure("heat")
def performance_profiles(study: Study) -> PanelGroup | None:
    """The share of each arm's settings that reach a dev loss, at the first rung."""
    panels = []
    for context in study.contexts[:MAX_PANELS]:
        frame = settings_at_first_rung(study, context)
        frame = frame[~frame["open"].astype(bool)]
        if frame["loss"].nunique() > 1:
            panels.append(_profile(study, frame, context))
    note = (
        f"{FIRST}The higher and the further left, the better: at a loss x the line is the share of "
        "the arm's settings with a loss of at most x. Settings with a diverged seed never get "
        "there. Bands are Wilson's pointwise 95 % intervals, as if settings were drawn at random."
    )
    return PanelGroup(panels, note + caution_of(study)) if panels else None


def _profile(study: Study, frame: pd.DataFrame, context: str) -> Panel:
    drawing = new_figure(5.6, 3.4)
    axes = drawing.add_subplot()
    colors, markers = colors_of(study.arms, study.baselines), markers_of(study.arms)
    known = frame["loss"].dropna()
    grid = np.linspace(known.min(), min(known.max(), 2 * known.median() - known.min()), 60)
    arms = [a for a in study.arms if (frame["arm"] == a).any()]
    middle, said = float(known.median()), []
    for arm in arms:
        mine = frame[frame["arm"] == arm]
        losses = mine["loss"].where(mine["diverged"] == 0, np.inf).fillna(np.inf).to_numpy(float)
        shares = performance_profile(-losses, -grid)
        band = [wilson_interval(round(share * len(losses)), len(losses)) for share in shares]
        color = colors[arm]
        axes.plot(
            grid, shares, color=color, marker=markers[arm], markevery=12, markersize=4, label=arm
        )
        low, high = [b.low for b in band], [b.high for b in band]
        axes.fill_between(grid, low, high, color=color, alpha=0.1, linewidth=0)
        said.append(f"{arm} {100 * float(performance_profile(-losses, [-middle])[0]):.0f} %")
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(percent_tick)
    axes.set_xlabel("Dev loss of at most")
    title = "Share of settings"
    axes.set_title(f"{title}, {context}" if context else title)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    description = (
        f"Share of settings that reach a dev loss{f' in {context}' if context else ''}. "
        f"At {format_loss(middle)}: {', '.join(said)}."
    )
    return Panel(stem(context), drawing, description)
