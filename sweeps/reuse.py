"""Trials that other sweeps have finished are taken over and not run again.

A trial's id is a hash of all that decides its numbers, so that a finished trial of that id that was
evaluated at the same rungs in the same phase is the one that a plan asks for. It is copied into the
plan's own folder, large files as hard links where that is possible, and `reused_from` in its
trial.json says where it came from. Anything that is not whole is left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kerzoo.records import TrialFolder, TrialSpec, write_json
from kerzoo.trajectory import read_trajectory
from sweeps.compose import ConfigError
from sweeps.events import EventLog
from sweeps.plan import Plan

APPENDED = frozenset({"records.jsonl", "trajectory.msgpack", "log.txt"})
"""Files that a later attempt would write into, and that two sweeps must not share."""


def find_reusable(plan: Plan) -> dict[str, Path]:
    """The plan's trials that other folders hold finished, and it does not hold at all.

    Returns:
        Trial id → the trial's folder elsewhere; of several the first by the order of `reuse` and
        then by name.

    Raises:
        ConfigError: If a folder that `reuse` names does not exist.
    """
    stores = list(find_stores(plan))
    if not stores:
        return {}
    wanted = {spec.trial_id: spec for spec in plan.specs}
    if not plan.sweep.fresh:
        wanted = {t: s for t, s in wanted.items() if plan.trial_folder(t).status == "planned"}
    found: dict[str, Path] = {}
    for store in stores:
        for trial in sorted(wanted.keys() & set(os.listdir(store)) - found.keys()):
            if is_the_same(wanted[trial], TrialFolder(store / trial)):
                found[trial] = store / trial
    return found


def find_stores(plan: Plan) -> Iterator[Path]:
    """The folders of trials in which to look: `trials` of each results folder but the plan's own.

    Archived results are looked into only where `reuse` names them.
    """
    own = plan.folder / "trials"
    for root in _roots(plan):
        if not root.is_dir():
            raise ConfigError(f"reuse: no such folder: {root}")
        inside = [path for path in sorted(root.glob("*/trials")) if _is_current(path.parent)]
        for store in (root / "trials", *inside):
            if store.is_dir() and store.resolve() != own.resolve():
                yield store


def _roots(plan: Plan) -> list[Path]:
    if plan.sweep.reuse is None:
        return []
    if plan.sweep.reuse == "auto":
        return [plan.folder.parent] if plan.folder.parent.is_dir() else []
    named = plan.sweep.reuse
    return [Path(path) for path in (named if isinstance(named, list) else [named])]


def _is_current(results: Path) -> bool:
    return ".archived-" not in results.name


def is_the_same(spec: TrialSpec, folder: TrialFolder) -> bool:
    """Whether a folder holds a trial whole: all rows and steps, to the end of its budget."""
    try:
        content = folder.read()
        rows = folder.rows()
        same = content["phase"] == spec.phase and content["rungs"] == spec.rungs
        if content["status"] != "finished" or not same:
            return False
        if [row["rung"] for row in rows] != [0, *spec.rungs]:
            return False
        steps = len(read_trajectory(folder.trajectory_path))
        return not folder.trajectory_path.exists() or steps >= rows[-1]["step"]
    except (OSError, ValueError, KeyError):
        return False  # not a trial, or one that is being copied at this moment


def take_over(plan: Plan, found: Mapping[str, Path] | None = None) -> int:
    """Copy finished trials into the plan's folder; returns how many.

    Args:
        plan: The plan.
        found: As from `find_reusable`, which is called for None.
    """
    found = find_reusable(plan) if found is None else found
    specs = {spec.trial_id: spec for spec in plan.specs}
    for trial, source in found.items():
        where = os.path.relpath(source, plan.folder)
        _copy(source, plan.trial_folder(trial).path, specs[trial], where)
        EventLog(plan.folder / "events.jsonl").write("reused", trial_id=trial, reused_from=where)
    return len(found)


def _copy(source: Path, target: Path, spec: TrialSpec, where: str) -> None:
    """Make a trial's folder beside its place, then put it there whole."""
    temporary = target.with_name(f".reusing-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        source, temporary, copy_function=_link_or_copy, ignore=shutil.ignore_patterns(".*")
    )
    content: dict[str, Any] = json.loads((source / "trial.json").read_text())
    content.setdefault("reused_from", where)
    (temporary / "trial.json").unlink()
    write_json(temporary / "trial.json", {**content, **dataclasses.asdict(spec)})
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _link_or_copy(source: str, target: str) -> None:
    if os.path.basename(source) not in APPENDED:
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
    shutil.copy2(source, target)


def describe_reusable(plan: Plan) -> list[str]:
    """How many trials are taken over, and from where, for the printed plan."""
    if plan.sweep.reuse is None:
        return []
    found = find_reusable(plan)
    folders = [os.path.relpath(path.parent.parent) for path in found.values()]
    counts = {folder: folders.count(folder) for folder in dict.fromkeys(folders)}
    listed = ", ".join(f"{count} from {folder}" for folder, count in counts.items())
    return [f"{len(found)} trials reused" + (f": {listed}" if listed else "")]
