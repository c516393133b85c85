"""What becomes of an estimate: clipping, momentum, schedules and groups, against definitions."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import nn

from kerzoo.clipping import (
    Clipping,
    GlobalNormClipping,
    NoClipping,
    ProjectedGradientClipping,
    TensorNormClipping,
)
from kerzoo.estimator import Estimate
from kerzoo.kernels import ConstantKernel, PolynomialKernel
from kerzoo.momentum import CoupledCopy, HeavyBall, Momentum, MomentumState, NoMomentum
from kerzoo.noise import Gaussian
from kerzoo.optimizer import KerZOO
from kerzoo.schedules import (
    Bandwidth,
    CosineSchedule,
    KernelGain,
    LinearSchedule,
    Schedule,
    StepwiseSchedule,
)
from kerzoo.weights import Factors, FlatWeights, flatten

SHAPES = ((5, 3), (4,), (2, 6))
SIZES = [math.prod(shape) for shape in SHAPES]
SEED = 4
RATES: Factors = (0.01, 0.02, 0.005)
MOMENTA: dict[str, Momentum] = {
    "none": NoMomentum(),
    "buffer": HeavyBall(0.8),
    "replay": HeavyBall(0.8, "replay"),
    "coupled": CoupledCopy(),
}
each_momentum = pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA.keys())


class Bowl(nn.Module):
    """Three tensors and a smooth loss of them."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        drawn = (torch.randn(shape, generator=generator) for shape in SHAPES)
        self.tensors = nn.ParameterList([nn.Parameter((0.5 * t).to(dtype)) for t in drawn])

    def loss(self) -> float:
        return sum(float((t.detach().double() - 1.0).pow(2).sum()) for t in self.tensors)


def weights_of(bowl: Bowl) -> FlatWeights:
    return flatten(bowl.tensors, Gaussian())


def theta(bowl: Bowl) -> torch.Tensor:
    """Shape: [d], float64."""
    return torch.cat([t.detach().flatten().double() for t in bowl.tensors])


def update(weights: FlatWeights, state: MomentumState, *arguments: Any) -> None:
    state.update_(*arguments)
    weights.restore_()


