"""The schema of a sweep's plain values, so that a typo fails at once."""

from __future__ import annotations

import dataclasses
import math
import re
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
        name: "grid", "random", "sobol" or "optuna".
        plan_seed: Of the order in which trials start.
        num_samples: Points at which what is drawn from is drawn; every listed combination has all.
        seed: Of the points.
        generation: Points of a listed combination that optuna asks for at once.
    """

    name: str = MISSING
    plan_seed: int = 0
    num_samples: int = 1
    seed: int = 0
    generation: int = 8

    def __post_init__(self) -> None:
        _check_choice("search.name", self.name, ("grid", "random", "sobol", "optuna"))
        for name, least in (("num_samples", 1), ("seed", 0), ("generation", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"search.{name} must be ≥ {least}, got {getattr(self, name)}")


@dataclasses.dataclass
class ClusterOptions:
    """Where trials run.

    Args:
        name: Label.
        address: "local" for a Ray of one's own, "auto" for the cluster at hand, or HOST:PORT.
        num_cpus: CPUs that a local Ray may use; None for all.
        gpus_per_trial: GPUs of a trial with training.device=cuda; fractions share one, and "auto"
            lets as many share one as its memory holds. Over more than one a trial's model is
            spread by layers, for models that one GPU has no room for: not faster, but larger.
        gpu_memory_gib: Of the smallest GPU, for "auto"; None to ask the nodes.
        resources: Further Ray resources of a trial by Ray's names, which choose among unlike
            nodes: {"accelerator_type:A100": 0.001}.
        upload_code: On a cluster, run the driver's kerzoo and sweeps and not what its nodes have.
    """

    name: str = MISSING
    address: str = "local"
    num_cpus: Optional[int] = None  # noqa: UP045
    gpus_per_trial: Any = 1.0
    gpu_memory_gib: Optional[float] = None  # noqa: UP045
    resources: dict[str, float] = dataclasses.field(default_factory=dict)
    upload_code: bool = True

    def __post_init__(self) -> None:
        if self.num_cpus is not None and self.num_cpus < 1:
            raise ValueError(f"cluster.num_cpus must be at least 1 or null, got {self.num_cpus}")
        _check_gpus(self.gpus_per_trial)
        if self.gpu_memory_gib is not None and not self.gpu_memory_gib > 0:
            raise ValueError(f"cluster.gpu_memory_gib must be > 0, got {self.gpu_memory_gib}")
        for name, amount in self.resources.items():
            if not amount > 0:
                raise ValueError(f"cluster.resources.{name} must be > 0, got {amount}")


@dataclasses.dataclass
class FailureOptions:
    """What is done about trials that fail; causes are those of `kerzoo.failures`.

    Args:
        max_lost: Attempts of a trial after its worker or node was lost; preemptions not counted.
        stop_after_alike: The sweep stops when this many trials failed alike and none ended well;
            0 for never.
        retry: Run trials again that failed in an earlier run.
    """

    max_lost: int = 3
    stop_after_alike: int = 3
    retry: bool = False

    def __post_init__(self) -> None:
        for name in ("max_lost", "stop_after_alike"):
            if getattr(self, name) < 0:
                raise ValueError(f"failures.{name} must be ≥ 0, got {getattr(self, name)}")


@dataclasses.dataclass
class BudgetOptions:
    """What all runs of a sweep may spend together; None for no limit.

    At 80 % there is a warning; at the end the sweep stops and can be resumed with more.

    Args:
        gpu_hours: Hours in which trials hold a GPU, or their share of one.
        wall_time_s: Seconds of the sweep, preparation included, the report's few not.
        forward_passes: As the records count them.
        money: In any currency, at `price_per_gpu_hour`.
        price_per_gpu_hour: Of one GPU.
    """

    gpu_hours: Optional[float] = None  # noqa: UP045
    wall_time_s: Optional[float] = None  # noqa: UP045
    forward_passes: Optional[float] = None  # noqa: UP045
    money: Optional[float] = None  # noqa: UP045
    price_per_gpu_hour: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"budget.{name} must be > 0 or null, got {value}")
        if self.money is not None and self.price_per_gpu_hour is None:
            raise ValueError("budget.price_per_gpu_hour must be set where budget.money is")

    @property
    def limits(self) -> dict[str, float]:
        """The amounts that are limited."""
        names = ("gpu_hours", "wall_time_s", "forward_passes", "money")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


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
class ReportOptions:
    """How the report speaks.

    Args:
        language: "en" or "ja", of its first page, headings and controls.
    """

    language: str = "en"

    def __post_init__(self) -> None:
        _check_choice("report.language", self.language, ("en", "ja"))


@dataclasses.dataclass
class MarginOptions:
    """Differences within ±margin that are as good as none, for claims of equivalence.

    Args:
        score: Of accuracy or F1; .01 is one point.
        loss: Of a dev or test loss; also how far from an arm's best a cell is still good.
        auc: Of an area under the ROC curve.
        cost: Of time, forward passes or memory, as a ratio less one.
    """

    score: float = 0.01
    loss: float = 0.01
    auc: float = 0.01
    cost: float = 0.05

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"margins.{name} must be > 0, got {value}")


@dataclasses.dataclass
class ConfirmOptions:
    """The second half of `phase=both`.

    Args:
        seeds: Values of training.seed that the screen does not have: a list, or n for 1000 … 999 +
            n. Five are the least that arms should be compared by.
    """

    seeds: Any = 5

    def __post_init__(self) -> None:
        if not self.seed_list:
            raise ValueError("confirm.seeds must be a number of seeds or a list, got null")

    @property
    def seed_list(self) -> list[int]:
        """The seeds; far from those that screens have, and the same for every sweep."""
        return read_seeds("confirm.seeds", self.seeds, first=1000)


@dataclasses.dataclass
class SweepConfig:
    """A composed sweep. Groups with a `_target_` are plain dicts that `kerzoo.build` reads.

    `scheduler` is a dict when Hydra composes it and a `sweeps.schedulers.Scheduler` in
    `Composed.sweep`.

    Args:
        name: Name of the results folder.
        description: One line for the report.
        results_dir: Where results folders lie.
        space: Key → values, or what they are drawn from; or a list of such mappings whose cells
            are united.
        seeds: Values of training.seed that every cell has: a list, or n for 0 … n − 1. Arms are
            paired by seed. None where the space lists them itself, or one is enough.
        exclude: Partial cells, each a mapping from swept keys to a value, a list of values or a
            range; a cell that one of them matches in every key is left out.
        baseline: The arm that others are compared with.
        reuse: Where finished trials of other sweeps are looked for, which are then taken over and
            not run: "auto" for all results folders in `results_dir`; or a results folder, a folder
            of such folders, or a list of them. None to run every trial.
        afterwards: The sweep whose price the report names as what follows; None for none.
        plan_only: Print the plan and its cost; start nothing.
        fresh: Archive the old results of this name first.
        phase: "screen"; or "confirm": no trial is stopped, and each reads the test split once,
            at the checkpoint that dev chose; or "both": a screen, after which each arm's best
            cell by dev is confirmed.
        confirm: With which seeds "both" confirms.
        data_root: Folder in which each task's public files have a folder of their usual name
            (SST-2, RTE, MultiRC, …); for tasks whose `data_dir` is null. None for no such folder.
        notify: Whom to tell of the end and of trouble.
        report: The report's language.
        margins: What the report calls equivalent.
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
    scheduler: Any = MISSING
    cluster: ClusterOptions = dataclasses.field(default_factory=lambda: ClusterOptions("local"))
    tracking: TrackingOptions = dataclasses.field(default_factory=lambda: TrackingOptions("none"))
    failures: FailureOptions = dataclasses.field(default_factory=FailureOptions)
    budget: BudgetOptions = dataclasses.field(default_factory=BudgetOptions)
    confirm: ConfirmOptions = dataclasses.field(default_factory=ConfirmOptions)
    notify: NotifyOptions = dataclasses.field(default_factory=NotifyOptions)
    report: ReportOptions = dataclasses.field(default_factory=ReportOptions)
    margins: MarginOptions = dataclasses.field(default_factory=MarginOptions)
    mirror: Optional[str] = None  # noqa: UP045
    name: str = "trial"
    description: str = ""
    results_dir: str = "results"
    space: Any = None
    seeds: Any = None
    exclude: Any = None
    baseline: str = "mezo"
    phase: str = "screen"
    data_root: Optional[str] = None  # noqa: UP045
    reuse: Any = None
    afterwards: Optional[str] = None  # noqa: UP045
    plan_only: bool = False
    fresh: bool = False
    time_budget_s: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or "/" in self.name:
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        _check_choice("phase", self.phase, ("screen", "confirm", "both"))
        read_seeds("seeds", self.seeds)
        named = self.reuse if isinstance(self.reuse, list) else [self.reuse]
        if not all(isinstance(path, str) and path for path in named) and self.reuse is not None:
            raise ValueError(f"reuse must be auto, a folder or a list of them, got {self.reuse!r}")

    @property
    def seed_list(self) -> list[int]:
        """The seeds of every cell; empty where they are no dimension of their own."""
        return read_seeds("seeds", self.seeds)


