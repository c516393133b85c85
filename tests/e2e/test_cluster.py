"""Sweeps on a cluster of several nodes, one of which is lost and another of which joins."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
from fake_cluster import FakeCluster, fake_cluster
from sweep_process import (
    ROOT,
    SweepProcess,
    assert_no_row_twice,
    numbers_of,
    settings,
    statuses,
    trials_of,
)

from kerzoo.records import Row
from sweeps.events import read_events
from sweeps.plan import make_plan

pytestmark = pytest.mark.chaos

Rows = dict[str, list[Row]]
SPACE = [
    "space={arm:[mezo,legendre2],training.perturbation_scale:[1e-2,3e-2],"
    "training.learning_rate:[2e-3,5e-3,1e-2,2e-2]}",
    "seeds=3",
    "training.forward_passes=96",
]
NUM_TRIALS = 48
PACKED = ["cluster=auto", "cluster.resources={GPU:0.5}", "tracking=none"]
BEGUN = re.compile(
    r"--- begun (?P<begun>\S+) on .*, node (?P<node>\w+), process \d+, "
    r"CUDA_VISIBLE_DEVICES=(?P<gpu>\S*), code in (?P<code>.+)"
)
LEFT = re.compile(r"--- left (?P<left>\S+)")


@dataclass(frozen=True)
class Stay:
    """A trial's time on a node; `left` is empty where it was lost there."""

    trial: str
    node: str
    gpu: str
    code: str
    begun: str
    left: str

    def meets(self, other: Stay) -> bool:
        """Whether both shared a GPU for a while; times are cut to whole seconds."""
        shared = (self.node, self.gpu) == (other.node, other.gpu)
        return shared and self.begun < other.left and other.begun < self.left


def stays_of(folder: Path) -> Iterator[Stay]:
    """Where the trials of a sweep have been so far, by their logs."""
    for trial, where in trials_of(folder).items():
        log = where.path / "log.txt"
        for piece in log.read_text().split("--- begun")[1:] if log.exists() else ():
            begun, left = BEGUN.match(f"--- begun{piece}"), LEFT.search(piece)
            if begun:
                yield Stay(trial, left=left["left"] if left else "", **begun.groupdict())


def num_ended(folder: Path) -> int:
    return len(read_events(folder / "events.jsonl", "status"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    with fake_cluster(tmp_path_factory.mktemp("nodes"), num_nodes=3) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def alone(results: Path) -> Rows:
    """All trials whole, run one after another without Ray."""
    plan = make_plan(settings(results, *SPACE, "name=alone", "scheduler=fifo"), "test")
    plan.write()
    command = [sys.executable, "-m", "kerzoo.training", str(plan.folder / "plan.json")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = numbers_of(plan.folder)
    assert len(rows) == NUM_TRIALS
    return rows


def busiest(folder: Path, cluster: FakeCluster) -> str:
    """The node that runs most trials at this moment; "" for none."""
    running = Counter(s.node for s in stays_of(folder) if not s.left and s.node in cluster.nodes)
    return max(running, key=running.__getitem__, default="")


def run_through(
    cluster: FakeCluster, results: Path, name: str, trouble: Callable[[str], object], *more: str
) -> Path:
    """Run a sweep to its end through trouble with the busiest node and a new one; its folder."""
    folder = results / name
    command = settings(results, *SPACE, f"name={name}", *PACKED, *more)
    with SweepProcess(results / f"{name}.log", command, **cluster.environment) as driver:
        driver.wait_until(lambda: num_ended(folder) >= NUM_TRIALS // 6)
        driver.wait_until(lambda: busiest(folder, cluster) != "")
        trouble(busiest(folder, cluster))
        cluster.add()
        code, output = driver.wait(), driver.output()
    assert code == 0, output
    return folder


def assert_nothing_twice(folder: Path) -> None:
    assert_no_row_twice(folder)
    ends = Counter(e["trial_id"] for e in read_events(folder / "events.jsonl", "status"))
    assert ends == Counter(statuses(folder).keys())


def test_a_lost_node_and_one_that_joins_change_no_row_and_trials_share_gpus(
    cluster: FakeCluster, results: Path, alone: Rows
) -> None:
    before = set(cluster.nodes)
    folder = run_through(cluster, results, "nodes", cluster.remove, "scheduler=fifo")
    assert set(statuses(folder).values()) == {"finished"}
    assert_nothing_twice(folder)
    assert numbers_of(folder) == alone

    lost = [where.read().get("losses", {}) for where in trials_of(folder).values()]
    assert {cause for losses in lost for cause in losses} == {"lost_worker"}
    stays = list(stays_of(folder))
    assert {stay.node for stay in stays} >= before
    assert {stay.gpu for stay in stays} <= {"0", "1", "2", "3"}
    for node in before & set(cluster.nodes):
        here = [stay for stay in stays if stay.node == node and stay.left]
        assert any(a.meets(b) for a, b in combinations(here, 2)), node
    for code in {Path(stay.code) for stay in stays}:
        assert ROOT not in (code, *code.parents)
        assert "_ray_pkg_" in code.name
        assert {path.name for path in code.iterdir()} == {"kerzoo", "sweeps"}
