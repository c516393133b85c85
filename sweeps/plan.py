"""The plan: the explicit list of trials, each with its identity, in the order they start."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import platform
import random
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kerzoo
from kerzoo.identity import signature, trial_id
from kerzoo.options import TrialOptions
from kerzoo.records import TrialFolder, TrialSpec, timestamp, write_json
from sweeps import cost, schema
from sweeps.compose import Composed, ConfigError, compose, format_override, parse_overrides
from sweeps.halving import HalvingRule
from sweeps.space import Cell, expand, factors_of, split_cell

SCHEMA_VERSION = 1
PACKAGES = ("torch", "transformers", "peft", "ray", "hydra-core", "wandb", "numpy")
ROOT = Path(__file__).resolve().parent.parent
_SWEEP_KEYS = (
    frozenset(field.name for field in dataclasses.fields(schema.SweepConfig))
    - frozenset(schema.TRIAL_GROUPS)
    - {"phase", "data_root"}
)
"""Overrides that a trial of its own does not need."""
_EXTENDABLE = frozenset({"model", "model revision", "task", "data"})
"""Of these a plan may have fewer or more than the one before it in the same folder."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A validated plan.

    Attributes:
        sweep: The sweep's own values.
        folder: Its results folder.
        specs: The trials, in starting order.
        options: The same trials as objects.
        content: What plan.json holds.
    """

    sweep: schema.SweepConfig
    folder: Path
    specs: list[TrialSpec]
    options: list[TrialOptions]
    content: dict[str, Any]

    def trial_folder(self, trial: str) -> TrialFolder:
        """The folder of a trial."""
        return TrialFolder(self.folder / "trials" / trial)

    def write(self, **values: Any) -> None:
        """Write plan.json, with some entries replaced."""
        self.content.update(values)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "plan.json", self.content)

    def create_trials(self) -> None:
        """Write a trial.json for each new trial."""
        for spec in self.specs:
            self.trial_folder(spec.trial_id).create(spec)

    def check_available(self) -> None:
        """Check that models and data can be had, before any work starts.

        Raises:
            ConfigError: Saying what is missing and which settings help.
        """
        models = {repr(options.model): options.model for options in self.options}
        tasks = {repr(options.task): options.task for options in self.options}
        splits = ("train", "dev", "test") if self.sweep.phase == "confirm" else ("train", "dev")
        try:
            for model in models.values():
                model.check_available()
            for task in tasks.values():
                task.check_available(splits)
        except ValueError as error:
            raise ConfigError(str(error)) from error


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
    cells = (
        [Cell()]
        if single and sweep.space is None
        else expand(sweep.space, parse_overrides(overrides))
    )
    entries = [_compose_cell(base, cell) for cell in cells]
    chosen: dict[str, tuple[TrialSpec, TrialOptions]] = {}
    for entry in entries:
        chosen.setdefault(entry[0].trial_id, entry)
    order = sorted(chosen)
    random.Random(sweep.search.plan_seed).shuffle(order)
    specs = [chosen[trial][0] for trial in order]
    options = [chosen[trial][1] for trial in order]
    check_gpus_per_trial(sweep.cluster.gpus_per_trial, options)
    check_confirmation(sweep, options, single)
    if not single:
        _check_baseline(sweep.baseline, {spec.arm for spec, _ in entries})
    listed = [_list_cell(c, *entry) for c, entry in zip(cells, entries, strict=True)]
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
        "versions": _versions(),
        "commit": _commit(),
        "method_version": kerzoo.METHOD_VERSION,
        "machine": platform.platform(),
        "fixed": {**_fixed(options), "phase": sweep.phase},
        "factors": factors_of(cells),
        "baseline": sweep.baseline,
        "cells": listed,
        "aliases": find_aliases(listed),
        "trials": [dataclasses.asdict(spec) for spec in specs],
        "cost": summarise(options, specs, sweep.scheduler.rule),
        "preparation": {},
    }
    folder = (Path(sweep.results_dir) / sweep.name).absolute()
    return Plan(sweep, folder, specs, options, content)


def check_gpus_per_trial(gpus_per_trial: float, options: Sequence[TrialOptions]) -> None:
    """Refuse several GPUs for a trial that trains: θ is one vector, on one device.

    Raises:
        ConfigError: Saying what a trial needs, and the settings that lower it.
    """
    training = [o for o in options if o.training.device == "cuda" and _num_trainable(o)]
    if gpus_per_trial <= 1 or not training:
        return
    memory = max(cost.estimate_trial(o).memory_gib for o in training)
    raise ConfigError(
        f"cluster.gpus_per_trial: must be at most 1 where parameters are trained, because they are "
        f"one vector on one GPU, got {gpus_per_trial:g}. A trial here needs about {memory:.0f} GiB "
        "of memory (estimated); if no GPU has that, tuning=lora, tuning=full_last6, "
        "model.dtype=bfloat16 or training.precision=inplace_half (which drifts) need less"
    )


def check_confirmation(
    sweep: schema.SweepConfig, options: Sequence[TrialOptions], single: bool
) -> None:
    """Refuse a confirmation that would stop trials early, or that has nothing to test.

    Raises:
        ConfigError: Naming the setting that helps.
    """
    if sweep.phase != "confirm":
        return
    if sweep.scheduler.name != "fifo" and not single:
        raise ConfigError(
            "scheduler: phase=confirm runs every trial to its end, because a stopped one has no "
            f"test figure; set scheduler=fifo, got {sweep.scheduler.name}"
        )
    for task in {o.task.name: o.task for o in options}.values():
        if not task.num_test:
            raise ConfigError(
                f"task.num_test: phase=confirm reads the test split; it must be at least 1 for "
                f"{task.name}, got 0"
            )
    for method in {o.method for o in options if o.rungs and not o.method.changes_weights}:
        raise ConfigError(
            f"arm: phase=confirm rebuilds the checkpoint that dev chose, and "
            f"{type(method).__name__} keeps none; leave its arm out, or take phase=screen"
        )


def _check_baseline(baseline: str, arms: set[str]) -> None:
    if baseline not in arms:
        raise ConfigError(
            f"baseline: no cell has the arm {baseline!r}; arms here: " + ", ".join(sorted(arms))
        )


def find_aliases(cells: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Groups of arms that do the same up to the learning rate, cell by cell."""
    signatures: dict[str, set[str]] = {}
    for cell in cells:
        signatures.setdefault(cell["arm"], set()).add(cell["signature"])
    groups: dict[frozenset[str], list[str]] = {}
    for arm in sorted(signatures):
        groups.setdefault(frozenset(signatures[arm]), []).append(arm)
    return [arms for arms in groups.values() if len(arms) > 1]


