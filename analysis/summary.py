"""What limits the records, what comes next, and what it took, in sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.decision import Decision
from analysis.formats import (
    format_count,
    format_duration,
    format_gib,
    is_missing,
)
from analysis.language import Language, load_language
from analysis.load import Study, is_adaptive, sweep_labels
from analysis.stages import OPEN, Stage

ENGLISH = load_language("en")
"""Of what reviewers read: the details below the first page."""


def list_cautions(study: Study, decisions: Sequence[Decision], language: Language) -> list[str]:
    """What keeps these numbers, and the decisions that count, from saying more."""
    say = language.say
    if study.seeds_per_cell == 1:
        cautions = [say("cautions.one_seed")]
    else:
        cautions = [say("cautions.seeds", seeds=study.seeds_per_cell)]
    if any(d.group.phase != "confirm" or not d.group.is_tested for d in decisions):
        cautions.append(say("cautions.same_examples"))
    if study.is_adaptive:
        cautions.append(say("cautions.adaptive"))
    statuses = study.cells.drop_duplicates(["sweep", "trial_id"])["status"]
    counts = {
        status: int((statuses == status).sum()) for status in ("stopped", "diverged", "failed")
    }
    counts["open"] = int(statuses.isin(OPEN).sum())
    return cautions + [
        say(f"cautions.{status}", trials=len(statuses), **{status: count})
        for status, count in counts.items()
        if count
    ]


@dataclasses.dataclass(frozen=True)
class Costs:
    """What one sweep was planned to take and took, as label and text, and how to run it again.

    Attributes:
        name: The sweep.
        rows: (what, planned, used).
        facts: (what, text).
        command: The command that ran it.
    """

    name: str
    rows: list[tuple[str, str, str]]
    facts: list[tuple[str, str]]
    command: str


def list_costs(study: Study) -> list[Costs]:
    """The plan and the bill of every sweep."""
    last = study.trials.merge(study.last_rows, on=["sweep", "trial_id"], how="left")
    last = last[last["planned"].astype(bool)]
    return [
        _cost_of(sweep.plan, label, last[last["sweep"] == label])
        for label, sweep in zip(sweep_labels(study.sweeps), study.sweeps, strict=True)
    ]


def _cost_of(plan: Mapping[str, Any], name: str, last: pd.DataFrame) -> Costs:
    cost = plan.get("cost") or {}
    hours = cost.get("device_hours")
    spent = float((last["device_time_s"].fillna(0) + last["eval_time_s"].fillna(0)).sum())
    passes = float(last["forward_passes"].sum())
    rows = [
        ("Trials", format_count(cost.get("trials", len(last))), ENGLISH.statuses(last)),
        ("Forward passes", format_count(cost.get("forward_passes")), format_count(passes)),
        (
            "Device time, evaluation included",
            format_duration(None if hours is None else 3600 * float(hours)),
            format_duration(spent),
        ),
        (
            "Peak memory of a trial, GiB",
            format_gib(cost.get("memory_gib_per_trial")),
            format_gib(float(last["peak_memory_gib"].max())),
        ),
    ]
    return Costs(name, rows, _facts(plan, last), str(plan.get("command") or ""))


def _facts(plan: Mapping[str, Any], last: pd.DataFrame) -> list[tuple[str, str]]:
    cost, choices = plan.get("cost") or {}, plan.get("choices") or {}
    effect = cost.get("smallest_detectable_effect")
    versions = plan.get("versions") or {}
    found = [
        ("Scheduler's savings", _savings(last)),
        ("Seeds", ", ".join(format_count(seed) for seed in sorted(last["seed"].dropna().unique()))),
        ("Plan seed", str(plan.get("plan_seed", ""))),
        ("Baseline", _name_baseline(plan)),
        (
            "Rungs, forward passes",
            ", ".join(format_count(rung) for rung in plan.get("rungs") or []),
        ),
        ("Smallest detectable effect", "" if effect is None else f"{effect} points"),
        ("", str(cost.get("smallest_detectable_effect_note") or "")),
        ("Planned on", " · ".join(str(cost[k]) for k in ("device", "assumption") if cost.get(k))),
        ("Search", _search(plan)),
        ("Choices", " · ".join(f"{key} {value}" for key, value in choices.items())),
        ("Versions", " · ".join(f"{key} {value}" for key, value in versions.items())),
        ("Commit", str(plan.get("commit") or "unknown")),
        ("Method version", str(plan.get("method_version", ""))),
        ("Created", str(plan.get("created") or "")),
        ("Machine", str(plan.get("machine") or "")),
    ]
    return [(label, text) for label, text in found if text]


def _name_baseline(plan: Mapping[str, Any]) -> str:
    """What arms are compared with, and what the plan says where this report was asked otherwise."""
    name, planned = plan.get("baseline"), plan.get("planned_baseline")
    if not planned or planned == name:
        return str(name or "")
    return f"{name}, chosen for this report; the plan names {planned}"


def _search(plan: Mapping[str, Any]) -> str:
    """How the cells were chosen."""
    search = (plan.get("config") or {}).get("search")
    if not isinstance(search, dict) or search.get("name") in (None, "grid"):
        return ""
    told = f"{search['name']}, {search.get('num_samples')} points, seed {search.get('seed')}"
    return f"{told}; chosen by results: tuning, not sensitivity" if is_adaptive(plan) else told


def _savings(last: pd.DataFrame) -> str:
    """Forward passes that the stopped trials did not need."""
    stopped = last[last["status"] == "stopped"]
    if stopped.empty:
        return "no trial was stopped"
    budgets = sum(max(rungs) for rungs in last["rungs"] if rungs)
    saved = sum(max(rungs) for rungs in stopped["rungs"] if rungs) - stopped["forward_passes"].sum()
    share = f", {100 * saved / budgets:.0f} % of the full grid" if budgets else ""
    return f"{format_count(saved)} forward passes{share}, by stopping {len(stopped)} trials early"


@dataclasses.dataclass(frozen=True)
class ShownStage:
    """A next stage in words."""

    label: str
    text: str
    cost: str
    spent: str
    command: str
    then: ShownStage | None = None


def describe_stages(
    study: Study, stages: Sequence[Stage], device: str, arm: str, language: Language
) -> list[ShownStage]:
    """Each sweep's next stage, what it would cost, and what its plan's trials took so far.

    Args:
        study: The study.
        stages: One for each sweep.
        device: What trials ran on, in words.
        arm: The arm whose cost is told where nothing comes next.
        language: Of the words.
    """
    shown = []
    for label, stage in zip(sweep_labels(study.sweeps), stages, strict=True):
        trials = study.planned_trials(label)
        last = study.last_rows.merge(trials[["sweep", "trial_id"]], on=["sweep", "trial_id"])
        spent = float(last[["device_time_s", "eval_time_s"]].fillna(0).to_numpy().sum())
        numbers = {"trials": stage.trials, "seeds": stage.seeds, "arms": stage.arms}
        shown.append(
            ShownStage(
                label if len(stages) > 1 else "",
                language.say(f"next.{stage.kind}", **numbers),
                _tell_cost(study, stage, device, arm, language),
                language.say(
                    "next.spent",
                    time=language.duration(spent),
                    device=device,
                    trials=format_count(len(trials)),
                    statuses=language.statuses(trials),
                ),
                stage.command,
                _show_then(study, stage.then, device, language),
            )
        )
    return shown


def _show_then(
    study: Study, stage: Stage | None, device: str, language: Language
) -> ShownStage | None:
    if stage is None:
        return None
    values = {"trials": stage.trials, "tuning": stage.tuning, "gib": format_gib(stage.memory_gib)}
    text = language.say("next.then", **values)
    return ShownStage("", text, _tell_cost(study, stage, device, "", language), "", stage.command)


def _tell_cost(study: Study, stage: Stage, device: str, arm: str, language: Language) -> str:
    if stage.kind == "none":
        runs = study.trials[(study.trials["arm"] == arm) & (study.trials["status"] == "finished")]
        last = study.last_rows.merge(runs[["sweep", "trial_id"]], on=["sweep", "trial_id"])
        seconds = last["device_time_s"].mean()
        if is_missing(float(seconds)):
            return ""
        time = language.duration(float(seconds))
        return language.say("next.none_cost", arm=arm, time=time, device=device)
    if stage.kind in ("elsewhere", "mend", "retune"):
        return ""
    if is_missing(stage.seconds):
        return language.say("next.cost_unknown")
    values = {"time": language.duration(stage.seconds), "device": device}
    if is_missing(stage.money):
        return language.say("next.cost", **values)
    return language.say("next.cost_money", **values, money=f"{stage.money:,.2f}")
