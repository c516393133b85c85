"""Connects the driver to Ray: to one of its own, or to a cluster to which it brings its code."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from sweeps.compose import ConfigError
from sweeps.schema import ClusterOptions

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # for Tuner.restore, which is never called
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Set before Ray is imported, unless the user set them."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Keeps the ports of a Ray of one's own on 127.0.0.1, on every system; Ray opens them on all
addresses of the machine otherwise, and looks there for a cluster that was started on 127.0.0.1."""

OBJECT_STORE_BYTES = 200 << 20
ROOT = Path(__file__).resolve().parent.parent
UPLOADED = ("kerzoo", "sweeps")
"""What workers import: under a megabyte; trials come with their configuration resolved."""
KEPT_BACK = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
)
"""Variables that Tune would hand to every worker, by a way that ends in Ray's logs."""
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable in which Ray's job server tells a driver with which runtime environment it runs."""


def set_environment(cluster: ClusterOptions) -> None:
    """Set what Ray reads while it is imported, unless the user set it."""
    address = os.environ.get("RAY_ADDRESS", "") if cluster.address == "auto" else cluster.address
    is_here = address.partition(":")[0] in ("local", "localhost", "127.0.0.1")
    for name, value in {**ENVIRONMENT, **(LOOPBACK if is_here else {})}.items():
        os.environ.setdefault(name, value)


def start_ray(cluster: ClusterOptions) -> None:
    """Start a Ray of one's own, or join a cluster.

    Raises:
        ConfigError: If there is no such cluster.
    """
    import ray
    from ray.tune.execution import class_cache

    if cluster.address.startswith("ray://"):
        raise ConfigError(
            "cluster.address: the driver must run on a node of the cluster and be told auto or "
            f"HOST:PORT, got {cluster.address}"
        )
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(KEPT_BACK)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options = own_options(cluster) if cluster.address == "local" else joining_options(cluster)
    try:
        ray.init(
            address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, **options
        )
    except ConnectionError as error:
        raise ConfigError(
            f"cluster.address: no Ray cluster answers at {cluster.address}; start one with `ray "
            "start --head` and set RAY_ADDRESS if it is elsewhere, or set cluster=local"
        ) from error


def own_options(cluster: ClusterOptions) -> dict[str, Any]:
    """Of `ray.init`, for a Ray of one's own."""
    return {
        "num_cpus": cluster.num_cpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }


def joining_options(cluster: ClusterOptions) -> dict[str, Any]:
    """Of `ray.init`, for a cluster: the driver's code goes to the workers with the job.

    Policy: a working directory of the job's own, because it alone comes before whatever checkout a
    node has at the same path. A driver that Ray's job server started has one already.
    """
    job = json.loads(os.environ.get(JOB_CONFIG, "{}")).get("runtime_env") or {}
    missing = ENVIRONMENT.keys() - job.get("env_vars", {}).keys()
    environment: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in missing}}
    if cluster.upload_code and "working_dir" not in job:
        kept = [f"!/{name}" for name in UPLOADED]
        environment |= {"working_dir": str(ROOT), "excludes": ["/*", "!.", *kept, "__pycache__"]}
    return {"runtime_env": environment}
