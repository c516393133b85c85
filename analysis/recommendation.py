"""The first page's card: an arm's settings and the commands that use them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.decision import Decision
from analysis.formats import MISSING, format_level
from analysis.language import Language
from analysis.load import Study
from analysis.speed import lowest_losses
from analysis.standings import Standing

FACTS = ("kernel", "order", "half_width", "num_directions")
"""What a kernel is, in a trial's rows."""

Trial = Mapping[Any, Any]


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A kernel with its settings and the commands that use it."""

    title: str
    facts: list[tuple[str, str]]
    trains: list[str]
    exports: list[str]


def recommend(study: Study, decision: Decision, language: Language) -> Recommendation | None:
    """The arm that is recommended or leads, on every task; nothing where none is."""
    say, standing = language.say, decision.standing
    if standing is None:
        return None
    state = {"use": "use", "leads": "leads", "alone": "leads"}.get(decision.state, "keep")
    trials = _best_trials(study, standing)
    facts = [
        (say(f"recommendation.{name}"), _tell(name, trials))
        for name in (*FACTS, "perturbation_scale", "learning_rate", "extra", "model", "tuning")
        if not all(_is_empty(trial[name]) for trial in trials)
    ]
    tasks = ", ".join(dict.fromkeys(str(trial["task"]) for trial in trials))
    exports = [_export(study, trial) for trial in trials]
    return Recommendation(
        say(f"recommendation.{state}", arm=standing.arm),
        [*facts, (say("recommendation.task"), tasks)],
        [str(trial["command"]) for trial in trials if trial["command"]],
        [export for export in exports if export],
    )


def _tell(name: str, trials: Sequence[Trial]) -> str:
    """A fact once where it is the same on every task, else beside each task's name."""
    texts = [MISSING if _is_empty(trial[name]) else _fact(trial[name]) for trial in trials]
    if len(set(texts)) == 1:
        return texts[0]
    return ", ".join(f"{text} ({trial['task']})" for text, trial in zip(texts, trials, strict=True))


def _best_trials(study: Study, standing: Standing) -> list[Trial]:
    """Of each of the standing's cells the finished trial of lowest dev loss at its checkpoint."""
    cells = study.cells[study.cells["setting"].isin(standing.settings)]
    finished = cells[cells["status"] == "finished"]
    ends = finished.merge(lowest_losses(study), on=["sweep", "trial_id"], how="left")
    ends = ends.sort_values("lowest_loss", kind="stable").groupby("setting", sort=True).head(1)
    ends = ends.sort_values("setting", kind="stable")
    return [dict(record) for record in ends.to_dict("records")]


def _export(study: Study, trial: Trial) -> str:
    """The command; the folder's name has what differs in the study, so that none repeats."""
    plans = [s.plan for s in study.sweeps if trial["trial_id"] in s.trials]
    plan = plans[0] if plans else {}
    if not plan.get("command"):
        return ""
    config = plan.get("config") or {}
    folder = f"{config.get('results_dir') or 'results'}/{plan.get('name')}"
    parts = ["python", "-m", "kerzoo.export", folder, "--trial", str(trial["trial_id"])]
    varying = [n for n in ("model", "tuning", "task") if study.cells[n].nunique() > 1]
    name = "_".join(str(trial[n]) for n in ("arm", *varying))
    return shlex.join([*parts, "--out", f"{name}_model"])


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or bool(pd.isna(value))


def _fact(value: Any) -> str:
    return format_level(value) if isinstance(value, int | float) else str(value)
