"""What planning decides for the scheduler: strata, controls and brackets, in plan.json."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kerzoo.records import TrialSpec
from sweeps.schedulers.base import Scheduler
from sweeps.schedulers.standings import Entrant


def enrol(
    scheduler: Scheduler, specs: Sequence[TrialSpec], strata: Iterable[str], plan_seed: int
) -> dict[str, Any]:
    """The entries of plan.json that the scheduler needs.

    Each trial is drawn by itself, from the plan's seed and its id: extending a plan changes no
    earlier draw, and every arm of a stratum has `control_fraction` of its trials as controls in
    expectation (a small arm may have none).

    Args:
        scheduler: Of the sweep.
        specs: All trials.
        strata: Each trial's stratum, in the same order.
        plan_seed: `search.plan_seed`.

    Returns:
        `strata`, stratum → trial ids; `control_trials`, trial ids; `brackets`, trial id →
        bracket, empty where the scheduler has only one.
    """
    by_stratum: dict[str, list[str]] = {}
    for spec, stratum in zip(specs, strata, strict=True):
        by_stratum.setdefault(stratum, []).append(spec.trial_id)
    return {
        "strata": by_stratum,
        "control_trials": [
            spec.trial_id
            for spec in specs
            if draw(plan_seed, "control", spec.trial_id) < scheduler.control_fraction
        ],
        "brackets": {
            spec.trial_id: draw_bracket(scheduler, len(spec.rungs), plan_seed, spec.trial_id)
            for spec in specs
            if len(scheduler.bracket_weights(len(spec.rungs))) > 1
        },
    }


def entrants_of(scheduler: Scheduler, plan: Mapping[str, Any]) -> list[Entrant]:
    """The trials of plan.json as the scheduler sees them; those without a stratum never stop."""
    strata = {trial: name for name, trials in plan["strata"].items() for trial in trials}
    controls = frozenset(plan["control_trials"])
    entrants = []
    for spec in plan["trials"]:
        trial, rungs = spec["trial_id"], tuple(spec["rungs"])
        bracket = plan["brackets"].get(trial, 0)
        entrants.append(
            Entrant(
                trial=trial,
                arm=spec["arm"],
                rungs=rungs,
                decided_rungs=scheduler.decided_rungs(rungs, bracket) if trial in strata else (),
                stratum=strata.get(trial, ""),
                bracket=bracket,
                exempt=trial in controls,
            )
        )
    return entrants


def draw(plan_seed: int, purpose: str, trial: str) -> float:
    """A number in [0, 1), uniform over trials."""
    digest = hashlib.sha256(f"{plan_seed} {purpose} {trial}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def draw_bracket(scheduler: Scheduler, num_rungs: int, plan_seed: int, trial: str) -> int:
    """A trial's bracket, by the scheduler's weights."""
    weights = scheduler.bracket_weights(num_rungs)
    rest = draw(plan_seed, "bracket", trial) * sum(weights)
    for bracket, weight in enumerate(weights):
        if rest < weight:
            return bracket
        rest -= weight
    return len(weights) - 1
