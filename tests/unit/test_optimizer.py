"""KerZOO as a torch optimizer: against a slow twin, and its manners."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kerzoo.kernels import ConstantKernel, Kernel, PolynomialKernel
from kerzoo.momentum import HeavyBall
from kerzoo.noise import derive_key
from kerzoo.optimizer import KerZOO
from kerzoo.schedules import Bandwidth, LinearSchedule
from kerzoo.weights import Precision


def network() -> nn.Sequential:
    torch_state = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch_state) * 0.5)
    return model


INPUTS = torch.linspace(-1, 1, 40).reshape(10, 4)


def loss_of(model: nn.Module) -> torch.Tensor:
    return (model(INPUTS) - INPUTS.sum(1, keepdim=True)).square().mean()


@pytest.mark.parametrize("kernel", [ConstantKernel(), PolynomialKernel("uniform", 4)])
def test_fifty_steps_agree_with_a_slow_reference_twin(kernel: Kernel) -> None:
    fast = network()
    optimizer = KerZOO(fast.parameters(), lr=1e-2, kernel=kernel, perturbation_scale=1e-2, seed=3)
    slow = network().double()
    shapes = [p.shape for p in slow.parameters()]
    for step in range(50):
        optimizer.step(lambda: loss_of(fast))
        u = optimizer.weights.noise.materialise(derive_key(3, "directions", step)).double()
        pieces = [
            n.reshape(s) for n, s in zip(u.split([s.numel() for s in shapes]), shapes, strict=True)
        ]
        (draw,) = optimizer.estimator.draw(step, 0)
        (r,), (weight,) = draw.radii, draw.weights
        losses = []
        with torch.no_grad():
            for shift in (1e-2 * r, -2e-2 * r, 1e-2 * r):
                for parameter, piece in zip(slow.parameters(), pieces, strict=True):
                    parameter.add_(piece, alpha=shift)
                inputs = INPUTS.double()
                losses.append(float((slow(inputs) - inputs.sum(1, keepdim=True)).square().mean()))
            gradient = (losses[0] - losses[1]) / 2e-2 * weight
            for parameter, piece in zip(slow.parameters(), pieces, strict=True):
                parameter.sub_(piece, alpha=1e-2 * gradient)
    for a, b in zip(fast.parameters(), slow.parameters(), strict=True):
        assert torch.allclose(a.double(), b, atol=2e-4)


def test_training_lowers_the_loss() -> None:
    model = network()
    optimizer = KerZOO(model.parameters(), lr=2e-2, kernel=ConstantKernel())
    before = loss_of(model).item()
    for _ in range(200):
        optimizer.step(lambda: loss_of(model))
    assert loss_of(model).item() < before / 2


@pytest.mark.parametrize("precision", ["master", "inplace"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_state_dict_resumes_bit_for_bit(lazy: bool, precision: Precision) -> None:
    """Into an optimizer that is new, or in the midst of a step of other weights."""

    def optimizer_of(model: nn.Module) -> KerZOO:
        return KerZOO(model.parameters(), lr=1e-2, lazy=lazy, precision=precision)

    through, first, second = network(), network(), network()
    optimizer, begun, resumed = map(optimizer_of, (through, first, second))
    for _ in range(3):
        begun.step(lambda: loss_of(first))
    begun.settle()
    resumed.estimate(lambda: loss_of(second))
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(begun.state_dict())
    for _ in range(3):
        resumed.step(lambda: loss_of(second))
    for step in range(6):
        optimizer.step(lambda: loss_of(through))
        if step == 2:
            optimizer.settle()  # in place it rounds
    optimizer.settle()
    resumed.settle()
    for a, b in zip(through.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_written_from_outside_are_taken_over() -> None:
    model = network()
    optimizer = KerZOO(model.parameters(), lr=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.25)
    optimizer.step(lambda: loss_of(model))
    assert all(bool((p == 0.25).all()) for p in model.parameters())


def test_replaying_the_logged_losses_rebuilds_the_weights_bit_for_bit() -> None:
    model, copy = network(), network()
    optimizer = KerZOO(model.parameters(), lr=1e-2, num_directions=2)
    replayed = KerZOO(copy.parameters(), lr=1e-2, num_directions=2, num_threads=2)
    for _ in range(10):
        estimate = optimizer.estimate(lambda: loss_of(model))
        optimizer.apply(estimate)
        replayed.replay(estimate.losses)
    for a, b in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    model = network()
    optimizer = KerZOO(model.parameters(), lr=1e-2)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="estimate must be finite"):
        optimizer.step(lambda: float("nan"))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert optimizer.last_step == 0


def test_an_estimate_of_another_step_is_refused() -> None:
    model = network()
    optimizer = KerZOO(model.parameters(), lr=1e-2)
    estimate = optimizer.estimate(lambda: loss_of(model))
    optimizer.apply(estimate)
    with pytest.raises(ValueError, match="estimate must belong to step 1"):
        optimizer.apply(estimate)


def test_a_step_without_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="closure is required"):
        KerZOO(network().parameters(), lr=1e-2).step()


def test_the_global_generator_is_untouched() -> None:
    model = network()
    before = torch.get_rng_state()
    KerZOO(model.parameters(), lr=1e-2).step(lambda: loss_of(model))
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_loaded_after_the_optimizer_was_made_replays_from_what_was_loaded() -> None:
    model, fresh = network(), network()
    optimizer = KerZOO(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.step(lambda: loss_of(model))
    resumed = KerZOO(fresh.parameters(), lr=1e-2)
    fresh.load_state_dict(model.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    estimate = optimizer.estimate(lambda: loss_of(model))
    optimizer.apply(estimate)
    resumed.replay(estimate.losses)
    for a, b in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


def test_mezo_takes_no_notice_of_a_shrinking_bandwidth() -> None:
    model = network()
    shrinking = Bandwidth(1.0, LinearSchedule())
    KerZOO(model.parameters(), 1e-2, ConstantKernel(), bandwidth=shrinking).step(
        lambda: loss_of(model)
    )


def test_float64_weights_keep_all_their_digits() -> None:
    model = network().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-12)
    before = [p.clone() for p in model.parameters()]
    inputs = INPUTS.double()
    optimizer = KerZOO(model.parameters(), lr=0.0)
    optimizer.step(lambda: model(inputs).square().mean())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_model_that_was_cast_afterwards_is_refused() -> None:
    model = network()
    optimizer = KerZOO(model.parameters(), lr=1e-2)
    model.double()
    with pytest.raises(ValueError, match="after the optimizer was made"):
        optimizer.step(lambda: 0.0)


def test_a_state_of_another_momentum_is_refused() -> None:
    plain = KerZOO(network().parameters(), lr=1e-2)
    heavy = KerZOO(network().parameters(), lr=1e-2, momentum=HeavyBall())
    for a, b in ((plain, heavy), (heavy, plain)):
        with pytest.raises(ValueError, match="state_dict must be that of a KerZOO with"):
            a.load_state_dict(b.state_dict())


def test_a_loss_difference_beyond_single_precision_is_refused_and_changes_nothing() -> None:
    model = network()
    optimizer = KerZOO(model.parameters(), lr=1e-2)
    losses = iter((1e39, -1e39))
    with pytest.raises(ValueError, match="estimate must be finite"):
        optimizer.step(lambda: next(losses))


def test_a_seed_that_fits_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seed must lie in \[0, 2\^63\)"):
        KerZOO(network().parameters(), lr=1e-2, seed=1 << 63)


def test_a_group_of_parameters_that_comes_later_is_refused() -> None:
    optimizer = KerZOO(nn.Linear(2, 1).parameters(), lr=1e-2)
    with pytest.raises(ValueError, match="parameter groups are fixed"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})


@pytest.mark.parametrize("precision", ["master", "inplace"])
def test_a_lazy_optimizer_makes_the_steps_of_one_that_is_not(precision: Precision) -> None:
    """The same bits with a master copy; in place restoring and moving are one addition."""
    thetas = []
    for lazy in (False, True):
        model = network()
        optimizer = KerZOO(
            model.parameters(), lr=1e-2, perturbation_scale=0.1, precision=precision, lazy=lazy
        )
        for _ in range(5):
            optimizer.step(lambda: loss_of(model))  # noqa: B023
        optimizer.settle()
        thetas.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    if precision == "master":
        assert torch.equal(*thetas)
    else:
        assert torch.allclose(*thetas, atol=1e-6), (thetas[0] - thetas[1]).abs().max()
