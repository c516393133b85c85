"""The schema of a sweep's plain values, so that a typo fails at once."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

GROUPS = (
    "arm",
    "method",
    "model",
    "task",
    "kernel",
    "bandwidth",
    "perturbation",
    "clipping",
    "momentum",
    "learning_rate_schedule",
    "perturbation_scale_schedule",
    "tuning",
    "training",
    "search",
    "scheduler",
    "cluster",
    "tracking",
)
"""Configuration groups: one folder of conf/ each."""

TRIAL_GROUPS = GROUPS[:13]
"""The groups that decide what a trial is; the others decide how the sweep is run."""


@dataclasses.dataclass
class ArmLabel:
    """A method's name and one line about it."""

    name: str = MISSING
    description: str = MISSING


@dataclasses.dataclass
class SearchOptions:
    """How the space becomes cells.

    Args:
        name: "grid".
        plan_seed: Of the order in which trials start.
    """

    name: str = MISSING
    plan_seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("search.name", self.name, ("grid",))


@dataclasses.dataclass
class ClusterOptions:
    """Where trials run.

    Args:
        name: Label.
        address: "local" for a Ray of one's own, "auto" for the cluster at hand.
        num_cpus: CPUs that a local Ray may use; None for all.
        gpus_per_trial: GPUs of a trial with training.device=cuda; fractions share one. More than
            one only for trials that train nothing.
        max_failures: Restarts of a trial whose worker was lost.
    """

    name: str = MISSING
    address: str = "local"
    num_cpus: Optional[int] = None  # noqa: UP045
    gpus_per_trial: float = 1.0
    max_failures: int = 3

    def __post_init__(self) -> None:
        if self.num_cpus is not None and self.num_cpus < 1:
            raise ValueError(f"cluster.num_cpus must be at least 1 or null, got {self.num_cpus}")
        if not (math.isfinite(self.gpus_per_trial) and self.gpus_per_trial > 0):
            raise ValueError(f"cluster.gpus_per_trial must be > 0, got {self.gpus_per_trial}")
        if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(
                f"cluster.gpus_per_trial must be whole above 1, got {self.gpus_per_trial}"
            )
        if self.max_failures < 0:
            raise ValueError(f"cluster.max_failures must be ≥ 0, got {self.max_failures}")


@dataclasses.dataclass
class TrackingOptions:
    """W&B, or nothing.

    Args:
        name: "wandb" or "none".
        mode: "offline", "online" or "disabled".
        project: W&B's project.
        entity: W&B's user or team; None for the account's own.
    """

    name: str = MISSING
    mode: str = "offline"
    project: Optional[str] = None  # noqa: UP045
    entity: Optional[str] = None  # noqa: UP045

    def __post_init__(self) -> None:
        _check_choice("tracking.name", self.name, ("wandb", "none"))
        _check_choice("tracking.mode", self.mode, ("offline", "online", "disabled"))


@dataclasses.dataclass
class SweepConfig:
    """A composed sweep. Groups with a `_target_` are plain dicts that `kerzoo.build` reads.

    `scheduler` is a dict when Hydra composes it and a `sweeps.schedulers.Scheduler` in
    `Composed.sweep`.

    Args:
        name: Name of the results folder.
        description: One line for the report.
        results_dir: Where results folders lie.
        space: Key → values, or a list of such mappings whose cells are united.
        baseline: The arm that others are compared with.
        plan_only: Print the plan and its cost; start nothing.
        fresh: Archive the old results of this name first.
        phase: "screen", or "confirm": no trial is stopped, and each reads the test split once,
            at the checkpoint that dev chose.
        data_root: Folder in which each task's public files have a folder of their usual name
            (SST-2, RTE, MultiRC, …); for tasks whose `data_dir` is null. None for no such folder.
        time_budget_s: Say so beforehand if the sweep is likely to take longer; None for no word.
    """

    arm: ArmLabel = dataclasses.field(default_factory=ArmLabel)
    method: dict[str, Any] = MISSING
    model: dict[str, Any] = MISSING
    task: dict[str, Any] = MISSING
    kernel: dict[str, Any] = MISSING
    bandwidth: dict[str, Any] = MISSING
    perturbation: dict[str, Any] = MISSING
    clipping: dict[str, Any] = MISSING
    momentum: dict[str, Any] = MISSING
    learning_rate_schedule: dict[str, Any] = MISSING
    perturbation_scale_schedule: dict[str, Any] = MISSING
    tuning: dict[str, Any] = MISSING
    training: dict[str, Any] = MISSING
    search: SearchOptions = dataclasses.field(default_factory=lambda: SearchOptions("grid"))
    scheduler: Any = MISSING
    cluster: ClusterOptions = dataclasses.field(default_factory=lambda: ClusterOptions("local"))
    tracking: TrackingOptions = dataclasses.field(default_factory=lambda: TrackingOptions("none"))
    name: str = "trial"
    description: str = ""
    results_dir: str = "results"
    space: Any = None
    baseline: str = "mezo"
    phase: str = "screen"
    data_root: Optional[str] = None  # noqa: UP045
    plan_only: bool = False
    fresh: bool = False
    time_budget_s: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or "/" in self.name:
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        _check_choice("phase", self.phase, ("screen", "confirm"))


def register() -> None:
    """Make the schema known to Hydra as the config named "schema"."""
    ConfigStore.instance().store(name="schema", node=SweepConfig)


def _check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}; got {value!r}")