def parts(flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensor by tensor."""
    return torch.split(flat, SIZES)


def estimate_of(*coefficients: Factors, step: int = 0) -> Estimate:
    return Estimate(SEED, step, coefficients, (1.0, 1.0))


def gradient(weights: FlatWeights, estimate: Estimate) -> torch.Tensor:
    """Σ_i c_i·u_i with explicit vectors. Shape: [d], float64."""
    total = torch.zeros(len(weights)).double()
    for key, factors in zip(estimate.keys, estimate.coefficients, strict=True):
        of_each = factors if len(factors) > 1 else factors * len(SHAPES)
        spread = torch.repeat_interleave(torch.tensor(of_each).double(), torch.tensor(SIZES))
        total += spread * weights.noise.materialise(key).double()
    return total


ESTIMATES = [
    estimate_of((3.0,)),
    estimate_of((3.0, -2.0, 0.5)),
    estimate_of((3.0,), (-1.0,), (0.25,)),
    estimate_of((3.0, 1.0, 0.0), (-1.0, 2.0, -0.5), (0.5, 0.5, 4.0)),
]
each_estimate = pytest.mark.parametrize("estimate", ESTIMATES)


@each_estimate
def test_each_directions_projected_gradient_is_held_within_the_bound(estimate: Estimate) -> None:
    n = len(estimate.coefficients)
    clipped = ProjectedGradientClipping(1.5).clip(estimate, weights_of(Bowl()))
    for factors, before in zip(clipped, estimate.coefficients, strict=True):
        for value, whole in zip(factors, before, strict=True):
            assert value * n == pytest.approx(math.copysign(min(abs(whole * n), 1.5), whole))


@each_estimate
def test_each_tensors_gradient_is_shortened_to_the_bound(estimate: Estimate) -> None:
    weights = weights_of(Bowl())
    found = gradient(weights, estimate_of(*TensorNormClipping(5.0).clip(estimate, weights)))
    for part, whole in zip(parts(found), parts(gradient(weights, estimate)), strict=True):
        factor = min(1.0, 5.0 / max(float(whole.norm()), 1e-9))
        assert torch.allclose(part, whole * factor, rtol=1e-6)


@each_estimate
def test_the_whole_gradient_is_shortened_to_the_bound(estimate: Estimate) -> None:
    weights = weights_of(Bowl())
    clipped = GlobalNormClipping(5.0).clip(estimate, weights)
    found, whole = gradient(weights, estimate_of(*clipped)), gradient(weights, estimate)
    assert float(whole.norm()) > 5.0
    assert torch.allclose(found, whole * (5.0 / float(whole.norm())), rtol=1e-6)
    assert float(found.norm()) == pytest.approx(5.0, rel=1e-6)


LARGE = [ProjectedGradientClipping(1e6), TensorNormClipping(1e6), GlobalNormClipping(1e6)]


@each_estimate
@pytest.mark.parametrize("clipping", LARGE)
def test_a_bound_that_is_not_reached_changes_no_bit(estimate: Estimate, clipping: Clipping) -> None:
    clipped, plain = (weights_of(Bowl()) for _ in range(2))
    for weights, used in ((clipped, clipping), (plain, NoClipping())):
        state = NoMomentum().start(weights)
        update(weights, state, estimate.keys, used.clip(estimate, weights), RATES)
    assert torch.equal(clipped.theta, plain.theta)


@pytest.mark.parametrize("clipping", LARGE)
def test_an_estimate_of_zero_stays_zero(clipping: Clipping) -> None:
    clipped = clipping.clip(estimate_of((0.0,)), weights_of(Bowl()))
    assert all(value == 0.0 for factors in clipped for value in factors)


def test_no_clipping_says_that_it_is_inactive_and_hands_on_what_it_got() -> None:
    assert not NoClipping().is_active
    assert all(clipping.is_active for clipping in LARGE)
    assert NoClipping().clip(ESTIMATES[3], weights_of(Bowl())) == ESTIMATES[3].coefficients


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize(
    "kind", [ProjectedGradientClipping, TensorNormClipping, GlobalNormClipping]
)
def test_a_bound_that_bounds_nothing_is_refused(kind: Any, bound: float) -> None:
    with pytest.raises(ValueError, match="bound must be > 0, got"):
        kind(bound)


def stream(num_steps: int) -> list[Estimate]:
    """Estimates of two directions, of both kinds of factors, with a sign that changes."""
    waves = [math.sin(1.7 * step) for step in range(num_steps)]
    return [estimate_of((wave,), (0.5, -wave, 0.3), step=step) for step, wave in enumerate(waves)]


def rates() -> torch.Tensor:
    return torch.repeat_interleave(torch.tensor(RATES).double(), torch.tensor(SIZES))


@pytest.mark.parametrize("memory", ["buffer", "replay"])
def test_heavy_ball_is_the_plain_recursion_of_its_buffer(memory: Any) -> None:
    bowl = Bowl()
    weights, point = weights_of(bowl), theta(bowl)
    state = HeavyBall(0.8, memory).start(weights)
    buffer = torch.zeros_like(point)
    for estimate in stream(60):
        buffer = 0.8 * buffer + gradient(weights, estimate)
        point = point - rates() * buffer
        update(weights, state, estimate.keys, estimate.coefficients, RATES)
        assert torch.allclose(theta(bowl), point, atol=1e-5)
    assert float((point - theta(Bowl())).norm()) > 0.1


def test_replay_forgets_only_what_fp32_does_not_resolve() -> None:
    """After a jolt of 10³ and quiet steps both memories agree to rounding, 2⁻²⁴ of what moved."""
    bowls = [Bowl(), Bowl()]
    for bowl, memory in zip(bowls, ("buffer", "replay"), strict=True):
        weights = weights_of(bowl)
        state = HeavyBall(0.5, memory).start(weights)  # type: ignore[arg-type]
        for step in range(60):
            estimate = estimate_of((1e3 if step == 0 else 1e-2,), step=step)
            update(weights, state, estimate.keys, estimate.coefficients, (1e-3,))
    moved = float((theta(bowls[0]) - theta(Bowl())).norm())
    assert moved > 1.0
    assert float((theta(bowls[0]) - theta(bowls[1])).norm()) < 8 * 2.0**-24 * moved


def test_a_coupled_copy_is_its_three_equations() -> None:
    bowl = Bowl()
    weights = weights_of(bowl)
    state = CoupledCopy().start(weights)
    x, y = theta(bowl), theta(bowl)
    for k, estimate in enumerate(stream(40)):
        beta = 1.0 + k / 6.0
        z = x / beta + (1.0 - 1.0 / beta) * y
        assert torch.allclose(theta(bowl), z, atol=1e-5)
        update(weights, state, estimate.keys, estimate.coefficients, RATES)
        x = x - rates() * gradient(weights, estimate)
        y = x / beta + (1.0 - 1.0 / beta) * y
    assert float((x - y).norm()) > 0.05
    assert float((x - theta(Bowl())).norm()) > 0.1


def optimizer_of(bowl: Bowl, lr: float = 1e-3, **options: Any) -> KerZOO:
    return KerZOO(bowl.parameters(), lr, options.pop("kernel", ConstantKernel()), 1e-2, **options)


def movement(bowl: Bowl, optimizer: KerZOO) -> torch.Tensor:
    """What one step adds to θ."""
    before = theta(bowl)
    optimizer.step(bowl.loss)
    return theta(bowl) - before


SCHEDULES: list[tuple[Schedule, list[float]]] = [
    (LinearSchedule(), [1.0, 0.75, 0.5, 0.25, 0.05]),
    (CosineSchedule(0.1), [1.0, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0.1]),
    (StepwiseSchedule(0.0, 0.1, 2), [1.0, 1.0, 0.1, 0.1, 0.1]),
    (
        KernelGain(PolynomialKernel("uniform", 4), Bandwidth(0.5, rescale=False)),
        [0.25 * (25.0 - 21.0 * 0.25) / 4.0] * 5,
    ),
    (
        KernelGain(
            PolynomialKernel("uniform", 4, 4.0), Bandwidth(1.0, LinearSchedule(), rescale=False)
        ),
        [d**2 * (25.0 - 21.0 * d**2) for d in (1.0, 0.75, 0.5, 0.25, 0.05)],
    ),
]


@pytest.mark.parametrize(("schedule", "factors"), SCHEDULES)
def test_the_learning_rate_follows_its_schedule(schedule: Schedule, factors: list[float]) -> None:
    bowl = Bowl()
    optimizer = optimizer_of(bowl, num_steps=4, learning_rate_schedule=schedule)
    for step, factor in enumerate(factors):
        assert optimizer.learning_rate_factor_at(step) == pytest.approx(factor)
        estimate = optimizer.estimate(bowl.loss)
        before = theta(bowl)
        optimizer.apply(estimate)
        ((coefficient,),) = estimate.coefficients
        u = optimizer.weights.noise.materialise(estimate.keys[0]).double()
        assert torch.allclose(theta(bowl) - before, -1e-3 * factor * coefficient * u, atol=1e-6)


def test_the_perturbation_scale_follows_its_schedule_at_the_points_and_in_the_slope() -> None:
    bowl = Bowl()
    optimizer = optimizer_of(
        bowl, lr=0.0, num_steps=4, perturbation_scale_schedule=LinearSchedule(0.2)
    )
    for factor in (1.0, 0.75, 0.5, 0.25, 0.2):
        seen: list[torch.Tensor] = []
        start = theta(bowl)

        def loss(seen: list[torch.Tensor] = seen) -> float:
            seen.append(theta(bowl))
            return bowl.loss()

        estimate = optimizer.estimate(loss)
        u = optimizer.weights.noise.materialise(estimate.keys[0]).double()
        assert torch.allclose(seen[0] - start, 1e-2 * factor * u, atol=1e-6)
        slope = (estimate.losses[0] - estimate.losses[1]) / (2e-2 * factor)
        assert estimate.coefficients[0][0] == pytest.approx(slope)
        optimizer.apply(estimate)


def groups_of(bowl: Bowl, *options: dict[str, float]) -> list[dict[str, Any]]:
    every = [*options, *({} for _ in SHAPES)]
    return [{"params": [t]} | o for t, o in zip(bowl.tensors, every, strict=False)]


def test_groups_have_a_learning_rate_and_a_weight_decay_of_their_own() -> None:
    alone, grouped = Bowl(), Bowl()
    plain = parts(movement(alone, optimizer_of(alone)))
    groups = groups_of(grouped, {"lr": 5e-3}, {"lr": 0.0}, {"weight_decay": 3.0})
    before = parts(theta(grouped))
    optimizer = KerZOO(groups, 1e-3, ConstantKernel(), 1e-2)
    moved = parts(movement(grouped, optimizer))
    assert torch.allclose(moved[0], 5.0 * plain[0], atol=1e-6)
    assert not moved[1].any()
    assert torch.allclose(moved[2], plain[2] - 1e-3 * 3.0 * before[2], atol=1e-6)


def test_a_learning_rate_that_is_changed_between_steps_is_taken_over() -> None:
    """As torch's own schedulers change it."""
    first, second = Bowl(), Bowl()
    optimizer = optimizer_of(first)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 3.0 - step)
    assert torch.allclose(
        movement(first, optimizer), 3.0 * movement(second, optimizer_of(second)), atol=1e-6
    )
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2e-3)


