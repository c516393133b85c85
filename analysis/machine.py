"""report.json: the report's conclusions for programs.

Keys of version 1, to which later ones may add:

- `schema_version`, `generated` (UTC), `warnings`, `score` ("accuracy", "F1" or both);
- `sweeps`: for each `name, command, commit, method_version, plan_seed, baseline, versions`, the
  `planned_baseline` where the report was asked for another, `trials` (of the plan: status → count)
  and `is_adaptive` (cells were chosen by results: tuning, not sensitivity);
- `decisions`: for each group of arms `sweep, phase, model, tuning, state` (nothing, alone, leads,
  undecided, keep, use, untrained), `arm` (recommended, or in the lead), `failing` (the arms that
  did not beat the untrained model by `margin`), `question, more_seeds, verdicts`
  (arm → list of `judgement, outcome, difference, low, high, p, pairs, more_seeds`) and `standings`
  (for each arm `arm, is_baseline, is_kernel, trains, settings, tasks, seeds, split, dev_loss,
  start_loss` (before training), `last_loss, passes, budget` (at the last evaluation; of the best
  and of the last one), the estimates `score, seconds, target_seconds`, each with `mean,
  low, high, basis`, `memory_gib`, and `reached` of `runs`);
- `next`: for each sweep `kind` (finish, mend, confirm, more, retune,
  elsewhere, none, then), `trials, seeds, arms, seconds,
  money, command, tuning, memory_gib`, and `then`, the same of a sweep that is to follow, or null;
- `comparison`: the rows of the confirmed comparison as in tables/confirmed_comparison.csv;
- `tables`, `figures`: name → caption; the files are tables/NAME.{csv,md,tex}, figures/NAME.pdf.

What is no finite number is null.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.comparison import compare_arms
from analysis.decision import Decision
from analysis.load import Study, is_adaptive, sweep_labels
from analysis.stages import Stage

SCHEMA_VERSION = 1


def write_json(
    path: Path,
    study: Study,
    decisions: Sequence[Decision],
    stages: Sequence[Stage],
    exhibits: Mapping[str, Mapping[str, str]],
    warned: Sequence[str],
    generated: str,
) -> None:
    """Write report.json.

    Args:
        path: Where to.
        study: What was read.
        decisions: What it came to.
        stages: What comes next, for each sweep.
        exhibits: "tables" and "figures", each name → caption.
        warned: What was wrong with the records, in sentences.
        generated: When, as ISO 8601.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "generated": generated,
        "score": study.score_name,
        "sweeps": _list_sweeps(study),
        "decisions": [_list_decision(decision) for decision in decisions],
        "next": [dataclasses.asdict(stage) for stage in stages],
        "comparison": compare_arms(study).to_dict("records"),
        **exhibits,
        "warnings": list(warned),
    }
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _list_sweeps(study: Study) -> list[dict[str, Any]]:
    keys = ("command", "commit", "method_version", "plan_seed", "baseline", "planned_baseline")
    return [
        {
            "name": label,
            **{key: sweep.plan.get(key) for key in (*keys, "versions")},
            "is_adaptive": is_adaptive(sweep.plan),
            "trials": study.planned_trials(label)["status"].value_counts().to_dict(),
        }
        for label, sweep in zip(sweep_labels(study.sweeps), study.sweeps, strict=True)
    ]


def _list_decision(decision: Decision) -> dict[str, Any]:
    group = dataclasses.asdict(decision.group)
    standings = group.pop("standings")
    return {
        **group,
        "state": decision.state,
        "arm": decision.arm,
        "failing": decision.failing,
        "margin": decision.margin,
        "question": decision.question,
        "more_seeds": decision.more_seeds,
        "verdicts": {
            arm: [dataclasses.asdict(verdict) for verdict in verdicts]
            for arm, verdicts in decision.verdicts.items()
        },
        "standings": standings,
    }


def _plain(value: Any) -> Any:
    """Values that JSON has, numbers of numpy among them; what is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
