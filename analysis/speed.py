"""How soon each arm reaches what the baseline reaches, and what each arm's trials cost.

A target is a dev loss on the way from the baseline's step 0 to its best: half of it, nine tenths,
and all of it, the highest, over the baseline's converged trials, of each one's lowest loss, so that
all of them reach it. There is none where some run was there before training. Time is known to the
evaluation. A stopped trial was watched until it was
stopped; one that finished or diverged without reaching the target never does within the budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.formats import format_count, format_loss, format_number, format_score, format_seconds
from analysis.load import Study, sweep_labels
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
from analysis.statistics import Survival, kaplan_meier
from analysis.style import INK, colors_of, markers_of, new_figure, percent_tick, stem

GROUP = ["model", "tuning", "task"]
SHARES = {0.5: "half of the way", 0.9: "nine tenths", 1.0: "the baseline's best"}
TRIAL = ["sweep", "trial_id"]
ENDED = ("finished", "diverged", "stopped")


def ended_trials(study: Study) -> pd.DataFrame:
    """The ended trials of the phase "confirm", or of the screen where none was confirmed.

    Adds `lost`, whether it diverged, and `lowest_loss`.
    """
    cells = study.cells[study.cells["status"].isin(ENDED) & study.cells["trains"].astype(bool)]
    if (cells["phase"] == "confirm").any():
        cells = cells[cells["phase"] == "confirm"]
    ends = cells.merge(study.last_rows, on=TRIAL, how="inner")
    ends["lost"] = ends["diverged"].astype(bool) | (ends["status"] == "diverged")
    return ends.merge(lowest_losses(study), on=TRIAL, how="left")


def lowest_losses(study: Study) -> pd.DataFrame:
    """Each trial's lowest dev loss after step 0, as `lowest_loss`."""
    rows = study.evaluations[study.evaluations["step"] > 0]
    lowest = rows.groupby(TRIAL, sort=False)["dev_loss"].min()
    return lowest.rename("lowest_loss").reset_index()


def set_target(lowest: pd.Series, starts: pd.Series) -> float:
    """The dev loss that every run of the baseline reaches, and that none had before training.

    Args:
        lowest: The lowest dev loss of each of the baseline's runs.
        starts: The dev losses at step 0 of all runs that are to be timed; NaN where not known.

    Returns:
        The target; NaN where some run was there before training, as no time leads to it.
    """
    target = float(lowest.max())
    return float("nan") if bool((starts <= target).any()) else target


def first_below(study: Study, ends: pd.DataFrame, target: float) -> pd.DataFrame:
    """When each trial's dev loss was first at most a target, by its evaluations after step 0.

    Returns:
        `ends` with `passes_to_target` and `seconds_to_target`; NaN where it never was.
    """
    rows = study.evaluations[study.evaluations["step"] > 0]
    there = rows[rows["dev_loss"] <= target].sort_values("step").drop_duplicates(TRIAL)
    there = there[[*TRIAL, "forward_passes", "device_time_s"]]
    there.columns = pd.Index([*TRIAL, "passes_to_target", "seconds_to_target"])
    return ends.merge(there, on=TRIAL, how="left")


def times_to_target(study: Study) -> Iterator[tuple[dict[str, Any], Survival | None]]:
    """For each model, tuning, task, target and arm: counts, medians and the curve.

    Rows hold GROUP, `target, loss, arm, trials, reached, stopped, diverged, median, worst_median`
    (forward passes until half have reached it, and by the bound that no stopped trial ever would
    have), `share, low, high` (the curve and its 95 % band at the budget), `worst_share` by the
    bound, and `seconds`, the median over those that reached it. No target as `set_target` has none.
    """
    if not study.baselines:
        return
    ends = ended_trials(study)
    for key, here in ends.groupby(GROUP, sort=False, dropna=False):
        base = here[(here["arm"] == study.baselines[0]) & ~here["lost"]]
        base = base[base["status"] == "finished"]
        start = base["dev_loss_start"].mean()
        best = set_target(base["lowest_loss"], here["dev_loss_start"])
        if not best < start:
            continue
        for share, name in SHARES.items():
            loss = float(start - share * (start - best))
            timed = first_below(study, here, loss)
            for arm in [a for a in study.arms if (timed["arm"] == a).any()]:
                mine = timed[timed["arm"] == arm]
                row = dict(zip(GROUP, key, strict=True)) | {"target": name, "loss": loss}
                curve = _curve(mine, float(here["forward_passes"].max()))
                yield row | {"arm": arm} | _summarise(mine, curve), curve


def _curve(mine: pd.DataFrame, budget: float) -> Survival:
    reached = mine["passes_to_target"].notna()
    ended = mine["forward_passes"].where(mine["status"] == "stopped", budget)
    return kaplan_meier(mine["passes_to_target"].fillna(ended), reached)


def _summarise(mine: pd.DataFrame, curve: Survival) -> dict[str, Any]:
    reached = mine["passes_to_target"].notna()
    nothing = float("nan")
    return {
        "trials": len(mine),
        "reached": int(reached.sum()),
        "stopped": int((~reached & (mine["status"] == "stopped")).sum()),
        "diverged": int((~reached & mine["lost"]).sum()),
        "median": curve.median,
        "worst_median": curve.worst_median,
        "share": float(curve.share[-1]) if curve.times.size else 0.0,
        "worst_share": float(reached.mean()),
        "low": float(curve.low[-1]) if curve.times.size else nothing,
        "high": float(curve.high[-1]) if curve.times.size else nothing,
        "seconds": float(mine["seconds_to_target"].median()),
    }


