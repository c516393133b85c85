"""What the kernels' exact figures foretell, beside what was measured.

The plan holds each trial's figures (`theory`), the rows the root mean square of its projected
gradients (`projected_gradient_rms`). Where losses have no noise, E|g|² is |∇L|² times the second
moment E[(Σ rK)²]; up to the first evaluation, at the same setting and seed, the gradients of two
arms have hardly parted, so that the ratio of their mean squares should be that of their second
moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.formats import (
    format_change,
    format_count,
    format_loss,
    format_number,
    format_range,
)
from analysis.load import Study, sweep_labels
from analysis.memory import once_per_study
from analysis.registry import Column, Panel, PanelGroup, Table, figure, table
from analysis.selection import compared_rung
from analysis.sensitivity.effects import effects_at_rungs, units_of
from analysis.sensitivity.effects_shown import MAX_PANELS, where
from analysis.sensitivity.robustness import settings_at_first_rung
from analysis.statistics import kendall, paired_mean
from analysis.style import INK, colors_of, markers_of, new_figure, stem

FIGURES = (
    "order",
    "lead",
    "signal_variance",
    "noise_amplification",
    "gain",
    "second_moment",
)
PREDICTORS = {
    "signal_variance": "V_s",
    "noise_amplification": "V_n",
    "order": "bias order",
    "predicted_ratio": "predicted ratio",
}
OUTCOMES = {
    "measured_ratio": "measured ratio",
    "difference": "difference of dev loss",
    "best": "best dev loss",
}
MIN_ARMS = 4
"""Of which a rank correlation is made."""


@once_per_study
def theory_beside_measurement(study: Study, level: float = 0.95) -> pd.DataFrame:
    """Every arm's predicted figures and measured ones, for each context at its first rung.

    Returns:
        One row per context, arm and distinct kernel: FIGURES; `predicted_ratio` and
        `measured_ratio` of the mean squared projected gradient to that of the baseline's trials
        at the same setting and seed, `low, high` (Student's of the logarithms, over settings) and
        `pairs`; `difference` of the dev loss from the baseline at equal settings, with
        `difference_low, difference_high`; `best`, the lowest mean loss of a setting.
    """
    if not study.baselines or not any(sweep.plan.get("theory") for sweep in study.sweeps):
        return pd.DataFrame()
    effects = effects_at_rungs(study, level)
    rows = []
    for context in study.contexts:
        trials = _measured(study, context)
        base = trials[trials["arm"] == study.baselines[0]]
        settings = settings_at_first_rung(study, context)
        for (arm, _), mine in trials.groupby(["arm", "figures"], sort=False):
            row = {"context": context, "arm": arm} | mine["theory"].iloc[0]
            row |= _ratio(mine, base, level)
            whole = settings[
                settings["setting"].isin(mine["setting"]) & (settings["diverged"] == 0)
            ]
            row["best"] = whole["loss"].min()
            row |= _effect(effects, context, arm)
            rows.append(row)
    frame = pd.DataFrame(rows)
    order = {arm: place for place, arm in enumerate(study.arms)}
    return (
        frame
        if frame.empty
        else frame.sort_values(
            ["context", "arm"],
            key=lambda names: names.map(lambda n: order.get(n, 0)),
            kind="stable",
        )
    )


def _measured(study: Study, context: str) -> pd.DataFrame:
    """The trials of a context that have figures, with their mean square up to the first rung."""
    cells = study.cells[study.cells["context"] == context]
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    for label, sweep in zip(sweep_labels(study.sweeps), study.sweeps, strict=True):
        theory = sweep.plan.get("theory") or {}
        for trial, place in (theory.get("trials") or {}).items():
            known[label, trial] = theory["figures"][place]
    found = [known.get(pair) for pair in zip(cells["sweep"], cells["trial_id"], strict=True)]
    trials = cells.assign(theory=found, unit=units_of(cells) if len(cells) else [])
    trials = trials[[figures is not None for figures in found]]
    rung = compared_rung(study, context, "first")
    rows = study.evaluations[
        (study.evaluations["context"] == context)
        & (study.evaluations["rung"] == rung)
        & (study.evaluations["step"] > 0)
    ].drop_duplicates("trial_id")
    rms = rows.set_index("trial_id")["projected_gradient_rms"]
    trials = trials.assign(square=trials["trial_id"].map(rms).astype(float) ** 2)
    return trials.assign(figures=[repr(sorted(f.items())) for f in trials["theory"]])


def _ratio(mine: pd.DataFrame, base: pd.DataFrame, level: float) -> dict[str, Any]:
    nothing = float("nan")
    row = {"predicted_ratio": nothing, "measured_ratio": nothing, "low": nothing, "high": nothing}
    row["pairs"] = 0
    if base.empty:
        return row
    theirs, ours = (side["theory"].iloc[0]["second_moment"] for side in (base, mine))
    row["predicted_ratio"] = ours / theirs
    if mine["arm"].iloc[0] == base["arm"].iloc[0]:
        return row
    columns = ["unit", "seed", "square"]
    pairs = mine[columns].merge(base[columns], on=["unit", "seed"], suffixes=("", "_base"))
    pairs = pairs[(pairs["square"] > 0) & (pairs["square_base"] > 0)]
    logs = np.log(pairs["square"] / pairs["square_base"]).groupby(pairs["unit"]).mean()
    found = paired_mean(logs.to_numpy(float), level)
    row |= {"measured_ratio": float(np.exp(found.mean)), "pairs": len(pairs)}
    return row | {"low": float(np.exp(found.low)), "high": float(np.exp(found.high))}


def _effect(effects: pd.DataFrame, context: str, arm: str) -> dict[str, Any]:
    nothing = float("nan")
    row = {"difference": nothing, "difference_low": nothing, "difference_high": nothing}
    if effects.empty:
        return row
    here = effects[(effects["context"] == context) & (effects["arm"] == arm)]
    if here.empty:
        return row
    first = here.iloc[0]
    return {
        "difference": first["difference"],
        "difference_low": first["low"],
        "difference_high": first["high"],
    }


def theory_and_ranking(study: Study) -> pd.DataFrame:
    """Whether what theory says of the arms ranks them as the measurements do.

    Returns:
        One row per context, predictor and outcome: Kendall's `tau` over arms, its exact p-value
        where no ranks are tied, and the number of `arms`; the baseline takes part with ratio 1
        and difference 0. Empty with fewer than MIN_ARMS arms.
    """
    frame = theory_beside_measurement(study)
    if frame.empty:
        return frame
    is_base = frame["arm"] == study.baselines[0]
    frame = frame.assign(
        measured_ratio=frame["measured_ratio"].mask(is_base, 1.0),
        difference=frame["difference"].mask(is_base, 0.0),
    )
    rows = []
    for context, here in frame.groupby("context", sort=False):
        for predictor, said in PREDICTORS.items():
            for outcome, measured in OUTCOMES.items():
                known = here[[predictor, outcome]].dropna().astype(float)
                if len(known) < MIN_ARMS or (predictor, outcome) == ("order", "measured_ratio"):
                    continue
                found = kendall(known[predictor], known[outcome])
                p = stats.kendalltau(known[predictor], known[outcome]).pvalue
                rows.append(
                    {
                        "context": context,
                        "predictor": said,
                        "outcome": measured,
                        "tau": found.value,
                        "p": float(p),
                        "arms": len(known),
                    }
                )
    return pd.DataFrame(rows)


@table("arms")
def kernel_theory(study: Study) -> Table | None:
    """What theory says of each arm's kernel, beside what was measured."""
    frame = theory_beside_measurement(study)
    if frame.empty:
        return None
    frame["interval"] = [
        format_range(low, high, 2) for low, high in zip(frame["low"], frame["high"], strict=True)
    ]
    frame["difference_interval"] = [
        format_range(*ends)
        for ends in zip(frame["difference_low"], frame["difference_high"], strict=True)
    ]
    columns = (
        *where(study),
        Column("arm", "Arm"),
        Column("order", "Bias order", format_count, numeric=True),
        Column("lead", "Lead", format_number, numeric=True),
        Column("signal_variance", "V_s", format_number, numeric=True),
        Column("noise_amplification", "V_n", format_number, numeric=True),
        Column("gain", "E[rK]", format_number, numeric=True),
        Column("predicted_ratio", "Mean square, predicted ratio", format_number, numeric=True),
        Column("measured_ratio", "measured", format_number, numeric=True),
        Column("interval", "95 % interval", numeric=True),
        Column("pairs", "Pairs", format_count, numeric=True),
        Column("difference", "Dev loss, difference", format_change, numeric=True),
        Column("difference_interval", "95 % interval", numeric=True),
        Column("best", "Best dev loss", format_loss, numeric=True),
    )
    base = study.baselines[0]
    note = (
        f"Ratios to {base} of the mean squared projected gradient up to the first rung, at the "
        "same setting and seed. Predicted for losses without noise: the ratio of E[(Σ rK)²]. Noise "
        "in the losses (half precision, a small ε) moves it from V_s towards V_n. The difference "
        "of dev loss is at equal settings, the best over all of the arm's settings, both at the "
        "first rung. Order, lead, V_s and V_n are those of the first step, divided by the gain."
    )
    return Table(frame, columns, note)


@table("arms")
def theory_explains(study: Study) -> Table | None:
    """Does theory explain the ranking of the arms?"""
    frame = theory_and_ranking(study)
    if frame.empty:
        return None
    columns = (
        *where(study),
        Column("predictor", "Theory"),
        Column("outcome", "Measurement"),
        Column("tau", "Kendall's τ over arms", format_number, numeric=True),
        Column("p", "p", format_number, numeric=True),
        Column("arms", "Arms", format_count, numeric=True),
    )
    note = (
        "At the first rung. A τ near 1 says that a larger figure goes with a larger measurement: "
        "V_s with a worse loss, if variance decides; a bias order with a better one (τ near −1), "
        "if bias decides. With so few arms only a perfect ranking means much, and several pairs "
        "are looked at."
    )
    return Table(frame, columns, note)


@figure("arms")
def predicted_and_measured(study: Study) -> PanelGroup | None:
    """Mean squared projected gradient of each arm: predicted and measured ratio to the baseline."""
    frame = theory_beside_measurement(study)
    if frame.empty or frame["measured_ratio"].isna().all():
        return None
    known = frame[frame["measured_ratio"].notna()]
    contexts = list(dict.fromkeys(known["context"]))[:MAX_PANELS]
    panels = [_panel(study, known[known["context"] == c], c) for c in contexts]
    note = (
        "On the line the prediction for losses without noise holds. Bars are 95 % intervals over "
        "settings. Above the line is what noise in the losses adds."
    )
    return PanelGroup(panels, note)


def _panel(study: Study, frame: pd.DataFrame, context: str) -> Panel:
    drawing = new_figure(5.0, 3.6)
    axes = drawing.add_subplot()
    colors, markers = colors_of(study.arms, study.baselines), markers_of(study.arms)
    values = frame[["predicted_ratio", "measured_ratio"]].to_numpy(float)
    ends = [0.7 * values.min(), 1.4 * values.max()]
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    said = []
    for row in frame.to_dict("records"):
        arm, x, y = row["arm"], row["predicted_ratio"], row["measured_ratio"]
        axes.plot(x, y, markers[arm], color=colors[arm], linestyle="none", label=arm)
        if not np.isnan(row["low"]):
            axes.plot([x, x], [row["low"], row["high"]], color=colors[arm], linewidth=1.2)
        said.append(f"{arm} predicted {format_number(x)}, measured {format_number(y)}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({1.0, *frame["predicted_ratio"]})
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [format_number(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.set_xlabel(f"Predicted ratio to {study.baselines[0]}")
    axes.set_ylabel("Measured ratio")
    title = "Mean squared projected gradient"
    axes.set_title(f"{title}\n{context}" if context else title)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    over = f"{title} over that of {study.baselines[0]}"
    return Panel(stem(context), drawing, f"{over}. {'; '.join(said)}.")
