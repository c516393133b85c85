"""Arms with one seed see the same batches and directions, whatever else they do."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from kerzoo.batches import BatchSampler
from kerzoo.estimator import Estimator, RadiusScope
from kerzoo.kernels import (
    ConstantKernel,
    DiscreteKernel,
    Kernel,
    MinVarianceKernel,
    PolynomialKernel,
    RichardsonKernel,
    SignKernel,
)
from kerzoo.noise import (
    Gaussian,
    Perturbation,
    Rademacher,
    Sphere,
    derive_key,
    uniform_from_key,
)
from kerzoo.optimizer import KerZOO
from kerzoo.schedules import Bandwidth, LinearSchedule
from kerzoo.weights import flatten

SHAPES = ((3, 4), (5,), (2, 2))
EPSILON = 0.25
NUM_STEPS = 10

KERNELS: list[Kernel] = [
    ConstantKernel(),
    SignKernel(),
    *(PolynomialKernel("uniform", order) for order in (2, 4, 6)),
    PolynomialKernel("arcsine", 4),
    PolynomialKernel("normal", 4),
    DiscreteKernel(4),
    RichardsonKernel(6),
    MinVarianceKernel(4),
]
each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k.family}{k.order}")
each_law = pytest.mark.parametrize("law", [Gaussian(), Sphere(), Rademacher()])


def tensors() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]


def visited(estimator: Estimator, step: int, law: Perturbation) -> list[list[torch.Tensor]]:
    """u of each direction, read off every perturbed point by dividing by what scaled it."""
    weights = flatten(tensors(), law)
    points: list[torch.Tensor] = []

    def loss() -> float:
        points.append(torch.cat([p.detach().flatten().double() for p in weights.parameters]))
        return 0.0

    estimator.estimate(weights, loss, step)
    left = iter(points)
    sizes = torch.tensor(weights.sizes)
    found = []
    for index in range(estimator.num_directions):
        seen = []
        for draw in estimator.draw(step, index, len(SHAPES)):
            radii = draw.radii if len(draw.radii) > 1 else draw.radii * len(SHAPES)
            scales = torch.repeat_interleave(EPSILON * torch.tensor(radii).double(), sizes)
            seen += [next(left) / scales, next(left) / -scales]
        found.append(seen)
    assert not list(left)
    return found


def mezo(n: int = 1, seed: int = 0) -> Estimator:
    return Estimator(ConstantKernel(), Bandwidth(), EPSILON, n, seed=seed)


@pytest.mark.parametrize("scope", ["step", "tensor"])
@pytest.mark.parametrize("n", [1, 3])
@each_law
@each_kernel
def test_every_arm_measures_along_the_directions_of_mezo(
    kernel: Kernel, law: Perturbation, n: int, scope: RadiusScope
) -> None:
    """The i-th direction of a step does not depend on how many there are, nor on r."""
    arm = Estimator(
        kernel, Bandwidth(0.5, LinearSchedule()), EPSILON, n, NUM_STEPS, 0, r_scope=scope
    )
    for step in (0, 7):
        expected = visited(mezo(3), step, law)
        for seen, (u, *_) in zip(visited(arm, step, law), expected, strict=False):
            for point in seen:
                assert torch.allclose(point, u, rtol=1e-4, atol=1e-6)


@each_kernel
def test_the_first_tensor_has_the_r_of_the_step_and_the_others_their_own(kernel: Kernel) -> None:
    by_step, by_tensor = (
        Estimator(kernel, Bandwidth(), EPSILON, 2, seed=3, r_scope=scope)
        for scope in ("step", "tensor")
    )
    for step, index in itertools.product(range(4), range(2)):
        for one, many in zip(
            by_step.draw(step, index, 6), by_tensor.draw(step, index, 6), strict=True
        ):
            assert one.radii == many.radii[:1]
            assert one.weights == many.weights[:1]
            assert len(many.radii) == 6
            key = derive_key(3, "radii", step, index)  # a stream apart from that of directions
            for tensor in range(6):
                nodes = kernel.draw(uniform_from_key(key, tensor))
                assert (many.radii[tensor], many.weights[tensor]) in nodes
    radii = {draw.radii for step in range(20) for draw in by_tensor.draw(step, 0, 6)}
    if kernel.has_bandwidth:
        assert all(len(set(drawn)) == 6 for drawn in radii)


def test_steps_directions_and_seeds_have_directions_and_radii_of_their_own() -> None:
    kernel = PolynomialKernel("uniform", 4)
    directions, radii = [], []
    for seed, step in itertools.product(range(3), range(3)):
        directions += [seen[0] for seen in visited(mezo(3, seed), step, Gaussian())]
        arm = Estimator(kernel, Bandwidth(), EPSILON, 3, seed=seed)
        radii += [arm.draw(step, index)[0].radii for index in range(3)]
    assert len(set(radii)) == 27
    for a, b in itertools.combinations(directions, 2):
        assert not torch.allclose(a, b, atol=0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"perturbation_scale": 1e-3},
        {"bandwidth": Bandwidth(0.5, rescale=False)},
        {"num_directions": 5},
        {"num_steps": 99},
        {"perturbation_scale_schedule": LinearSchedule()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_options_of_an_arm_change_no_key_and_no_random_number(change: dict[str, Any]) -> None:
    kernel = PolynomialKernel("uniform", 4)
    base = Estimator(kernel, Bandwidth(), EPSILON, 2, NUM_STEPS)
    arm = dataclasses.replace(base, **change)
    weights = flatten(tensors(), Gaussian())
    for step in range(3):
        for (key, _), (other, _) in zip(
            base.points(weights, step), arm.points(weights, step), strict=False
        ):
            assert key == other
        for index in range(2):
            rho = base.draw(step, index)[0].radii[0]
            assert arm.draw(step, index)[0].radii[0] == pytest.approx(
                rho * arm.bandwidth.half_width
            )


def trained_on(sampler: BatchSampler, optimizer: KerZOO, num_steps: int) -> list[list[int]]:
    """The batches of a run; every forward pass of a step sees the same one."""
    seen: list[list[int]] = []
    for _ in range(num_steps):
        passes: list[list[int]] = []

        def loss(passes: list[list[int]] = passes) -> float:
            passes.append(sampler.indices(optimizer.last_step))
            return float(len(passes))

        optimizer.step(loss)
        assert len(passes) == optimizer.estimator.forward_passes_per_step
        assert all(batch == passes[0] for batch in passes)
        seen.append(passes[0])
    return seen


@each_kernel
def test_arms_with_one_seed_train_on_the_same_batches(kernel: Kernel) -> None:
    """At the same step, however many forward passes the step takes."""
    first = trained_on(BatchSampler(20, 3, 5), KerZOO(tensors(), 0.0, ConstantKernel(), seed=5), 15)
    options: dict[str, Any] = {"num_directions": 2, "seed": 5, "r_scope": "tensor"}
    arm = trained_on(BatchSampler(20, 3, 5), KerZOO(tensors(), 0.0, kernel, **options), 15)
    assert arm == first
    assert first != [BatchSampler(20, 3, 6).indices(step) for step in range(15)]


def test_a_batch_is_a_function_of_its_step_in_whatever_order_steps_are_asked_for() -> None:
    forwards = [BatchSampler(17, 4, 2).indices(step) for step in range(40)]
    sampler = BatchSampler(17, 4, 2)
    assert [sampler.indices(step) for step in reversed(range(40))] == forwards[::-1]
    assert BatchSampler(17, 4, 2).indices(33) == forwards[33]
