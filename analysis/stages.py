"""What to run next, by which command, and what it would cost: facts, without words."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from analysis.decision import Decision, drop_screened
from analysis.load import ARM, SEED, Study, sweep_labels
from analysis.sources import Results

Kind = Literal["finish", "mend", "confirm", "more", "retune", "elsewhere", "none", "then"]
"""Run the open trials; see why none has a result; the best cells on fresh seeds; further seeds;
other settings, as no method beat the untrained model; what the sweep says that confirmed this one;
nothing; the sweep after."""

CONFIRM_SEEDS = 5
OPEN = ("planned", "running", "interrupted")
_REPLACED = frozenset(
    {"confirm", "exclude", "fresh", "name", "phase", "plan_only"}
    | {"reuse", "scheduler", "search", "seeds", "space"}
)
"""First parts of the overrides that a next stage has of its own."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A next step.

    Attributes:
        kind: What it is.
        trials: To run.
        seeds: For each cell, where that matters.
        arms: How many arms.
        seconds: Estimated device seconds, evaluation included; NaN where nothing was timed.
        money: At the plan's price of a GPU hour; NaN without one.
        command: To be typed; empty where the records do not say how they were made.
        tuning: Of the sweep that comes after.
        memory_gib: Of one of its trials, as planned.
        then: The sweep that comes after this stage, where the plan names one.
    """

    kind: Kind
    trials: int = 0
    seeds: int = 0
    arms: int = 0
    seconds: float = math.nan
    money: float = math.nan
    command: str = ""
    tuning: str = ""
    memory_gib: float = math.nan
    then: Stage | None = None


def plan_next(study: Study, decisions: Sequence[Decision]) -> list[Stage]:
    """A next stage for each sweep of the study."""
    current = drop_screened(decisions)
    stages = []
    for label, sweep in zip(sweep_labels(study.sweeps), study.sweeps, strict=True):
        clock = _Clock(study, label, sweep.plan)
        mine = [d for d in decisions if d.group.sweep == label]
        stage = _plan_now(study, label, sweep, clock, mine, current)
        stages.append(dataclasses.replace(stage, then=_plan_then(sweep, clock)))
    return stages


def _plan_now(
    study: Study,
    label: str,
    sweep: Results,
    clock: _Clock,
    decisions: list[Decision],
    current: list[Decision],
) -> Stage:
    """A sweep's stage, by its decisions and by those of all sweeps that are not outdated."""
    trials = study.planned_trials(label)
    left = trials[trials["status"].isin(OPEN)]
    unknown = _list_unknown(sweep.plan, trials)
    if len(left) or unknown:
        done = study.last_rows[study.last_rows["sweep"].isin(trials["sweep"])].set_index("trial_id")
        done = done["forward_passes"].reindex(left["trial_id"]).fillna(0).to_numpy()
        budgets = [max(rungs, default=0) for rungs in left["rungs"]]
        pairs = [*zip(left["arm"], budgets, done, strict=True), *unknown]
        seconds = math.fsum(clock.run(arm, max(0, whole - at)) for arm, whole, at in pairs)
        command = _write_finish(sweep.plan)
        return clock.price(Stage("finish", len(pairs), seconds=seconds, command=command))
    if not decisions:
        return Stage("mend", command=str(sweep.plan.get("command") or ""))
    decisions = [d for d in decisions if d in current]
    if not decisions:
        return Stage("elsewhere")
    screened = [d for d in decisions if d.state in ("leads", "alone")]
    if screened:
        seeds = _fresh_seeds(trials)
        return _repeat(study, sweep, clock, "confirm", screened, seeds)
    unclear = [d for d in decisions if d.state == "undecided" and d.more_seeds]
    if unclear:
        more = max(d.more_seeds or 0 for d in unclear)
        seeds = _fresh_seeds(trials, more)
        return _repeat(study, sweep, clock, "more", unclear, seeds)
    return Stage("retune" if any(d.state == "untrained" for d in decisions) else "none")


