"""A command line becomes a plan."""

from __future__ import annotations

import json
import platform
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kerzoo
from kerzoo.options import TrialOptions
from kerzoo.records import TrialSpec, timestamp
from sweeps import cost, schema
from sweeps.compose import Composed, compose, parse_overrides
from sweeps.plan.base import Plan
from sweeps.plan.checks import (
    check_baseline,
    check_confirmation,
    check_gpus_per_trial,
    check_seeds_are_fresh,
)
from sweeps.plan.confirm import expect_confirmation
from sweeps.plan.provenance import find_commit, find_versions
from sweeps.plan.trials import Entry, TrialFactory, find_aliases, fingerprint, list_cell
from sweeps.schedulers import enrol
from sweeps.space import Cell, expand, factors_of
from sweeps.theory import describe_kernels

SCHEMA_VERSION = 1


def make_plan(overrides: Sequence[str], command: str, single: bool = False) -> Plan:
    """Compose, expand, validate and identify all trials of a command line.

    Args:
        overrides: Hydra overrides, as typed.
        command: The command as typed, for plan.json.
        single: Plan one trial: without a space the configuration itself is the only cell.

    Raises:
        ConfigError: For anything wrong, naming the key; nothing was written.
    """
    base = compose(overrides)
    sweep, cells = base.sweep, _expand(base, single)
    phase = "screen" if single and sweep.phase == "both" else sweep.phase
    factory = TrialFactory(base, phase)
    entries = [factory.make(cell) for cell in cells]
    specs, options = _order(entries, sweep.search.plan_seed)
    kinds = list({cost.kind_of(o): o for o in options}.values())
    check_gpus_per_trial(sweep.cluster.gpus_per_trial, kinds)
    check_confirmation(sweep, kinds, single)
    if phase == "both":
        check_seeds_are_fresh(sweep, factors_of(cells), options)
    if not single:
        check_baseline(sweep.baseline, {spec.arm for spec, _ in entries})
    raced = [s for s in specs if phase != "both" or s.phase == "screen"]
    strata = cost.strata_of(dict(zip((s.trial_id for s in specs), options, strict=True)))
    content = {
        "schema_version": SCHEMA_VERSION,
        "name": sweep.name,
        "description": sweep.description,
        "created": timestamp(),
        "command": command,
        "overrides": list(overrides),
        "choices": base.choices,
        "config": base.config,
        "plan_seed": sweep.search.plan_seed,
        "rungs": sorted({rung for spec in specs for rung in spec.rungs}),
        "versions": find_versions(),
        "commit": find_commit(),
        "method_version": kerzoo.METHOD_VERSION,
        "machine": platform.platform(),
        "fixed": {**_fixed(kinds), "phase": sweep.phase},
        "factors": factors_of(cells),
        "baseline": sweep.baseline,
        "cells": [list_cell(c, spec) for c, (spec, _) in zip(cells, entries, strict=True)],
        "aliases": find_aliases(cells, entries),
        "trials": [dict(vars(spec)) for spec in specs],
        **enrol(
            sweep.scheduler, raced, [strata[s.trial_id] for s in raced], sweep.search.plan_seed
        ),
        "theory": describe_kernels(specs, options),
        "preparation": {},
    }
    if phase == "both":
        content["confirm"] = {"seeds": sweep.confirm.seed_list, "chosen": []}
    folder = (Path(sweep.results_dir) / sweep.name).absolute()
    plan = Plan(sweep, folder, specs, options, content)
    content |= price(plan)
    return plan


def _expand(base: Composed, single: bool) -> list[Cell]:
    sweep = base.sweep
    if single and sweep.space is None:
        return [Cell()]
    fixed = parse_overrides(base.overrides)
    return expand(sweep.space, fixed, sweep.search, sweep.seed_list, sweep.exclude)


def _order(entries: Sequence[Entry], plan_seed: int) -> tuple[list[TrialSpec], list[TrialOptions]]:
    """Each trial once, in an order that hangs on the seed and on which trials there are."""
    chosen: dict[str, Entry] = {}
    for entry in entries:
        chosen.setdefault(entry[0].trial_id, entry)
    order = sorted(chosen)
    random.Random(plan_seed).shuffle(order)
    return [chosen[trial][0] for trial in order], [chosen[trial][1] for trial in order]


def price(plan: Plan, forward_pass_s: float | None = None) -> dict[str, Any]:
    """The entries of plan.json about cost, from sizes or from a measured forward pass."""
    if "confirm" not in plan.content:
        return {"cost": summarise(plan.options, plan.specs, plan.sweep, forward_pass_s)}
    screen, confirm = plan.part("screen"), expect_confirmation(plan)
    then = summarise(confirm.options, confirm.specs, confirm.sweep, forward_pass_s)
    now = then  # where no trial draws a seed there is no screen
    if screen.specs:
        now = summarise(screen.options, screen.specs, screen.sweep, forward_pass_s)
    return {"cost": now, "confirm": {**plan.content["confirm"], "cost": then}}


def summarise(
    options: Sequence[TrialOptions],
    specs: Sequence[TrialSpec],
    sweep: schema.SweepConfig,
    forward_pass_s: float | None = None,
) -> dict[str, Any]:
    """Cost of some trials of a plan, from sizes or from a measured step."""
    seeds = {(o.training.seed, o.task.data_seed) for o in options}
    arms = {spec.arm for spec in specs}
    rule, margin = sweep.scheduler.rule, sweep.margins.score
    return cost.summarise(options, rule, len(arms), len(seeds), forward_pass_s, margin)


def _fixed(options: Sequence[TrialOptions]) -> dict[str, Any]:
    """What all plans in one results folder must agree on."""

    def distinct(values: Sequence[Any]) -> list[Any]:
        return sorted({json.dumps(value) for value in values})

    return {
        "model": distinct([o.model.name for o in options]),
        "model revision": distinct([fingerprint(o.model) for o in options]),
        "task": distinct([o.task.name for o in options]),
        "data": distinct([f"{o.task.name}: {fingerprint(o.task)}" for o in options]),
        "budget (training.forward_passes)": distinct([o.training.forward_passes for o in options]),
        "rungs (training.rungs)": distinct([o.training.nominal_rungs for o in options]),
    }
