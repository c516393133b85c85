"""The schema of a sweep's plain values, so that a typo fails at once."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from sweeps.halving import HalvingRule

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
class SchedulerOptions:
    """Which trials go on at a rung.

    Args:
        name: "asha" or "fifo".
        metric: The row's column that decides; lower is better.
        reduction_factor: ASHA keeps the best 1/reduction_factor of a rung; > 1.
        survivors_per_arm: How many of an arm's own best go on at each rung in any case; ≥ 0.
    """

    name: str = MISSING
    metric: str = "dev_loss"
    reduction_factor: Optional[float] = None  # noqa: UP045 - OmegaConf reads the annotation
    survivors_per_arm: int = 0

    def __post_init__(self) -> None:
        _check_choice("scheduler.name", self.name, ("asha", "fifo"))
        _check_choice("scheduler.metric", self.metric, ("dev_loss",))
        factor = self.reduction_factor
        if self.name == "asha" and (factor is None or not factor > 1):
            raise ValueError(f"scheduler.reduction_factor must be > 1, got {factor}")
        if self.survivors_per_arm < 0:
            raise ValueError(
                f"scheduler.survivors_per_arm must be ≥ 0, got {self.survivors_per_arm}"
            )
        if self.name == "fifo" and factor is not None:
            raise ValueError(f"scheduler.reduction_factor must be null with fifo, got {factor}")

    @property
    def rule(self) -> HalvingRule:
        """Who goes on at a rung."""
        return HalvingRule(self.reduction_factor, self.survivors_per_arm)


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
    """W&B, TensorBoard, or nothing.

    Args:
        name: "wandb", "tensorboard" or "none".
        mode: "offline", "online" or "disabled".
        project: W&B's project.
        entity: W&B's user or team; None for the account's own.
    """

    name: str = MISSING
    mode: str = "offline"
    project: Optional[str] = None  # noqa: UP045
    entity: Optional[str] = None  # noqa: UP045

    def __post_init__(self) -> None:
        _check_choice("tracking.name", self.name, ("wandb", "tensorboard", "none"))
        _check_choice("tracking.mode", self.mode, ("offline", "online", "disabled"))


@dataclasses.dataclass
class NotifyOptions:
    """A message at the end of a sweep, or on trouble.

    Both are names of environment variables: a webhook's address is a secret and the plan records
    every setting, and a configuration from elsewhere must not bring a command along.

    Args:
        webhook: Variable that holds a URL, to which `{"text": message}` is posted; None for none.
        command: Variable that holds a shell command, which gets the message on standard input;
            None for none.
    """

    webhook: Optional[str] = None  # noqa: UP045
    command: Optional[str] = None  # noqa: UP045

    def __post_init__(self) -> None:
        for key, value in (("webhook", self.webhook), ("command", self.command)):
            if value is None:
                continue
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
                raise ValueError(
                    f"notify.{key} must be the name of an environment variable that holds the "
                    f"{'URL' if key == 'webhook' else 'command'}, not the thing itself"
                )


@dataclasses.dataclass
class SweepConfig:
    """A composed sweep. Groups with a `_target_` are plain dicts that `kerzoo.build` reads.

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
        notify: Whom to tell of the end and of trouble.
        mirror: URI to which ended trials are copied, and from which a resume fetches what is
            missing here: a folder's path, file://, s3://, gs://, hdfs://, or fsspec+SCHEME:// for
            what fsspec knows. None for no mirror.
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
    scheduler: SchedulerOptions = dataclasses.field(
        default_factory=lambda: SchedulerOptions("fifo")
    )
    cluster: ClusterOptions = dataclasses.field(default_factory=lambda: ClusterOptions("local"))
    tracking: TrackingOptions = dataclasses.field(default_factory=lambda: TrackingOptions("none"))
    notify: NotifyOptions = dataclasses.field(default_factory=NotifyOptions)
    mirror: Optional[str] = None  # noqa: UP045
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