def _list_unknown(plan: Mapping[str, Any], trials: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Arm, budget and 0 of each trial that a search which learns has yet to choose, as planned."""
    search = plan.get("search")
    entries = search.get("unknown") if isinstance(search, Mapping) else None
    known = {row["trial_id"]: row for row in trials.to_dict("records")}
    return [
        (str(known[entry["like"]]["arm"]), max(known[entry["like"]]["rungs"], default=0), 0)
        for entry in entries or []
        if entry["like"] in known
        for _ in range(int(entry["trials"]))
    ]


def _plan_then(sweep: Results, clock: _Clock) -> Stage | None:
    """What the plan says comes after this sweep, in the time that its forward passes took here."""
    told = sweep.plan.get("afterwards")
    if not isinstance(told, Mapping):
        return None
    passes = float(told["forward_passes"]) * float(told["pass_cost"] or math.nan)
    return clock.price(
        Stage(
            "then",
            int(told["trials"]),
            seconds=clock.run("", passes),
            command=str(told["command"]),
            tuning=str(told["tuning"]),
            memory_gib=float(told["memory_gib"]),
        )
    )


def _fresh_seeds(trials: pd.DataFrame, number: int = CONFIRM_SEEDS) -> list[int]:
    known = pd.to_numeric(trials["seed"], errors="coerce").dropna()
    first = int(known.max()) + 1 if len(known) else 1
    return list(range(first, first + number))


class _Clock:
    """How long trials take, from those of the same arm that were timed."""

    def __init__(self, study: Study, label: str, plan: Mapping[str, Any]) -> None:
        last = study.last_rows[study.last_rows["sweep"] == label]
        timed = last.merge(study.trials[["sweep", "trial_id", "arm"]], on=["sweep", "trial_id"])
        timed = timed[timed["forward_passes"] > 0]
        sums = timed.groupby("arm")[["device_time_s", "eval_time_s", "forward_passes"]].sum()
        rates = (sums["device_time_s"] + sums["eval_time_s"]) / sums["forward_passes"]
        self._rates = {str(arm): float(rate) for arm, rate in rates.items()}
        self._mean = float(rates.mean()) if len(rates) else math.nan
        budget = (plan.get("config") or {}).get("budget") or {}
        self._price = budget.get("price_per_gpu_hour") if isinstance(budget, dict) else None

    def run(self, arm: str, forward_passes: float) -> float:
        """Device seconds of so many forward passes, with the evaluations among them."""
        return self._rates.get(arm, self._mean) * forward_passes

    def price(self, stage: Stage) -> Stage:
        """The stage with its cost in money."""
        if not isinstance(self._price, int | float):
            return stage
        return dataclasses.replace(stage, money=stage.seconds / 3600 * self._price)


def _repeat(
    study: Study,
    sweep: Results,
    clock: _Clock,
    kind: Kind,
    decisions: Sequence[Decision],
    seeds: Sequence[int],
) -> Stage:
    """The chosen cell of every arm that trains, on other seeds; those that have run stay."""
    standings = [standing for decision in decisions for standing in decision.group.standings]
    settings = [setting for standing in standings for setting in standing.settings]
    cells = study.cells[study.cells["setting"].isin(settings) & study.cells["trains"].astype(bool)]
    first = cells.drop_duplicates("setting")
    budgets = [max(rungs, default=0) for rungs in first["rungs"]]
    each = [clock.run(arm, whole) for arm, whole in zip(first["arm"], budgets, strict=True)]
    kept = sorted({int(s) for s in cells["seed"].dropna()}) if kind == "more" else []
    stage = Stage(
        kind,
        trials=len(first) * len(seeds),
        seeds=len(seeds),
        arms=first["arm"].nunique(),
        seconds=math.fsum(each) * len(seeds),
        command=_write_command(sweep, first, [*kept, *seeds], kind),
    )
    return clock.price(stage)


def _write_command(sweep: Results, cells: pd.DataFrame, seeds: list[int], kind: Kind) -> str:
    """The sweep's own command with another space, in Hydra's grammar.

    Further seeds join the sweep's folder, or take its trials over into one of their own.
    """
    overrides = sweep.plan.get("overrides")
    if not isinstance(overrides, list) or not sweep.plan.get("command"):
        return ""
    values = {c["trial_id"]: c["values"] for c in sweep.plan["cells"]}
    blocks: dict[str, dict[str, list[Any]]] = {}
    for arm, trial_id in zip(cells["arm"], cells["trial_id"], strict=True):
        told = {k: [v] for k, v in values[trial_id].items() if k not in (SEED, "task.data_seed")}
        arms = told.pop(ARM, None)
        block = blocks.setdefault(json.dumps(told, sort_keys=True), {})
        if arms:
            block.setdefault(ARM, []).append(arm)
        block |= {**told, SEED: list(seeds)}
    space = ",".join(_in_hydra(block) for block in blocks.values())
    beside = kind == "confirm" or _has_screened(sweep.plan)  # what was screened has its own folder
    name = f"{sweep.name}_confirm" if beside else sweep.name
    swept = {key for block in blocks.values() for key in block}
    typed = {str(o): _key_of(str(o)) for o in overrides}
    gone = swept | set(_limits(sweep.plan))
    kept = [o for o, k in typed.items() if k not in gone and k.split(".")[0] not in _REPLACED]
    arguments = [*kept, f"name={name}", "phase=confirm", "scheduler=fifo", "search=grid"]
    arguments += ["reuse=auto"] if kind == "more" and beside else []
    arguments += [*_undo(sweep.plan), "~space"]
    return shlex.join(["python", "sweep.py", *map(str, arguments), f"+space=[{space}]"])


def _has_screened(plan: Mapping[str, Any]) -> bool:
    """Whether a sweep screened before it confirmed: no other phase may join its folder."""
    return (plan.get("config") or {}).get("phase") == "both"


def _undo(plan: Mapping[str, Any]) -> list[str]:
    """Overrides that undo what a sweep has beside its space, its budget included."""
    config = plan.get("config") or {}
    beside = [key for key in ("seeds", "exclude") if config.get(key) is not None]
    return [f"{key}=null" for key in (*beside, *_limits(plan))]


def _limits(plan: Mapping[str, Any]) -> list[str]:
    """The keys of the budget that limit a sweep."""
    budget = (plan.get("config") or {}).get("budget") or {}
    return [f"budget.{k}" for k, v in budget.items() if k != "price_per_gpu_hour" and v is not None]


def _write_finish(plan: Mapping[str, Any]) -> str:
    """The sweep's own command, without the budget that may have ended it."""
    limits, overrides = _limits(plan), plan.get("overrides")
    if not limits or not isinstance(overrides, list) or not plan.get("command"):
        return str(plan.get("command") or "")
    kept = [str(o) for o in overrides if _key_of(str(o)) not in limits]
    return shlex.join(["python", "sweep.py", *kept, *(f"{key}=null" for key in limits)])


def _key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _in_hydra(value: Any) -> str:
    """A value in Hydra's override grammar, as plain as it can be.

    >>> _in_hydra({"arm": ["mezo"], "training.learning_rate": [0.01]})
    '{arm:[mezo],training.learning_rate:[0.01]}'
    """
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_in_hydra(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_in_hydra, value)) + "]"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w.-]*", value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return value if isinstance(value, str) else json.dumps(value)
