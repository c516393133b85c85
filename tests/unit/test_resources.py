"""What a trial is given of a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_trials import trial_config

from kerzoo.options import TrialOptions
from sweeps.resources import (
    count_slots,
    count_slots_here,
    fraction,
    resources_without_neighbours,
    share_of_gpu,
    trial_resources,
)
from sweeps.schema import ClusterOptions

NODES: list[dict[str, Any]] = [
    {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 4.0}},
    {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 4.0}},
    {"Alive": True, "Resources": {"CPU": 2.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
]


def options(**changes: Any) -> TrialOptions:
    return TrialOptions.from_config(trial_config("/nowhere", **changes))


def test_a_trial_on_the_cpu_asks_for_its_threads_and_one_on_a_gpu_for_its_share() -> None:
    cluster = ClusterOptions("x", gpus_per_trial=0.25)
    assert trial_resources(cluster, [options(threads=2)]) == {"cpu": 2}
    assert trial_resources(cluster, [options(device="cuda")]) == {"cpu": 1, "gpu": 0.25}
    several = trial_resources(ClusterOptions("x", gpus_per_trial=2), [options(device="cuda")])
    assert several == {"cpu": 1, "gpu": 2.0}
    assert count_slots(several, NODES) == 2 + 2
    named = ClusterOptions("x", resources={"GPU": 0.5, "accelerator_type:A100": 0.001})
    expected = {"cpu": 1, "gpu": 0.5, "accelerator_type:A100": 0.001}
    assert trial_resources(named, [options()]) == expected


@pytest.mark.parametrize(
    ("estimate", "peaks", "share"),
    [(10.0, [], 0.1666), (10.0, [20.0], 0.3333), (10.0, [4.0, 2.0], 0.0588), (75.0, [], 1.0)],
)
def test_auto_packs_by_the_estimate_until_there_is_a_measurement(
    estimate: float, peaks: list[float], share: float
) -> None:
    assert share_of_gpu(estimate, peaks, ClusterOptions("x", gpu_memory_gib=79.0)) == share


def test_shares_never_add_up_to_more_than_a_gpu() -> None:
    assert fraction(0) == fraction(1) == 1.0
    assert all(number * fraction(number) <= 1 for number in range(2, 10_000))


def test_slots_are_counted_node_by_node() -> None:
    assert count_slots({"cpu": 1, "gpu": 0.5}, NODES) == 8 + 2
    assert count_slots({"cpu": 1, "gpu": 0.1}, NODES) == 8 + 2
    assert count_slots({"cpu": 2}, NODES) == 4 + 1 + 1


def test_alone_is_a_whole_gpu_or_all_cpus_of_the_largest_node() -> None:
    assert resources_without_neighbours({"cpu": 1, "gpu": 0.5}, NODES) == {"cpu": 1, "gpu": 1.0}
    assert resources_without_neighbours({"cpu": 1, "gpu": 2.0}, NODES) == {"cpu": 1, "gpu": 2.0}
    assert resources_without_neighbours({"cpu": 1}, NODES) == {"cpu": 8.0}


def test_slots_of_this_machine_are_counted_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    cpu, gpu = [options(threads=2)], [options(device="cuda")]
    local = ClusterOptions("x", num_cpus=8)
    assert count_slots_here(local, cpu) == 4
    assert count_slots_here(local, gpu) == 4
    assert count_slots_here(ClusterOptions("x", num_cpus=8, gpus_per_trial=2), gpu) == 2
    packed = ClusterOptions("x", num_cpus=8, gpus_per_trial="auto", gpu_memory_gib=80)
    assert count_slots_here(packed, gpu) == 8  # more would fit on the GPUs, not on the CPUs
    assert count_slots_here(ClusterOptions("x", address="auto"), cpu) is None
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert count_slots_here(packed, gpu) is None
    assert count_slots_here(local, cpu) == 4
