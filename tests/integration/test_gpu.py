"""What holds on a GPU: forwards as CUDA graphs, and trials on the device."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trials import FULL, LORA, LORA_LAST, created, trial_config, trial_spec, write_sst2

from kerzoo.attempt import run_trial
from kerzoo.losses import ForwardGraphs
from kerzoo.methods.zeroth_order import ZerothOrderLearner
from kerzoo.options import TrialOptions
from kerzoo.trajectory import read_trajectory
from kerzoo.workspace import Workspace

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("own_cache")]

TUNINGS = {"full": FULL, "last layers, cached": LORA_LAST}


@pytest.mark.parametrize("tuning", TUNINGS)
def test_recorded_forward_passes_give_the_losses_of_eager_ones(tuning: str, tmp_path: Path) -> None:
    options = TrialOptions.from_config(
        trial_config(write_sst2(tmp_path / "sst2"), device="cuda", tuning=TUNINGS[tuning])
    )
    with Workspace().open(options) as bench:
        learner = ZerothOrderLearner(options, bench)
        assert isinstance(bench.train.runner.graphs, ForwardGraphs)
        for step in range(6):
            assert learner.advance(step) is not None
            indices = learner.indices(step)
            graphs, bench.train.runner.graphs = bench.train.runner.graphs, None
            eager = bench.train.loss(indices)
            bench.train.runner.graphs = graphs
            assert [bench.train.loss(indices) for _ in range(3)] == pytest.approx([eager] * 3)
        assert any(graph is not None for graph in graphs._graphs.values())


@pytest.mark.parametrize("tuning", TUNINGS)
def test_a_trial_on_a_gpu_gives_the_same_rows_twice(tuning: str, tmp_path: Path) -> None:
    data = write_sst2(tmp_path / "sst2")
    runs = []
    for name in ("first", "second"):
        spec = trial_spec(trial_config(data, device="cuda", tuning=TUNINGS[tuning]))
        rows = list(run_trial(spec, created(tmp_path / name, spec), Workspace()))
        runs.append([row["dev_loss"] for row in rows])
    assert runs[0] == runs[1]
    assert torch.isfinite(torch.tensor(runs[0])).all()


@pytest.mark.parametrize("tuning", [LORA, LORA_LAST], ids=["all layers", "last layers, cached"])
def test_recorded_passes_of_several_points_give_the_losses_of_eager_ones_in_turn(
    tuning: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"tuning": tuning, "num_directions": 3, "points_per_forward": 4}
    config = trial_config(write_sst2(tmp_path / "sst2"), device="cuda", **changes)
    options = TrialOptions.from_config(config)
    with Workspace().open(options) as bench:
        learner, runner = ZerothOrderLearner(options, bench), bench.train.runner
        optimizer, graphs = learner.optimizer, runner.graphs
        assert graphs is not None
        for step in range(8):
            indices = learner.indices(step)
            runner.graphs = None
            in_turn = optimizer.estimator.estimate(
                optimizer.weights, functools.partial(bench.train.loss, indices), step
            )
            runner.graphs = graphs
            bench.train.loss([*range(4 * len(indices))])  # as many rows, without points
            for _ in range(3):
                together = optimizer.estimator.estimate(
                    optimizer.weights,
                    functools.partial(bench.train.losses, indices),
                    step,
                    evaluation=optimizer.evaluation,
                )
                assert together.losses == pytest.approx(in_turn.losses, rel=1e-5)
            assert learner.advance(step) is not None
            learner.optimizer.settle()
        assert any(graph is not None for graph in graphs._graphs.values())


def test_a_model_that_cannot_be_recorded_runs_eagerly() -> None:
    graphs = ForwardGraphs([])
    tokens = torch.ones(2, 3, device="cuda")

    def forward(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs["x"] * float(inputs["x"].sum())  # waits for the device

    with torch.inference_mode():
        graphs(forward, {"x": tokens})
        with pytest.warns(UserWarning, match="run without CUDA graphs"):
            assert float(graphs(forward, {"x": tokens})[0, 0]) == 6.0


def test_graphs_are_recorded_again_when_the_parameters_move() -> None:
    weights = [torch.ones(3, device="cuda")]
    graphs = ForwardGraphs(weights)
    with torch.inference_mode():
        for value in (1.0, 2.0):
            weights[0] = torch.full((3,), value, device="cuda")
            graphs.parameters = tuple(weights)
            for _ in range(3):
                found = graphs(lambda inputs: inputs["x"] * weights[0], {"x": torch.ones(3).cuda()})
            assert found.tolist() == [value] * 3


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("tuning", TUNINGS)
def test_a_trial_over_two_gpus_has_the_rows_of_one_and_goes_on_on_either(
    tuning: str, tmp_path: Path
) -> None:
    data = write_sst2(tmp_path / "sst2")
    spec = trial_spec(trial_config(data, device="cuda", tuning=TUNINGS[tuning]))
    losses = []
    for number in (1, 2):
        workspace = Workspace(num_devices=number)
        rows = list(run_trial(spec, created(tmp_path / str(number), spec), workspace))
        losses.append([row["dev_loss"] for row in rows])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    options, records = TrialOptions.from_config(spec.config), []
    steps = read_trajectory(tmp_path / "2" / spec.trial_id / "trajectory.msgpack")
    for number in (1, 2):
        with Workspace(num_devices=number).open(options) as bench:
            assert bench.train.runner.loaded.is_spread == (number == 2)
            assert (bench.train.runner.graphs is None) == (number == 2)
            learner = ZerothOrderLearner(options, bench)
            for record in steps:
                learner.replay(record)
            learner.optimizer.settle()
            records.append([p.detach().cpu() for p in bench.parameters])
    assert all(torch.equal(one, two) for one, two in zip(*records, strict=True))