def summarise(
    options: Sequence[TrialOptions],
    specs: Sequence[TrialSpec],
    rule: HalvingRule,
    forward_pass_s: float | None = None,
) -> dict[str, Any]:
    """Cost of some trials of a plan, from sizes or from a measured step."""
    seeds = {(o.training.seed, o.task.data_seed) for o in options}
    arms = {spec.arm for spec in specs}
    return cost.summarise(options, rule, len(arms), len(seeds), forward_pass_s)


def check_same_study(plan: Plan) -> None:
    """Refuse to mix another model, task, data or budget into a folder that holds results.

    Raises:
        ConfigError: Naming the difference, and `name=` and `fresh=true`.
    """
    path = plan.folder / "plan.json"
    if not path.exists():
        return
    try:
        before: dict[str, Any] = json.loads(path.read_text())["fixed"]
    except (json.JSONDecodeError, KeyError) as error:
        raise ConfigError(f"{path}: not a plan of this version; use name= or fresh=true") from error
    if not any((plan.folder / "trials").glob("*/records.jsonl")):
        return
    before = {"phase": "screen", **before}
    for key, now in plan.content["fixed"].items():
        if not _agree(key, before.get(key), now):
            raise ConfigError(
                f"{plan.folder} holds results of another study: {key} was "
                f"{_show(before.get(key))} and is now {_show(now)}. Choose another folder with "
                "name=NAME, or archive the old results with fresh=true"
            )


