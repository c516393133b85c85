"""What is refused before anything starts, beside what a trial's own validation refuses."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence

from kerzoo.options import TrialOptions
from sweeps import schema
from sweeps.compose import ConfigError

SECRET = re.compile("secret|password|token|key|credential", re.IGNORECASE)


def check_sweep(sweep: schema.SweepConfig, options: Sequence[TrialOptions], single: bool) -> None:
    """Refuse what cannot be run, or must not be written down.

    Args:
        sweep: The sweep's own values.
        options: One trial of each kind.
        single: Whether one trial is planned for itself.

    Raises:
        ConfigError: Naming the setting.
    """
    check_mirror(sweep.mirror)
    check_confirmation(sweep, options, single)


def check_confirmation(
    sweep: schema.SweepConfig, options: Sequence[TrialOptions], single: bool
) -> None:
    """Refuse a confirmation that would stop trials early, or that has nothing to test.

    Raises:
        ConfigError: Naming the setting that helps.
    """
    if sweep.phase == "screen":
        return
    if sweep.phase == "confirm" and sweep.scheduler.name != "fifo" and not single:
        raise ConfigError(
            "scheduler: phase=confirm runs every trial to its end, because a stopped one has no "
            f"test figure; set scheduler=fifo, got {sweep.scheduler.name}"
        )
    for task in {o.task.name: o.task for o in options}.values():
        if not task.num_test:
            raise ConfigError(
                f"task.num_test: phase={sweep.phase} reads the test split; it must be at "
                f"least 1 for {task.name}, got 0"
            )


def check_seeds_are_fresh(
    sweep: schema.SweepConfig, factors: Sequence[str], options: Sequence[TrialOptions]
) -> None:
    """Refuse to confirm with seeds that the screen chose by.

    Raises:
        ConfigError: Naming them.
    """
    screened = {o.training.seed for o in options if o.uses("seed")}
    common = sorted(screened & set(sweep.confirm.seed_list))
    if common:
        raise ConfigError(
            f"confirm.seeds: must be fresh, because the screen's chose the cells; {common} are in "
            "both"
        )
    if "task.data_seed" in factors:
        raise ConfigError(
            "space.task.data_seed: phase=both chooses one cell for each arm, and would choose "
            "among draws of the data; sweep it with phase=screen and phase=confirm instead"
        )


def check_search(sweep: schema.SweepConfig) -> None:
    """Refuse to confirm cells that are chosen by the results of others with the same seeds.

    Raises:
        ConfigError: Naming the setting that helps.
    """
    if sweep.search.name == "optuna" and sweep.phase == "confirm":
        raise ConfigError(
            "search=optuna: chooses cells by their results, which confirms nothing; set phase=both "
            "to confirm each arm's best cell with fresh seeds, or phase=screen"
        )


def check_baseline(baseline: str, arms: set[str]) -> None:
    """Refuse a baseline that no cell has.

    Raises:
        ConfigError: Naming the arms that there are.
    """
    if baseline not in arms:
        raise ConfigError(
            f"baseline: no cell has the arm {baseline!r} that the others are compared with; name "
            f"one of those here, as baseline={min(arms)}: {', '.join(sorted(arms))}"
        )


def check_mirror(mirror: str | None) -> None:
    """Refuse a mirror's URI that holds a password or key: plan.json records every setting.

    Raises:
        ConfigError: Without the URI.
    """
    parts = urllib.parse.urlsplit(mirror or "")
    named = urllib.parse.parse_qs(parts.query)
    if parts.password is not None or any(SECRET.search(name) for name in named):
        raise ConfigError(
            "mirror: must hold no password, key or token, because plan.json records every setting; "
            "give it by the environment variables of the file system, as AWS_SECRET_ACCESS_KEY"
        )
