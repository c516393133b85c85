"""Points whose losses one call finds: the estimates of points in turn, and θ untouched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call

from kerzoo.kernels import ConstantKernel, Kernel, PolynomialKernel, RichardsonKernel
from kerzoo.noise import Gaussian
from kerzoo.optimizer import KerZOO
from kerzoo.points import Stacked
from kerzoo.weights import FlatWeights, MasterWeights, Precision, ShardedWeights

KERNELS: dict[str, Kernel] = {
    "mezo": ConstantKernel(),
    "legendre4": PolynomialKernel("uniform", 4),
    "richardson4": RichardsonKernel(4),
}


class Problem:
    """A small network on random data, whose loss is found at the model's weights or at others."""

    def __init__(self, points_per_forward: int = 1, **options: Any) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
            self.inputs, self.targets = torch.randn(16, 3), torch.randn(16, 1)
        self.places: set[int] = set()
        self.together = points_per_forward > 1
        self.optimizer = KerZOO(
            self.model.parameters(),
            lr=1e-2,
            perturbation_scale=1e-2,
            points_per_forward=points_per_forward,
            **options,
        )

    def loss(self) -> torch.Tensor:
        return (self.model(self.inputs) - self.targets).square().mean()

    def losses(self, points: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """As `loss`, with the weights of each point."""
        self.places |= {tensor.data_ptr() for tensor in points}
        names = [name for name, _ in self.model.named_parameters()]
        found = []
        for weights in zip(*points, strict=True):
            outputs = functional_call(
                self.model, dict(zip(names, weights, strict=True)), self.inputs
            )
            found.append((outputs - self.targets).square().mean())
        return found

    @property
    def closure(self) -> Any:
        return self.losses if self.together else self.loss

    @property
    def theta(self) -> torch.Tensor:
        return self.optimizer.weights.theta.clone()


@pytest.mark.parametrize("r_scope", ["step", "tensor"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("number", [2, 4, 5, 100])
def test_estimates_with_a_master_copy_are_those_of_points_in_turn_bit_for_bit(
    number: int, kernel: str, r_scope: Any
) -> None:
    options: dict[str, Any] = {
        "kernel": KERNELS[kernel],
        "num_directions": 3,
        "r_scope": r_scope,
        "lazy": True,
    }
    in_turn, together = Problem(**options), Problem(number, **options)
    for _ in range(4):
        expected = in_turn.optimizer.estimate(in_turn.closure)
        found = together.optimizer.estimate(together.closure)
        assert found == expected
        in_turn.optimizer.apply(expected)
        together.optimizer.apply(found)
    assert torch.equal(together.theta, in_turn.theta)
    assert len(together.places) == len(list(together.model.parameters()))  # the buffer stays


def test_points_of_weights_in_shards_are_those_of_one_flat_vector() -> None:
    def points(shards: int) -> list[torch.Tensor]:
        parameters = [nn.Parameter(torch.ones(shape)) for shape in ((3, 2), (5,), (4, 1))]
        parts = [parameters] if shards == 1 else [parameters[:1], parameters[1:]]
        made: list[FlatWeights] = []
        for part in parts:
            made.append(MasterWeights(part, Gaussian(), start=sum(map(len, made)), total=15))
        found: list[torch.Tensor] = []

        def closure(points: Sequence[torch.Tensor]) -> list[float]:
            found.extend(tensor.clone() for tensor in points)
            return [0.0] * len(points[0])

        weights = made[0] if shards == 1 else ShardedWeights(made)
        visits = [(1, [(0.5, -1.0, 2.0), (1.0,)]), (2, [(0.25,)])]
        Stacked(2).losses(weights, closure, visits)
        return found

    whole, shared = points(1), points(2)
    assert [tensor.shape for tensor in whole[:3]] == [(2, 3, 2), (2, 5), (2, 4, 1)]
    assert len(whole) == len(shared) == 6
    assert all(torch.equal(a, b) for a, b in zip(whole, shared, strict=True))


def test_in_place_several_points_leave_no_bit_changed_where_points_in_turn_round() -> None:
    changed = []
    for number in (1, 4):
        problem = Problem(number, precision="inplace", num_directions=2)
        before = problem.theta
        problem.optimizer.estimate(problem.closure)
        changed.append(not torch.equal(problem.theta, before))
    assert changed == [True, False]


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("precision", ["master", "inplace"])
def test_replaying_the_losses_of_several_points_rebuilds_the_weights_bit_for_bit(
    precision: Precision, lazy: bool
) -> None:
    options: dict[str, Any] = {"precision": precision, "num_directions": 3, "lazy": lazy}
    run, replayed = Problem(4, **options), Problem(4, **options)
    for _ in range(5):
        estimate = run.optimizer.estimate(run.closure)
        run.optimizer.apply(estimate)
        assert replayed.optimizer.replay(estimate.losses) == estimate
    for problem in (run, replayed):
        problem.optimizer.settle()
    for a, b in zip(run.model.parameters(), replayed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(run.theta, replayed.theta)


@pytest.mark.parametrize("precision", ["master", "inplace"])
def test_a_closure_that_raises_leaves_theta_as_it_was(precision: Precision) -> None:
    problem = Problem(2, precision=precision)
    before = problem.theta

    def fail(points: Sequence[torch.Tensor]) -> list[float]:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        problem.optimizer.step(fail)
    assert torch.equal(problem.theta, before)


def test_a_closure_that_returns_another_number_of_losses_is_refused() -> None:
    problem = Problem(2)
    with pytest.raises(ValueError, match="a loss for each of 2 points, got 1"):
        problem.optimizer.step(lambda points: [1.0])


def test_less_than_one_point_a_forward_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="points_per_forward must be at least 1, got 0"):
        Problem(0)
