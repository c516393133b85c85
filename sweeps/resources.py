"""What a trial is given of a Ray cluster, and how many trials share a GPU."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from kerzoo.options import TrialOptions
from sweeps.compose import ConfigError
from sweeps.cost import estimate_trial
from sweeps.schema import ClusterOptions

HEADROOM = 1.15
"""A GPU's memory is shared as if trials needed this much more: fragments, and peaks that meet."""


def trial_resources(
    cluster: ClusterOptions, options: Sequence[TrialOptions], peaks_gib: Sequence[float] = ()
) -> dict[str, float]:
    """Ray resources of each trial of a sweep; all have the same, so that processes are reused.

    Args:
        cluster: `gpus_per_trial`, a number or "auto", and further resources by Ray's names.
        options: Trials that are to run.
        peaks_gib: Peak device memory of trials of this sweep that ran before.

    Raises:
        ConfigError: If "auto" finds no GPU's memory.
    """
    resources: dict[str, float] = {"cpu": max(o.training.threads for o in options)}
    on_gpu = [o for o in options if o.training.device == "cuda"]
    if on_gpu:
        resources["gpu"] = (
            share_of_gpu(max(estimate_trial(o).memory_gib for o in on_gpu), peaks_gib, cluster)
            if cluster.gpus_per_trial == "auto"
            else float(cluster.gpus_per_trial)
        )
    named = {"CPU": "cpu", "GPU": "gpu"}
    return resources | {named.get(k, k): float(v) for k, v in cluster.resources.items()}


def share_of_gpu(estimate_gib: float, peaks_gib: Sequence[float], cluster: ClusterOptions) -> float:
    """1/n, where n trials fit into the smallest GPU of the cluster.

    What was measured counts for more than what was estimated.
    """
    memory = cluster.gpu_memory_gib or smallest_gpu_gib()
    if memory is None:
        raise ConfigError(
            "cluster.gpus_per_trial: auto found no GPU whose memory it could ask for; set "
            "cluster.gpu_memory_gib=GIB, or a number of GPUs"
        )
    needed = max(peaks_gib, default=estimate_gib) * HEADROOM
    return fraction(int(memory / needed))


def fraction(number: int) -> float:
    """1/number, rounded down to Ray's 1/10 000; 1 for less than two."""
    return 1.0 if number < 2 else max(1, 10_000 // number) / 10_000


def cluster_nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster that Ray is connected to, as Ray describes them."""
    import ray

    return list(ray.nodes())  # type: ignore[no-untyped-call]


def smallest_gpu_gib() -> float | None:
    """Memory of the smallest GPU of the cluster that Ray is connected to, asked on each node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(_gpu_memories_gib)
    nodes = [n for n in cluster_nodes() if n["Alive"] and n["Resources"].get("GPU")]
    found = ray.get(
        [
            ask.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote()
            for node in nodes
        ]
    )
    return min((memory for memories in found for memory in memories), default=None)


def _gpu_memories_gib() -> list[float]:
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [float(line) / 1024 for line in answer.splitlines() if line.strip()]


def resources_without_neighbours(
    resources: Mapping[str, float], nodes: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """As much as leaves no room beside the trial: a whole GPU, or all CPUs of the largest node."""
    if resources.get("gpu"):
        return {**resources, "gpu": max(1.0, resources["gpu"])}
    largest = max((n["Resources"].get("CPU", 0) for n in nodes if n["Alive"]), default=0)
    return {**resources, "cpu": max(largest, resources["cpu"])}


def count_slots(resources: Mapping[str, float], nodes: Sequence[Mapping[str, Any]]) -> int:
    """How many trials run at a time, node by node."""
    names = {"cpu": "CPU", "gpu": "GPU"}
    wanted = {names.get(name, name): amount for name, amount in resources.items() if amount}
    return sum(
        min(int(n["Resources"].get(name, 0) / amount + 1e-6) for name, amount in wanted.items())
        for n in nodes
        if n["Alive"]
    )


def count_slots_here(cluster: ClusterOptions, options: Sequence[TrialOptions]) -> int | None:
    """How many trials run at a time on this machine; None if they run elsewhere or not at all.

    Args:
        cluster: What Ray is to use.
        options: Trials that are to run.
    """
    import torch

    if cluster.address != "local":
        return None
    gpus = torch.cuda.device_count()
    if gpus and cluster.gpus_per_trial == "auto" and cluster.gpu_memory_gib is None:
        cluster = dataclasses.replace(
            cluster, gpu_memory_gib=min(_gpu_memories_gib(), default=None)
        )
    if not gpus and any(o.training.device == "cuda" for o in options):
        return None
    node = {"CPU": cluster.num_cpus or os.cpu_count() or 1, "GPU": gpus}
    slots = count_slots(trial_resources(cluster, options), [{"Alive": True, "Resources": node}])
    return slots or None