def test_weight_decay_follows_the_learning_rate_and_skips_tensors_of_one_dimension() -> None:
    bowl, undecayed = Bowl(), Bowl()
    start = parts(theta(bowl))
    schedule = KernelGain(PolynomialKernel("uniform", 4), Bandwidth(0.5, rescale=False))
    options: dict[str, Any] = {"learning_rate_schedule": schedule}
    decayed = parts(movement(bowl, optimizer_of(bowl, weight_decay=2.0, **options)))
    plain = parts(movement(undecayed, optimizer_of(undecayed, **options)))
    rate = 1e-3 * SCHEDULES[3][1][0]
    assert torch.equal(decayed[1], plain[1])
    for i in (0, 2):
        assert torch.allclose(decayed[i] - plain[i], -rate * 2.0 * start[i], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_momentum
def test_a_run_resumes_bit_for_bit_from_the_states_of_model_and_optimizer(
    momentum: Momentum, dtype: torch.dtype
) -> None:
    """Through a file, into fresh objects; θ's fp32 copy too."""
    options: dict[str, Any] = {
        "kernel": PolynomialKernel("uniform", 4),
        "momentum": momentum,
        "num_directions": 2,
        "num_steps": 12,
        "r_scope": "tensor",
        "learning_rate_schedule": LinearSchedule(),
        "clipping": TensorNormClipping(20.0),
        "weight_decay": 0.0 if isinstance(momentum, CoupledCopy) else 0.1,
    }
    bowl = Bowl(dtype)
    optimizer = optimizer_of(bowl, **options)
    for step in range(12):
        if step == 5:
            file = io.BytesIO()
            torch.save((bowl.state_dict(), optimizer.state_dict()), file)
        optimizer.step(bowl.loss)
    fresh = Bowl(dtype)
    resumed = optimizer_of(fresh, lr=7.0, **options)
    resumed.step(fresh.loss)  # what it holds is replaced
    file.seek(0)
    model_state, optimizer_state = torch.load(file, weights_only=True)
    fresh.load_state_dict(model_state)
    resumed.load_state_dict(optimizer_state)
    assert resumed.last_step == 5
    while resumed.last_step < 12:
        resumed.step(fresh.loss)
    assert torch.equal(theta(fresh), theta(bowl))
    assert torch.equal(resumed.weights.theta, optimizer.weights.theta)
    assert float((theta(bowl) - theta(Bowl(dtype))).norm()) > 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": CoupledCopy(), "weight_decay": 0.1}, "weight_decay must be 0 with Coupled"),
        ({"learning_rate_schedule": LinearSchedule()}, "num_steps is needed by LinearSchedule"),
        ({"bandwidth": Bandwidth(schedule=CosineSchedule())}, "num_steps is needed by CosineS"),
        ({"perturbation_scale_schedule": StepwiseSchedule()}, "num_steps is needed by StepwiseS"),
        (
            {"perturbation_scale_schedule": LinearSchedule(0.0), "num_steps": 4},
            "perturbation_scale_schedule must have a floor > 0",
        ),
        ({"lr": -1.0}, "lr must be ≥ 0, got -1.0"),
        ({"weight_decay": math.nan}, "weight_decay must be ≥ 0, got nan"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer_of(Bowl(), **({"kernel": PolynomialKernel("uniform", 4)} | options))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"momentum": 0.9}, "momentum is no option of a parameter group; these are: lr, weight_"),
        ({"lr": -2.0}, "lr must be ≥ 0, got -2.0"),
        ({"weight_decay": 0.1}, "weight_decay must be 0 with CoupledCopy"),
    ],
)
def test_groups_that_do_not_fit_are_refused(group: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KerZOO(groups_of(Bowl(), {}, group), 1e-3, momentum=CoupledCopy())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, math.nan])
def test_a_heavy_ball_that_forgets_at_once_or_never_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay must lie in \(0, 1\)"):
        HeavyBall(decay)
