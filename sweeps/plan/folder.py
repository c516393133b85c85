"""The results folder that a plan joins: what it may be joined by, and what it remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kerzoo.records import ENDED, timestamp
from sweeps.compose import ConfigError
from sweeps.plan.assembly import price
from sweeps.plan.base import Plan

_EXTENDABLE = frozenset({"model", "model revision", "task", "data"})
"""Of these a plan may have fewer or more than the one before it in the same folder."""


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
    for spec in plan.specs if plan.sweep.phase == "both" else ():
        folder = plan.trial_folder(spec.trial_id)
        if (
            spec.phase == "confirm"
            and folder.status in ENDED
            and folder.read()["phase"] == "screen"
        ):
            raise ConfigError(
                f"{folder.path} was screened, and has no test figure: {spec.arm} draws no seed, so "
                "that confirming it would be the same trial. Choose name=NAME or fresh=true"
            )


def recall_preparation(plan: Plan) -> None:
    """Take over what an earlier start in the same folder measured, and what it had asked for."""
    path = plan.folder / "plan.json"
    if plan.sweep.fresh or not path.exists():
        return
    before = json.loads(path.read_text())
    if "studies" in before:  # kept for the day on which the search learns again
        plan.content.setdefault("studies", before["studies"])
    preparation = before.get("preparation") or {}
    if "forward_pass_s" in preparation:
        forward_pass_s = float(preparation["forward_pass_s"])
        plan.content.update(preparation=preparation, **price(plan, forward_pass_s))


def archive(folder: Path) -> Path | None:
    """Move a results folder aside; returns where it went, or None if there was none."""
    if not folder.exists():
        return None
    stamp = timestamp().replace(":", "").replace("+0000", "Z")
    target = folder.with_name(f"{folder.name}.archived-{stamp}")
    folder.rename(target)
    return target


def _agree(key: str, before: Any, now: Any) -> bool:
    """Whether two plans may share a folder: of several models and tasks there may be fewer."""
    if before == now or (key == "phase" and {before, now} == {"screen", "both"}):
        return True
    if key not in _EXTENDABLE or not isinstance(before, list):
        return False
    return min(len(before), len(now)) > 0 and (set(before) <= set(now) or set(now) <= set(before))


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
