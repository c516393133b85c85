"""A command line becomes a plan."""

from __future__ import annotations

import json
import platform
import random
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kerzoo
from kerzoo.models.placement import num_gpus_of
from kerzoo.options import TrialOptions
from kerzoo.records import TrialSpec, timestamp
from sweeps import cost, schema
from sweeps.compose import Composed, compose, parse_overrides
from sweeps.plan.base import Plan
from sweeps.plan.checks import (
    check_baseline,
    check_search,
    check_seeds_are_fresh,
    check_sweep,
)
from sweeps.plan.confirm import expect_confirmation
from sweeps.plan.provenance import find_commit, find_versions
from sweeps.plan.studies import NAME, Asked, expect_generations, recall_studies
from sweeps.plan.trials import Entry, TrialFactory, find_aliases, fingerprint, list_cell
from sweeps.schedulers import enrol
from sweeps.space import Cell, expand, factors_of
from sweeps.theory import describe_kernels

SCHEMA_VERSION = 1

_OF_ONE_SWEEP = frozenset(
    {"afterwards", "budget", "confirm", "exclude", "fresh", "name", "phase", "plan_only", "reuse"}
    | {"scheduler", "search", "seeds", "space", "sweep", "time_budget_s", "tuning"}
    | {"training.learning_rate", "training.perturbation_scale"}
)
"""Overrides, or their first parts, that the sweep which follows does not take over."""


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
    sweep = base.sweep
    folder = (Path(sweep.results_dir) / sweep.name).absolute()
    asked = None if single else _recall_asked(base, folder)
    cells = asked.space.cells(asked.points_of) if asked else _expand(base, single)
    phase = "screen" if single and sweep.phase == "both" else sweep.phase
    factory = TrialFactory(base, phase)
    entries = [factory.make(cell) for cell in cells]
    specs, options = _order(entries, sweep.search.plan_seed)
    kinds = list({cost.kind_of(o): o for o in options}.values())
    check_sweep(sweep, kinds, single)
    if not single:
        _check_whole(sweep, cells, entries)
    learned = asked.describe(cells, entries) if asked else {}
    generations: dict[str, int] = learned.get("generations", {})
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
        "aliases": find_aliases(cells, entries, {t for t, n in generations.items() if n > 1}),
        "trials": [dict(vars(spec)) for spec in specs],
        **learned,
        **_enrol(sweep, specs, options, generations),
        "theory": describe_kernels(specs, options),
        "preparation": {},
    }
    if phase == "both":
        content["confirm"] = {"seeds": sweep.confirm.seed_list, "chosen": []}
    plan = Plan(sweep, folder, specs, options, content)
    content |= price(plan)
    content |= {} if single else _price_next(base, content["cost"])
    return plan


def _recall_asked(base: Composed, folder: Path) -> Asked | None:
    """What a sweep asks for and has asked for, if its search learns."""
    if base.sweep.search.name != NAME:
        return None
    check_search(base.sweep)
    return Asked(base, [] if base.sweep.fresh else recall_studies(folder))


def _check_whole(
    sweep: schema.SweepConfig, cells: Sequence[Cell], entries: Sequence[Entry]
) -> None:
    """What more than one trial is checked for."""
    if sweep.phase == "both":
        check_seeds_are_fresh(sweep, factors_of(cells), [options for _, options in entries])
    check_baseline(sweep.baseline, {spec.arm for spec, _ in entries})


def _price_next(base: Composed, cost_now: dict[str, Any]) -> dict[str, Any]:
    """What follows a sweep: the same model, task and other overrides under another sweep's space.

    Returns:
        Nothing if nothing follows, else as "afterwards" its `sweep, tuning, trials, command`; the
        forward passes that it is expected to take; what one of them costs in those of this sweep,
        both from sizes; and the memory of a trial.
    """
    if base.sweep.afterwards is None:
        return {}
    own = {o: o.partition("=")[0].lstrip("+~") for o in base.overrides}
    kept = [o for o, k in own.items() if not {k, k.partition(".")[0]} & _OF_ONE_SWEEP]
    typed = [f"+sweep={base.sweep.afterwards}", *kept]
    if "name" in own.values():
        typed.append(f"name={base.sweep.name}_{base.sweep.afterwards}")
    command = shlex.join(["python", "sweep.py", *typed])
    follower = make_plan(typed, command).content
    pass_hours, pass_hours_now = (
        c["device_hours"] / max(1, c["forward_passes"]) for c in (follower["cost"], cost_now)
    )
    told = {
        "sweep": base.sweep.afterwards,
        "tuning": follower["choices"]["tuning"],
        "trials": follower["cost"]["trials"],
        "command": command,
        "forward_passes": follower["cost"]["forward_passes_expected"],
        "pass_cost": pass_hours / pass_hours_now if pass_hours_now else None,
        "memory_gib": follower["cost"]["memory_gib_per_trial"],
    }
    return {"afterwards": told}


def _enrol(
    sweep: schema.SweepConfig,
    specs: Sequence[TrialSpec],
    options: Sequence[TrialOptions],
    generations: Mapping[str, int],
) -> dict[str, Any]:
    """What the scheduler needs; a later generation is judged apart, as its own halving."""
    strata = cost.strata_of(dict(zip((s.trial_id for s in specs), options, strict=True)))
    strata |= {t: f"{strata[t]} · generation {n}" for t, n in generations.items() if n > 1}
    raced = [s for s in specs if sweep.phase != "both" or s.phase == "screen"]
    return enrol(
        sweep.scheduler, raced, [strata[s.trial_id] for s in raced], sweep.search.plan_seed
    )


def _expand(base: Composed, single: bool) -> list[Cell]:
    sweep = base.sweep
    if single and sweep.space is None:
        return [Cell()]
    fixed = parse_overrides(base.overrides)
    return expand(sweep.space, fixed, sweep.search, sweep.seed_list, sweep.exclude)


def _order(entries: Sequence[Entry], plan_seed: int) -> tuple[list[TrialSpec], list[TrialOptions]]:
    """Each trial once: first those that make no step, which a budget always has room for.

    Within each half the order hangs on the seed and on which trials there are.
    """
    chosen: dict[str, Entry] = {}
    for entry in entries:
        chosen.setdefault(entry[0].trial_id, entry)
    order = sorted(chosen)
    random.Random(plan_seed).shuffle(order)
    order.sort(key=lambda trial: bool(chosen[trial][0].rungs))
    return [chosen[trial][0] for trial in order], [chosen[trial][1] for trial in order]


def price(plan: Plan, forward_pass_s: float | None = None) -> dict[str, Any]:
    """The entries of plan.json about cost, from sizes or from a measured forward pass."""
    whole = expect_generations(plan)
    if "confirm" not in plan.content:
        return {"cost": summarise(whole.options, whole.specs, plan.sweep, forward_pass_s)}
    screen, confirm = whole.part("screen"), expect_confirmation(plan)
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
    num_gpus = num_gpus_of(sweep.cluster.gpus_per_trial)
    return cost.summarise(options, rule, len(arms), len(seeds), forward_pass_s, margin, num_gpus)


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