def register() -> None:
    """Make the schema known to Hydra as the config named "schema"."""
    ConfigStore.instance().store(name="schema", node=SweepConfig)


def read_seeds(key: str, seeds: Any, first: int = 0) -> list[int]:
    """Seeds from a list, or from how many there are to be; none from None.

    Args:
        key: For messages.
        seeds: The value.
        first: The first of a number of seeds.

    Raises:
        ValueError: If it is neither.
    """
    listed = seeds if isinstance(seeds, list) else [] if seeds is None else None
    if listed is None and isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        return list(range(first, first + seeds))
    numbers = [s for s in listed or [] if isinstance(s, int) and not isinstance(s, bool) and s >= 0]
    if listed is None or len(set(numbers)) < len(listed) or seeds == []:
        raise ValueError(
            f"{key} must be a number of seeds ≥ 1 or a list of distinct integers ≥ 0, got {seeds!r}"
        )
    return numbers


def _check_gpus(number: Any) -> None:
    if number == "auto":
        return
    if not isinstance(number, int | float) or not (math.isfinite(number) and number > 0):
        raise ValueError(f'cluster.gpus_per_trial must be > 0 or "auto", got {number}')
    if number > 1 and number % 1:
        raise ValueError(f"cluster.gpus_per_trial must be whole above 1, got {number}")


def _check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}; got {value!r}")