def _agree(key: str, before: Any, now: Any) -> bool:
    """Whether two plans may share a folder: of several models and tasks there may be fewer."""
    if before == now:
        return True
    if key not in _EXTENDABLE or not isinstance(before, list):
        return False
    return min(len(before), len(now)) > 0 and (set(before) <= set(now) or set(now) <= set(before))


def recall_preparation(plan: Plan) -> None:
    """Take over what an earlier start in the same folder measured."""
    path = plan.folder / "plan.json"
    if plan.sweep.fresh or not path.exists():
        return
    preparation = json.loads(path.read_text()).get("preparation") or {}
    if "forward_pass_s" in preparation:
        forward_pass_s = float(preparation["forward_pass_s"])
        plan.content["preparation"] = preparation
        plan.content["cost"] = summarise(
            plan.options, plan.specs, plan.sweep.scheduler.rule, forward_pass_s
        )


def archive(folder: Path) -> Path | None:
    """Move a results folder aside; returns where it went, or None if there was none."""
    if not folder.exists():
        return None
    stamp = timestamp().replace(":", "").replace("+0000", "Z")
    target = folder.with_name(f"{folder.name}.archived-{stamp}")
    folder.rename(target)
    return target


def _compose_cell(base: Composed, cell: Cell) -> tuple[TrialSpec, TrialOptions]:
    groups, values = split_cell(cell)
    kept = [o for o in base.overrides if _key(o) not in groups]
    composed = compose([*kept, *(f"{group}={option}" for group, option in groups.items())])
    config = composed.trial_config(values)
    try:
        options = TrialOptions.from_config(config)
        identity = _identify(config, options)
    except ValueError as error:
        raise ConfigError(_describe(error, cell)) from error
    own = [o for o in kept if _key(o).partition(".")[0] not in _SWEEP_KEYS and _key(o) not in cell]
    overrides = own + [format_override(key, value) for key, value in cell.items()]
    choices = {g: composed.choices[g] for g in schema.TRIAL_GROUPS}
    spec = TrialSpec(
        trial_id=identity,
        arm=str(config["arm"]["name"]),
        phase=base.sweep.phase,
        overrides=overrides,
        choices=choices,
        config=config,
        rungs=options.rungs,
        command=shlex.join(["python", "-m", "sweeps.trial", *overrides]),
    )
    return spec, options


def _list_cell(cell: Cell, spec: TrialSpec, options: TrialOptions) -> dict[str, Any]:
    return {
        "values": cell,
        "trial_id": spec.trial_id,
        "arm": spec.arm,
        "signature": signature(options, spec.config),
    }


def _identify(config: dict[str, Any], options: TrialOptions) -> str:
    return trial_id(config, options.kernel, _fingerprint(options.model), _fingerprint(options.task))


@functools.lru_cache(maxsize=64)
def _fingerprint(source: Any) -> str:
    return str(source.fingerprint())


def _fixed(options: Sequence[TrialOptions]) -> dict[str, Any]:
    """What all plans in one results folder must agree on."""

    def distinct(values: Sequence[Any]) -> list[Any]:
        return sorted({json.dumps(value) for value in values})

    return {
        "model": distinct([o.model.name for o in options]),
        "model revision": distinct([_fingerprint(o.model) for o in options]),
        "task": distinct([o.task.name for o in options]),
        "data": distinct([f"{o.task.name}: {_fingerprint(o.task)}" for o in options]),
        "budget (training.forward_passes)": distinct([o.training.forward_passes for o in options]),
        "rungs (training.rungs)": distinct([o.training.nominal_rungs for o in options]),
    }


def _num_trainable(options: TrialOptions) -> int:
    return options.method.tuning(options).count_parameters(options.model.sizes)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _describe(error: ValueError, cell: Mapping[str, Any]) -> str:
    where = ", ".join(f"{key}={value}" for key, value in cell.items())
    return f"{error} (in the cell {where})" if where else str(error)


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "kerzoo": kerzoo.__version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    """The project's commit, with "+" when files differ from it; None outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
