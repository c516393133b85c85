"""The first page's table and chart as files: device time beside score, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from analysis.formats import format_count, format_loss, format_score, format_seconds
from analysis.load import Study
from analysis.registry import MAX_PANELS, Column, Panel, PanelGroup, Table, figure, table
from analysis.standings import Estimate, Group, list_standings
from analysis.style import INK, MUTED, RULE, colors_of, new_figure, percent_tick, stem

NOTE = (
    "Of each arm the cell that dev loss chose, means over seeds and tasks. Intervals of 95 % are "
    "over seeds; of a single seed over the judged examples, which says nothing of other seeds. The "
    "time to the target is that to the dev loss that every run of the baseline reached."
)


@table("best")
def standings(study: Study) -> Table | None:
    """Where each arm stands: score and device time of its chosen cell."""
    groups = list_standings(study)
    rows = [
        {
            "group": _name_group(group),
            "arm": s.arm,
            "split": s.split,
            "tasks": s.tasks,
            "seeds": s.seeds,
            "dev_loss": s.dev_loss,
            **{f"score_{k}": getattr(s.score, k) for k in ("mean", "low", "high", "basis")},
            **{f"seconds_{k}": getattr(s.seconds, k) for k in ("mean", "low", "high")},
            **{f"target_{k}": getattr(s.target_seconds, k) for k in ("mean", "low", "high")},
            "reached": f"{s.reached} of {s.runs}",
        }
        for group in groups
        for s in group.standings
    ]
    if not rows:
        return None
    ends = (("low", "95 % from"), ("high", "to"))
    columns = (
        Column("group", "Of"),
        Column("arm", "Arm"),
        Column("tasks", "Tasks", format_count, numeric=True),
        Column("seeds", "Seeds", format_count, numeric=True),
        Column("dev_loss", "Dev loss", format_loss, numeric=True),
        Column("split", "Split"),
        Column("score_mean", study.score_name, format_score, numeric=True),
        *(Column(f"score_{end}", label, format_score, numeric=True) for end, label in ends),
        Column("score_basis", "Interval over"),
        Column("target_mean", "Device s to target", format_seconds, numeric=True),
        *(Column(f"target_{end}", label, format_seconds, numeric=True) for end, label in ends),
        Column("reached", "Reached"),
        Column("seconds_mean", "Device s of a run", format_seconds, numeric=True),
    )
    return Table(pd.DataFrame(rows), columns, NOTE, shown=False)


@figure("best")
def time_and_score(study: Study) -> PanelGroup | None:
    """Device time beside score: the chart of the first page."""
    groups = [group for group in list_standings(study) if len(group.standings) > 1]
    panels = [_draw(study, group, len(groups) > 1) for group in groups[:MAX_PANELS]]
    return PanelGroup(panels, NOTE) if panels else None


def _name_group(group: Group) -> str:
    return " · ".join(dict.fromkeys([group.model, group.tuning, group.phase, group.sweep]))


def _draw(study: Study, group: Group, several: bool) -> Panel:
    shown = group.standings[::-1]
    drawing = new_figure(8.4, 1.1 + 0.34 * len(shown))
    left, right = drawing.subplots(1, 2, sharey=True)
    colors = [colors_of(study.arms, study.baselines).get(s.arm, INK) for s in shown]
    absent = "not reached" if group.has_target else "there before training"
    _draw_estimates(left, [s.target_seconds for s in shown], colors, absent)
    _draw_estimates(right, [s.score for s in shown], colors, "no score")
    left.set_yticks(range(len(shown)), [s.arm for s in shown], color=INK)
    left.set_ylim(-0.6, len(shown) - 0.4)
    left.set_xlim(left=0)
    left.set_xlabel("Device seconds to the baseline's loss")
    right.set_xlabel(f"{group.standings[0].split.capitalize()} {study.score_name}")
    right.xaxis.set_major_formatter(percent_tick)
    if group.baseline:
        for axes, estimate in (
            (left, group.baseline.target_seconds),
            (right, group.baseline.score),
        ):
            if not math.isnan(estimate.mean):
                axes.axvline(estimate.mean, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
    name = _name_group(group)
    if several:
        left.set_title(name)
    described = "; ".join(
        f"{s.arm} {format_score(s.score.mean)}, {format_seconds(s.target_seconds.mean)} s"
        for s in group.standings
    )
    description = f"Score and device seconds to the baseline's loss of {name}: {described}."
    return Panel(stem(name) if several else "", drawing, description)


def _draw_estimates(
    axes: Axes, estimates: Sequence[Estimate], colors: Sequence[str], absent: str
) -> None:
    for y, (estimate, color) in enumerate(zip(estimates, colors, strict=True)):
        if math.isnan(estimate.mean):
            axes.annotate(
                absent,
                (0.03, y),
                xycoords=("axes fraction", "data"),
                va="center",
                color=MUTED,
                fontsize=8,
            )
            continue
        if not math.isnan(estimate.low):
            axes.plot([estimate.low, estimate.high], [y, y], color=color, linewidth=2)
        axes.plot([estimate.mean], [y], "o", color=color, markersize=6)
    axes.grid(axis="x", color=RULE)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
