"""From a screen to its confirmation: each arm's best cell by dev, chosen once, with fresh seeds.

    plan.json  confirm:  seeds, cost, chosen (one entry for each stratum and arm), passed_over

A cell is a combination of swept values without the seed. A choice is written down before any of
its trials starts and is never made again: neither by a resume, nor when the screen gets more cells.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kerzoo.records import Row
from sweeps import cost
from sweeps.compose import compose
from sweeps.events import EventLog
from sweeps.plan.base import Plan
from sweeps.plan.outcomes import Outcome, outcome_of
from sweeps.plan.trials import Entry, TrialFactory, list_cell
from sweeps.space import SEED, Cell, factors_of

Key = tuple[str, str]
"""Stratum and arm: of each one cell is confirmed."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A screened cell.

    Attributes:
        cell: Its values without the seed.
        trials: Its trials, one for each seed.
    """

    cell: Cell
    trials: tuple[str, ...]


def best_of(
    candidates: Sequence[Candidate],
    statuses: Mapping[str, str],
    rows: Mapping[str, Sequence[Row]],
) -> tuple[Candidate, Outcome] | None:
    """The cell of lowest dev loss, over its seeds, at the last rung that all reached.

    Cells whose trials all finished come first, then those that came further. Of equal ones the one
    with the lowest trial id is taken. A cell with a trial that diverged or failed, or that was
    never evaluated after an update, is not taken.

    Returns:
        The cell and what it came to; None if there is none to take.
    """
    outcomes = [(c, outcome_of(c.trials, statuses, rows)) for c in candidates]
    ranked = [(candidate, outcome) for candidate, outcome in outcomes if outcome]
    return min(ranked, key=lambda r: (r[1].order, min(r[0].trials))) if ranked else None


def find_candidates(plan: Plan) -> dict[Key, list[Candidate]]:
    """The screened cells of each stratum and arm."""
    options = dict(zip((s.trial_id for s in plan.specs), plan.options, strict=True))
    strata = cost.strata_of(options)
    screened = {spec.trial_id for spec in plan.specs if spec.phase == "screen"}
    found: dict[Key, dict[str, tuple[Cell, list[str]]]] = {}
    for listed in plan.content["cells"]:
        trial = listed["trial_id"]
        if trial not in screened:
            continue
        cell = {key: value for key, value in listed["values"].items() if key != SEED}
        cells = found.setdefault((strata[trial], listed["arm"]), {})
        _, trials = cells.setdefault(json.dumps(cell, sort_keys=True), (cell, []))
        trials.append(trial)
    return {
        key: [Candidate(cell, tuple(dict.fromkeys(trials))) for cell, trials in cells.values()]
        for key, cells in found.items()
    }


def confirm_choice(plan: Plan) -> Plan:
    """Choose where nothing was chosen yet, write it down, and plan what confirms it.

    Args:
        plan: A whole plan whose screen has ended.

    Returns:
        Its part of the phase "confirm".
    """
    section = plan.content["confirm"]
    known = {(choice["stratum"], choice["arm"]) for choice in section["chosen"]}
    chosen, passed_over = [], []
    for key, candidates in find_candidates(plan).items():
        if key in known:
            continue
        trials = {trial for candidate in candidates for trial in candidate.trials}
        folders = {trial: plan.trial_folder(trial) for trial in trials}
        best = best_of(
            candidates,
            {trial: folder.status for trial, folder in folders.items()},
            {trial: folder.rows() for trial, folder in folders.items()},
        )
        about: dict[str, Any] = {"stratum": key[0], "arm": key[1], "cells": len(candidates)}
        if best is None:
            passed_over.append(about)
            continue
        candidate, outcome = best
        about |= {"cell": candidate.cell, "trial_ids": list(candidate.trials)}
        chosen.append({**about, "rung": outcome.rung, "dev_loss": outcome.loss})
    section |= {"chosen": [*section["chosen"], *chosen], "passed_over": passed_over}
    _plan_chosen(plan, chosen)
    plan.write()
    log = EventLog(plan.folder / "events.jsonl")
    for choice in chosen:
        log.write("choice", **choice)
    return plan.part("confirm")


def recall_choice(plan: Plan) -> None:
    """Take over what was chosen in the same folder, and plan it again if it is to be confirmed."""
    path = plan.folder / "plan.json"
    if plan.sweep.fresh or not path.exists():
        return
    before = json.loads(path.read_text()).get("confirm") or {}
    if not before.get("chosen"):
        return
    if "confirm" not in plan.content:  # kept for the day on which it is asked for again
        plan.content["confirm"] = before
        return
    plan.content["confirm"]["chosen"] = before["chosen"]
    wanted = find_candidates(plan)
    _plan_chosen(plan, [c for c in before["chosen"] if (c["stratum"], c["arm"]) in wanted])


def expect_confirmation(plan: Plan) -> Plan:
    """The part of the phase "confirm", with each arm's dearest cell where none is chosen yet."""
    part = plan.part("confirm")
    seeds = plan.content["confirm"]["seeds"]
    known = {(choice["stratum"], choice["arm"]) for choice in plan.content["confirm"]["chosen"]}
    planned = zip(plan.specs, plan.options, strict=True)
    trials = {spec.trial_id: (spec, options) for spec, options in planned}
    for key, candidates in find_candidates(plan).items():
        if key in known:
            continue
        members = [trials[trial] for c in candidates for trial in c.trials]
        spec, options = trials[cost.dearest({spec.trial_id: o for spec, o in members})]
        part.specs.extend(dataclasses.replace(spec, phase="confirm", arm=key[1]) for _ in seeds)
        part.options.extend(options.with_numbers({"seed": seed}) for seed in seeds)
    return part


def _plan_chosen(plan: Plan, choices: Sequence[Mapping[str, Any]]) -> None:
    """Add the trials of choices to a plan."""
    if not choices:
        return
    factory = TrialFactory(compose(plan.content["overrides"]), "confirm")
    cells = [
        {**choice["cell"], SEED: seed}
        for seed in plan.content["confirm"]["seeds"]  # so that an early end leaves whole pairs
        for choice in choices
    ]
    _add(plan, cells, [factory.make(cell) for cell in cells])


def _add(plan: Plan, cells: Sequence[Cell], entries: Sequence[Entry]) -> None:
    known = {spec.trial_id for spec in plan.specs}
    content = plan.content
    for cell, (spec, options) in zip(cells, entries, strict=True):
        content["cells"].append(list_cell(cell, spec))
        if spec.trial_id not in known:
            known.add(spec.trial_id)
            plan.specs.append(spec)
            plan.options.append(options)
            content["trials"].append(dict(vars(spec)))
    content["factors"] = factors_of([listed["values"] for listed in content["cells"]])
