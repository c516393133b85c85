"""Theory beside measurement, as tables and a figure, and in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.formats import (
    format_change,
    format_count,
    format_loss,
    format_number,
    format_ranges,
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
from analysis.sensitivity.theory import theory_and_ranking, theory_beside_measurement
from analysis.style import INK, RULE, colors_of, markers_of, new_figure, stem


@table("arms")
def kernel_theory(study: Study) -> Table | None:
    """What theory says of each arm's kernel, beside what was measured."""
    frame = theory_beside_measurement(study)
    if frame.empty:
        return None
    for name, ends, decimals in (
        ("expected", ("expected_low", "expected_high"), 2),
        ("interval", ("low", "high"), 2),
        ("difference_interval", ("difference_low", "difference_high"), 4),
    ):
        frame[name] = format_ranges(frame[ends[0]], frame[ends[1]], decimals)
    columns = (
        *context_column(study),
        Column("arm", "Arm"),
        Column("order", "Bias order", format_count, numeric=True),
        Column("lead", "Lead", format_number, numeric=True),
        Column("signal_variance", "V_s", format_number, numeric=True),
        Column("noise_amplification", "V_n", format_number, numeric=True),
        Column("gain", "E[rK]", format_number, numeric=True),
        Column("predicted_ratio", "Mean square, predicted ratio", format_number, numeric=True),
        Column("expected", "expected range", numeric=True),
        Column("measured_ratio", "measured", format_number, numeric=True),
        Column("interval", "95 % interval", numeric=True),
        Column("seeds", "Seeds", format_count, numeric=True),
        Column("difference", "Dev loss, difference", format_change, numeric=True),
        Column("difference_interval", "95 % interval", numeric=True),
        Column("best", "Best dev loss", format_loss, numeric=True),
    )
    base = study.baselines[0]
    note = (
        f"Ratios to {base} of the mean squared projected gradient up to the first rung, at the "
        "same setting and seed. Predicted for losses without noise: the ratio of E[(Σ rK)²]; means "
        "over so many steps and seeds scatter, and the expected range has the measured ratio in at "
        "least 19 of 20 sweeps. Noise in the losses (half precision, a small ε) moves the ratio "
        "from V_s towards V_n. The difference of dev loss is at equal settings, the best over all "
        "of the arm's settings, both at the first rung. Order, lead, V_s and V_n are those of the "
        "first step, divided by the gain."
    )
    empty = {name for name in ("expected", "interval") if (frame[name] == "").all()}
    if frame["measured_ratio"].isna().all():
        empty |= {"measured_ratio", "seeds"}
        note += " These records do not hold the projected gradients, so that nothing is measured."
    return Table(frame, tuple(c for c in columns if c.name not in empty), note)


@table("arms")
def theory_explains(study: Study) -> Table | None:
    """Does theory explain the ranking of the arms?"""
    frame = theory_and_ranking(study)
    if frame.empty:
        return None
    columns = (
        *context_column(study),
        Column("predictor", "Theory"),
        Column("outcome", "Measurement"),
        Column("tau", "Kendall's τ over arms", format_number, numeric=True),
        Column("p", "p", format_number, numeric=True),
        Column("arms", "Arms", format_count, numeric=True),
        Column("reading", "Reading"),
    )
    note = (
        f"{' '.join(explain_ranking(study))} All at the first rung. A τ near 1 says that a larger "
        "figure goes with a larger measurement: V_s with a worse loss, if variance decides; a bias "
        "order with a better one (τ near −1), if bias decides. Several pairs are looked at, "
        "without a correction for their number."
    )
    return Table(frame, columns, note)


def explain_ranking(study: Study) -> list[str]:
    """Whether theory explains what was measured, in sentences for each context."""
    ratios, ranks = theory_beside_measurement(study), theory_and_ranking(study)
    sentences = []
    for context, here in ranks.groupby("context", sort=False):
        place = f"{context}: " if context else ""
        known = ratios[(ratios["context"] == context) & ratios["expected_low"].notna()]
        if len(known):
            inside = known["measured_ratio"].between(known["expected_low"], known["expected_high"])
            sentences.append(
                f"{place}Of {len(known)} measured mean squares {int(inside.sum())} lie where "
                "theory has them."
            )
        found = here.set_index(["predictor", "outcome"])
        sentences += [
            f"{place}{_explain(said, found.loc[key])}"
            for key, said in _EXPLAINED.items()
            if key in found.index
        ]
    return sentences


_EXPLAINED = {
    ("V_s", "difference of dev loss"): "the larger V_s, the worse the loss at equal settings",
    ("V_s", "best dev loss"): "the larger V_s, the worse an arm's best loss",
    ("bias order", "best dev loss"): "the higher the bias order, the better an arm's best loss",
}
"""(Predictor, outcome) → the ranking as theory has it."""


def _explain(said: str, row: pd.Series) -> str:
    numbers = f"τ {format_number(row['tau'])}, p {format_number(row['p'])}"
    verdict = {
        "as theory says": f"Theory explains this ranking: {said}",
        "against theory": f"The ranking runs against theory, which says: {said}",
        "not told from chance": f"It is not told from chance whether {said}",
        "too few arms to tell": f"Too few arms tell whether {said}",
    }[row["reading"]]
    return f"{verdict} ({numbers})."


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
        "On the line the prediction for losses without noise holds. Wide grey bars are where "
        "theory has the measured ratio in at least 19 of 20 sweeps of as many steps and seeds, "
        "thin bars 95 % intervals over seeds. Above is what noise in the losses adds."
    )
    return PanelGroup(panels, note)


def _panel(study: Study, frame: pd.DataFrame, context: str) -> Panel:
    drawing = new_figure(5.0, 3.6)
    axes = drawing.add_subplot()
    colors, markers = colors_of(study.arms, study.baselines), markers_of(study.arms)
    values = frame[["predicted_ratio", "measured_ratio"]].to_numpy(float)
    ends = [0.7 * values.min(), 1.4 * values.max()]
    axes.vlines(
        frame["predicted_ratio"],
        frame["expected_low"],
        frame["expected_high"],
        color=RULE,
        linewidth=6,
    )
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    said = []
    for row in frame.to_dict("records"):
        arm, x, y = row["arm"], row["predicted_ratio"], row["measured_ratio"]
        axes.plot(x, y, markers[arm], color=colors[arm], linestyle="none", label=arm)
        if not np.isnan(row["low"]):
            low = max(row["low"], ends[0])  # Student's interval may reach below zero
            axes.plot([x, x], [low, row["high"]], color=colors[arm], linewidth=1.2)
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
