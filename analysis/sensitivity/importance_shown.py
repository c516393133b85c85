"""Importances as a table and as bars with their null bands."""

from __future__ import annotations

import pandas as pd
from matplotlib.patches import Rectangle

from analysis.formats import format_count, format_number, format_score
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
from analysis.sensitivity.importance import DUMMY, EXACT, MIN_FIT, PED, SURROGATE, importances
from analysis.style import INK, MUTED, OKABE_ITO, RULE, new_figure, percent_tick, stem

MAX_BARS = 12


@table("heat")
def importance(study: Study) -> Table | None:
    """What decides the dev loss: factors and pairs of factors."""
    frame = importances(study)
    if frame.empty:
        return None
    frame["caution"] = [
        "; ".join(
            [
                *([f"withheld: R² below {MIN_FIT}"] if row["withheld"] else []),
                *(["biased: chosen by TPE"] if row["biased"] else []),
            ]
        )
        for row in frame.to_dict("records")
    ]
    columns = (
        *context_column(study),
        Column("block", "Arms"),
        Column("outcome", "Outcome"),
        Column("method", "Method"),
        Column("effect", "Factor or pair"),
        Column("value", "Importance", format_number, numeric=True),
        Column("null", "95 % of chance", format_number, numeric=True),
        Column("p", "p", format_number, numeric=True),
        *(
            (Column("fit", "R² of the surrogate", format_number, numeric=True),)
            if frame["fit"].notna().any()
            else ()
        ),
        Column("trials", "Trials", format_count, numeric=True),
        *((Column("caution", "Caution"),) if (frame["caution"] != "").any() else ()),
    )
    return Table(frame, columns, _note(frame) + caution_of(study))


def _note(frame: pd.DataFrame) -> str:
    methods = set(frame["method"])
    said = {
        EXACT: (
            "exact ANOVA: the share of the variance on a balanced grid; what is missing to 1 is "
            "of higher order or noise."
        ),
        PED: (
            "PED-ANOVA: how unlike the factor's law among the best fifth of the trials is to that "
            "among all; no share."
        ),
        SURROGATE: (
            "surrogate ANOVA: the share of the variance in a cross-validated polynomial model; "
            "withheld where the model foretells less than half of the variance."
        ),
    }
    note = " ".join(said[method] for method in (EXACT, PED, SURROGATE) if method in methods)
    return (
        f"{note} “95 % of chance” is what random orders of the outcome stay below, p their share "
        f"at or above; the factor “{DUMMY}” means nothing. Several effects are tested: one in "
        "twenty that mean nothing has p ≤ .05. Where trials diverged, ranks are explained, theirs "
        "being the last."
    )


@figure("heat")
def importance_of_factors(study: Study) -> PanelGroup | None:
    """What decides the dev loss, beside what chance alone gives."""
    frame = importances(study)
    if frame.empty:
        return None
    shown = frame[~frame["withheld"]]
    groups = list(shown.groupby(["context", "block", "outcome", "method"], sort=False))
    panels = [_bars(mine, key) for key, mine in groups[:MAX_PANELS]]
    note = (
        "Grey reaches to what 95 % of random orders of the outcome stay below: only a bar that "
        f"leaves it says anything. “{DUMMY}” is a factor that means nothing."
    )
    return PanelGroup(panels, note + caution_of(study)) if panels else None


def _bars(frame: pd.DataFrame, key: tuple[str, ...]) -> Panel:
    context, block, outcome, method = key
    first = frame.head(MAX_BARS)
    if DUMMY not in set(first["effect"]):
        first = pd.concat([first, frame[frame["effect"] == DUMMY]])
    drawing = new_figure(5.6, 1.1 + 0.26 * len(first))
    axes = drawing.add_subplot()
    is_share = method != PED
    for place, row in enumerate(first.to_dict("records")):
        axes.add_patch(Rectangle((0, place - 0.42), row["null"], 0.84, color=RULE, linewidth=0))
        color = OKABE_ITO["blue"] if row["value"] > row["null"] else MUTED
        axes.plot(
            [0, row["value"]], [place, place], color=color, linewidth=5, solid_capstyle="butt"
        )
    axes.set_yticks(range(len(first)), list(first["effect"]))
    axes.set_ylim(len(first) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.axvline(0, color=INK, linewidth=0.8)
    if is_share:
        axes.xaxis.set_major_formatter(percent_tick)
    axes.set_xlabel("Share of the variance" if is_share else "Divergence of the best fifth")
    title = f"{method}, {block}\n{outcome}"
    axes.set_title(f"{context}\n{title}" if context else title)
    form = format_score if is_share else format_number
    said = "; ".join(
        f"{row['effect']} {form(row['value'])}, chance {form(row['null'])}"
        for row in first.to_dict("records")
    )
    description = f"Importance for {outcome} by {method}, {block}. {said}."
    return Panel(stem(context, block, method), drawing, description)
