"""A Ray cluster on one machine: nodes with GPUs that do not exist, and that come and go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import plant
from ray.cluster_utils import Cluster

STALE = 'raise ImportError("the code of this node is not to be imported")\n'
SLOW = """
import time
append_step = TrialWriter.append_step
def append_step_later(self, record):
    time.sleep(0.03)
    append_step(self, record)
TrialWriter.append_step = append_step_later
"""
"""Steps that last, at no cost: a node is lost in the midst of trials."""
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}
"""A lost node is noticed within seconds."""


class FakeCluster:
    """A head without CPUs, and nodes with two CPUs and four GPUs each.

    Nodes are started in a folder of their own, where Python finds a kerzoo and a sweeps that
    cannot be imported: what runs there came with the job.

    Args:
        folder: For the nodes.
        num_nodes: Beside the head.
    """

    def __init__(self, folder: Path, num_nodes: int) -> None:
        for package in ("kerzoo", "sweeps"):
            (folder / package).mkdir(parents=True)
            (folder / package / "__init__.py").write_text(STALE)
        plant(folder, "kerzoo.records", SLOW)
        self.folder = folder
        self._cluster = Cluster()
        self._add(num_cpus=0, include_dashboard=False)
        self.nodes: dict[str, Any] = {}
        for _ in range(num_nodes):
            self.add()

    @property
    def environment(self) -> dict[str, str]:
        """Of a driver that is to join."""
        return {"RAY_ADDRESS": self._cluster.address}

    def add(self) -> str:
        """A node joins; returns its id as logs show it."""
        node = self._add(num_cpus=2, num_gpus=4)
        name = str(node.node_id)[:12]
        self.nodes[name] = node
        return name

    def remove(self, name: str) -> None:
        """A node is gone at once, its workers with it."""
        self._cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()

    def _add(self, **arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(self.folder):
            for name, value in {**QUICK, "PYTHONPATH": str(self.folder)}.items():
                patch.setenv(name, value)
            return self._cluster.add_node(node_ip_address="127.0.0.1", **arguments)


@contextlib.contextmanager
def fake_cluster(folder: Path, num_nodes: int) -> Iterator[FakeCluster]:
    """A cluster that ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = FakeCluster(folder, num_nodes)
    try:
        yield cluster
    finally:
        cluster.close()