@table("best")
def speed(study: Study) -> Table | None:
    """Forward passes until half of each arm's trials reach what the baseline reaches."""
    frame = pd.DataFrame([row for row, _ in times_to_target(study)])
    if frame.empty:
        return None
    named = [name for name in GROUP if frame[name].nunique() > 1]
    columns = (
        *(Column(name, name.capitalize()) for name in named),
        Column("target", "Target"),
        Column("loss", "Dev loss", format_loss, numeric=True),
        Column("arm", "Arm"),
        Column("trials", "Trials", format_count, numeric=True),
        Column("reached", "Reached it", format_count, numeric=True),
        Column("stopped", "Stopped before", format_count, numeric=True),
        Column("diverged", "Diverged", format_count, numeric=True),
        Column("median", "Passes, median", format_count, numeric=True),
        Column("worst_median", "at worst", format_count, numeric=True),
        Column("seconds", "Device s of those, median", format_seconds, numeric=True),
        Column("share", "Share that reaches it", format_score, numeric=True),
        Column("low", "95 % from", format_score, numeric=True),
        Column("high", "to", format_score, numeric=True),
        Column("worst_share", "Share at worst", format_score, numeric=True),
    )
    return Table(frame, columns, _NOTE)


_NOTE = (
    "The target lies between the baseline's mean dev loss at step 0 and the one that each of its "
    "converged trials reached. Medians are Kaplan and Meier's, over all of an arm's trials: "
    "they take stopped trials to have been like the others, which a scheduler that stops the bad "
    "ones breaks; “at worst” no stopped trial would ever have got there, and the truth lies "
    "between. Diverged trials never do. Times are those of evaluations."
)


@figure("best")
def reaching_the_target(study: Study) -> PanelGroup | None:
    """The share of each arm's trials that has reached the baseline's best, over forward passes."""
    found = [(row, curve) for row, curve in times_to_target(study) if row["target"] == SHARES[1.0]]
    groups: dict[str, list[tuple[dict[str, Any], Survival | None]]] = {}
    for row, curve in found:
        groups.setdefault(" · ".join(str(row[name]) for name in GROUP), []).append((row, curve))
    several = len(groups) > 1
    panels = [
        _panel(study, members, name if several else "")
        for name, members in list(groups.items())[:MAX_PANELS]
    ]
    note = f"Solid: Kaplan and Meier's curve; dotted: the worst case. {_NOTE}"
    return PanelGroup(panels, note) if panels else None


def _panel(study: Study, members: list[tuple[dict[str, Any], Survival | None]], name: str) -> Panel:
    drawing = new_figure(5.6, 3.2)
    axes = drawing.add_subplot()
    colors, markers = colors_of(study.arms, study.baselines), markers_of(study.arms)
    budget = float(study.evaluations["forward_passes"].max())
    said = []
    for row, curve in members:
        arm, color = row["arm"], colors[row["arm"]]
        if curve is None or not curve.times.size:
            axes.plot(
                [0, 1.08 * budget],
                [0, 0],
                color=color,
                marker=markers[arm],
                markersize=4,
                label=arm,
            )
            said.append(f"no trial of {arm} reached it")
            continue
        times = np.concatenate([[0.0], curve.times, [1.08 * budget]])
        for share, style in ((curve.share, "-"), (curve.worst, ":")):
            heights = np.concatenate([[0.0], share, share[-1:]])
            look = {
                "label": arm,
                "marker": markers[arm],
                "markersize": 4,
                "markevery": slice(1, -1),
            }
            look = look if style == "-" else {}
            axes.step(times, heights, where="post", color=color, linestyle=style, **look)
        said.append(f"{arm} {row['reached']} of {row['trials']}")
    axes.axhline(0.5, color=INK, linewidth=0.5)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(percent_tick)
    axes.set_xlabel("Forward passes")
    title = f"Reached dev loss {format_loss(members[0][0]['loss'])}"
    axes.set_title(f"{title}\n{name}" if name else title)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return Panel(stem(name), drawing, f"{title}{f', {name}' if name else ''}: {'; '.join(said)}.")


@table("cost")
def cost_of_arms(study: Study) -> Table | None:
    """Device hours of each arm, and what they cost."""
    last = study.trials.merge(study.last_rows, on=TRIAL, how="inner")
    last = last[last["planned"].astype(bool)]
    if last.empty:
        return None
    prices = {
        label: ((sweep.plan.get("config") or {}).get("budget") or {}).get("price_per_gpu_hour")
        for label, sweep in zip(sweep_labels(study.sweeps), study.sweeps, strict=True)
    }
    last["hours"] = (last["device_time_s"].fillna(0) + last["eval_time_s"].fillna(0)) / 3600
    last["price"] = pd.to_numeric(last["sweep"].map(prices), errors="coerce")
    last["money"] = last["hours"] * last["price"]
    last = study.sort_by_arm(last)
    groups = last.groupby(["context", "phase", "arm"], sort=False)
    frame = groups["hours"].agg(["size", "sum", "mean"]).reset_index()
    frame.columns = pd.Index(["context", "phase", "arm", "trials", "hours", "hours_per_trial"])
    frame["money"] = groups["money"].sum(min_count=1).to_numpy()
    columns = (
        *context_column(study),
        Column("phase", "Phase"),
        Column("arm", "Arm"),
        Column("trials", "Trials", format_count, numeric=True),
        Column("hours", "Device hours", format_number, numeric=True),
        Column("hours_per_trial", "per trial", format_number, numeric=True),
        *(
            (Column("money", "Money", format_number, numeric=True),)
            if frame["money"].notna().any()
            else ()
        ),
    )
    note = (
        "Training and evaluation, as if each trial had its device for itself; money at "
        "budget.price_per_gpu_hour. A trial that serves several arms counts once, for the first."
    )
    return Table(frame, columns, note)
