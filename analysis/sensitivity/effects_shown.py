"""Effects at rungs, and rank correlations to the end, as tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.formats import format_change, format_count, format_number, format_ranges
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
from analysis.sensitivity.effects import (
    ALL,
    ENOUGH_CONTROLS,
    SURVIVORS,
    effects_at_rungs,
    rank_correlations,
)
from analysis.statistics import control_share_needed
from analysis.style import INK, MUTED, colors_of, markers_of, new_figure, stem


def caution_of(study: Study) -> str:
    """What is said beside sensitivities where a search that learns chose the cells."""
    if not study.is_adaptive:
        return ""
    return (
        " A search that learns from results (search=optuna) chose the cells, more of them where "
        "losses were low: this is tuning, not sensitivity. Settings are no random sample of the "
        "space, so that effects, importances, intervals and p are biased."
    )


@table("rungs")
def effects(study: Study) -> Table | None:
    """Difference of dev loss from the baseline at each rung."""
    frame = effects_at_rungs(study)
    if frame.empty:
        return None
    frame["interval"] = format_ranges(frame["low"], frame["high"])
    frame["weighted_interval"] = format_ranges(frame["weighted_low"], frame["weighted_high"])
    frame["controls"] = frame["controls"].replace(np.inf, np.nan)
    frame["gap"] = [_explain_gap(row) for row in frame.to_dict("records")]
    columns = (
        *context_column(study),
        Column("rung", "Rung", format_count, numeric=True),
        Column("arm", "Arm"),
        Column("sample", "Sample"),
        Column("difference", "Difference", format_change, numeric=True),
        Column("interval", "95 % interval", numeric=True),
        Column("p", "p", format_number, numeric=True),
        Column("p_holm", "p, Holm", format_number, numeric=True),
        Column("p_sign_flip", "p, sign flips", format_number, numeric=True),
        Column("pairs", "Pairs of cells", format_count, numeric=True),
        Column("broken_pairs", "Pairs with a divergence", format_count, numeric=True),
        Column("survivors", "Survivors", format_count, numeric=True),
        Column("weighted", "Weighted", format_change, numeric=True),
        Column("weighted_interval", "95 % interval, weighted", numeric=True),
        Column("controls", "Controls", format_count, numeric=True),
        Column("gap", "No interval, because"),
        Column("unseen", "Not seen", format_count, numeric=True),
        Column("pending", "Open", format_count, numeric=True),
    )
    return Table(frame, tuple(c for c in columns if _has_values(frame, c)), _note(study, frame))


def _has_values(frame: pd.DataFrame, column: Column) -> bool:
    """Whether a column says anything; counts that are all zero do not."""
    if column.name in ("broken_pairs", "survivors", "unseen", "pending"):
        return bool((frame[column.name] > 0).any())
    if column.name in ("weighted", "weighted_interval", "controls", "p_sign_flip"):
        return bool(frame["weighted" if "sign" not in column.name else column.name].notna().any())
    return column.name != "gap" or bool((frame["gap"] != "").any())


def _explain_gap(row: Mapping[Any, Any]) -> str:
    """Why a rung that only survivors reached has no interval for all trials; else nothing."""
    if row["sample"] == ALL or not pd.isna(row["weighted_low"]):
        return ""
    if not row["is_weighable"]:
        return "the records do not say who was a control"
    if row["pending"]:
        return f"open trials: {row['pending']}"
    few = [f"{arm} {k} of {dropped}" for arm, (k, dropped) in row["few_controls"].items()]
    return f"too few controls: {', '.join(few)}" if few else "no spread"


def _tell_controls_needed(frame: pd.DataFrame) -> str:
    """How many controls an interval takes, and which share would leave as many."""
    dropped = sorted({n for few in frame["few_controls"] for _, n in few.values()})
    if not dropped:
        return ""
    shares = {n: control_share_needed(n, ENOUGH_CONTROLS) for n in (dropped[0], dropped[-1])}
    told = [
        f"{share:.2f} with {n} dropped trials" for n, share in shares.items() if not np.isnan(share)
    ]
    text = (
        f" An interval takes at least {ENOUGH_CONTROLS} controls among the dropped trials of each "
        "arm that has some, and more make it narrower; “0 of 8” are none among 8."
    )
    if told:
        text += (
            " To have as many in 19 of 20 sweeps, scheduler.control_fraction would have to be "
            f"{' and '.join(told)} of an arm. Or run fewer cells without early stopping "
            "(scheduler=fifo)."
        )
    return text


def _note(study: Study, frame: pd.DataFrame) -> str:
    note = (
        f"Against {study.baselines[0]}; negative is better. “all”: nothing was stopped below the "
        "rung; arms are paired at the same setting and seed, seeds are averaged, and the interval "
        "is Student's over settings: it says how the effect varies over the searched volume, not "
        "over seeds. Given convergence; pairs with a diverged member are counted."
    )
    if (frame["sample"] == SURVIVORS).any():
        note += (
            " “among survivors”: the trials that got there were chosen for being good, so their "
            "difference is no estimate for all trials and has no p. “Weighted” is one: controls, "
            "exempt from stopping by lot, stand for the trials of their arm that were stopped."
        )
        note += _tell_controls_needed(frame)
    return note + caution_of(study)


@table("rungs")
def rank_correlation(study: Study) -> Table | None:
    """Rank correlation of the dev losses at each rung with those at the end."""
    frame = rank_correlations(study)
    if frame.empty:
        return None
    for name in ("spearman", "kendall"):
        ends = frame[f"{name}_low"], frame[f"{name}_high"]
        frame[f"{name}_interval"] = format_ranges(*ends, decimals=2)
    columns = (
        *context_column(study),
        Column("rung", "Rung", format_count, numeric=True),
        Column("sample", "Sample"),
        Column("trials", "Trials", format_count, numeric=True),
        Column("spearman", "Spearman's ρ", format_number, numeric=True),
        Column("spearman_interval", "95 % interval of ρ", numeric=True),
        Column("kendall", "Kendall's τ", format_number, numeric=True),
        Column("kendall_interval", "95 % interval of τ", numeric=True),
    )
    note = (
        "Near 1 the ranking at the rung is that at the end, and stopping there loses little. "
        "“finished” are survivors and controls, a selected sample, in which correlations are as a "
        "rule too low; “controls” are a random one. Diverged trials are left out."
    )
    return Table(frame, columns, note)


@figure("rungs")
def effects_by_rung(study: Study) -> PanelGroup | None:
    """Difference of dev loss from the baseline at each rung, with 95 % intervals."""
    frame = effects_at_rungs(study)
    if frame.empty or frame["difference"].isna().all():
        return None
    contexts = list(dict.fromkeys(frame["context"]))
    panels = [
        _effect_panel(study, frame[frame["context"] == context], context)
        for context in contexts[:MAX_PANELS]
    ]
    note = (
        "Below zero the arm is better than the baseline. Filled: all trials, or weighted to stand "
        "for all. Crosses: among survivors, which is no estimate for all trials. A filled marker "
        "without a bar rests on too few controls for an interval; the table says on how many."
    )
    return PanelGroup(panels, note)


def _effect_panel(study: Study, frame: pd.DataFrame, context: str) -> Panel:
    drawing = new_figure(6.2, 3.4)
    axes = drawing.add_subplot()
    colors, markers = colors_of(study.arms, study.baselines), markers_of(study.arms)
    rungs = sorted(set(frame["rung"]))
    arms = list(dict.fromkeys(frame["arm"]))
    said = []
    for place, arm in enumerate(arms):
        shift = (place - (len(arms) - 1) / 2) * min(0.12, 0.8 / len(arms))
        for row in frame[frame["arm"] == arm].to_dict("records"):
            x = rungs.index(row["rung"]) + shift
            said.append(_draw_effect(axes, x, row, colors[arm], markers[arm]))
        axes.plot([], [], marker=markers[arm], color=colors[arm], linestyle="none", label=arm)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(rungs)), [format_count(rung) for rung in rungs])
    axes.set_xlabel("Rung, forward passes")
    base = study.baselines[0]
    title = f"Dev loss less that of {base}"
    axes.set_title(f"{title}, {context}" if context else title)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    description = f"{title} by rung{f' for {context}' if context else ''}. " + "; ".join(said)
    return Panel(stem(context), drawing, description + ".")


def _draw_effect(axes: Any, x: float, row: dict[Any, Any], color: str, marker: str) -> str:
    """Draw an arm at a rung; returns what it shows, in words."""
    name = f"{row['arm']} at {format_count(row['rung'])}"
    is_all = row["sample"] == ALL
    value, low, high = (
        (row["difference"], row["low"], row["high"])
        if is_all
        else (row["weighted"], row["weighted_low"], row["weighted_high"])
    )
    if not is_all and not pd.isna(row["difference"]):
        axes.plot(x, row["difference"], "x", color=MUTED, markersize=5)
    if pd.isna(value):
        return f"{name} {format_change(row['difference'])} among survivors"
    axes.plot(x, value, marker, color=color, markersize=5)
    if not pd.isna(low):
        axes.plot([x, x], [low, high], color=color, linewidth=1.2)
    return f"{name} {format_change(value)}"
