"""Both precision policies against plain torch on materialised directions, and what they promise."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from kerzoo.estimator import Estimator
from kerzoo.kernels import ConstantKernel, RichardsonKernel
from kerzoo.noise import (
    CHUNK_ELEMENTS,
    Gaussian,
    Perturbation,
    Rademacher,
    Sphere,
    compiled,
    derive_key,
)
from kerzoo.schedules import Bandwidth
from kerzoo.weights import (
    DRIFT_SPREAD,
    Factors,
    FlatWeights,
    InPlaceWeights,
    MasterWeights,
    Precision,
    check_precision,
    flatten,
    measure_drift,
)

CHUNK = CHUNK_ELEMENTS["cpu"]
SHAPES: tuple[tuple[int, ...], ...] = ((7, 3), (CHUNK - 30,), (), (5, 1), (251, 301), (CHUNK,))
"""Ends on both sides of the chunks' ends, tensors within a chunk and over several of them."""
PER_TENSOR: Factors = (0.5, -0.25, 2.0, 2.0, 0.0, -1.5)
ONE: Factors = (0.75,)
KEY, OTHER = derive_key(0, "directions"), derive_key(0, "directions", 1)
HALVES = (torch.bfloat16, torch.float16)

Policy = tuple[Precision, torch.dtype]
POLICIES: list[Policy] = [
    ("master", torch.float32),
    ("inplace", torch.float32),
    *(("master", dtype) for dtype in HALVES),
    *(("inplace_half", dtype) for dtype in HALVES),
]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: f"{p[0]}-{p[1]}")
each_kind_of_factors = pytest.mark.parametrize("factors", [ONE, PER_TENSOR])
each_number_of_threads = pytest.mark.parametrize("threads", [1, 2])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which threads find several."""
    monkeypatch.setattr(compiled, "PIECE", CHUNK)


def tensors(dtype: torch.dtype) -> list[nn.Parameter]:
    """Weights of a language model's spread; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.randn(shape, generator=generator) for shape in SHAPES)
    return [nn.Parameter((DRIFT_SPREAD * values).to(dtype)) for values in drawn]


def weights_of(policy: Policy, threads: int = 1, law: Perturbation | None = None) -> FlatWeights:
    precision, dtype = policy
    return flatten(tensors(dtype), law or Gaussian(), precision, threads)


def factor_of_each_element(factors: Factors) -> torch.Tensor:
    """Shape: [d], float64."""
    of_each = factors if len(factors) > 1 else factors * len(SHAPES)
    counts = [p.numel() for p in tensors(torch.float32)]
    return torch.repeat_interleave(torch.tensor(of_each).double(), torch.tensor(counts))


@functools.cache
def direction(key: int = KEY) -> torch.Tensor:
    """u. Shape: [d], float64."""
    return weights_of(POLICIES[0]).noise.materialise(key).double()


def assert_close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """To a handful of roundings of values up to about 10 (the largest factor times 4.5σ)."""
    assert float((found.double() - expected).abs().max()) < 16 * torch.finfo(dtype).eps


@each_number_of_threads
@each_kind_of_factors
@each_policy
def test_moving_adds_the_direction_to_theta_and_the_model_computes_with_it(
    policy: Policy, factors: Factors, threads: int
) -> None:
    weights = weights_of(policy, threads)
    start = weights.theta.double().clone()
    weights.move_(KEY, factors)
    weights.restore_()
    expected = start + factor_of_each_element(factors) * direction()
    assert_close(weights.theta, expected, weights.theta.dtype)
    assert torch.equal(weights.working, weights.theta.to(weights.working.dtype))
    flat = torch.cat([p.detach().flatten() for p in weights.parameters])
    assert torch.equal(flat, weights.working)


@each_number_of_threads
@each_kind_of_factors
@each_policy
def test_a_perturbed_model_computes_with_theta_plus_the_direction(
    policy: Policy, factors: Factors, threads: int
) -> None:
    weights = weights_of(policy, threads)
    start = weights.theta.double().clone()
    for key in (KEY, OTHER):
        for sign in (1.0, -1.0):
            scales = tuple(sign * f for f in factors)
            weights.perturb_(key, scales)
            expected = start + factor_of_each_element(scales) * direction(key)
            assert_close(weights.working, expected, weights.working.dtype)
    weights.restore_()
    assert_close(weights.working, start, weights.working.dtype)


@each_policy
def test_a_factor_of_zero_moves_no_bit_of_its_tensor(policy: Policy) -> None:
    weights = weights_of(policy)
    before = weights.parameters[4].detach().clone()
    weights.perturb_(KEY, PER_TENSOR)
    assert torch.equal(weights.parameters[4], before)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p[0] != "master"])
def test_in_place_restoring_and_moving_are_one_addition(policy: Policy) -> None:
    """Ends where restoring and then moving ends, up to the rounding of one addition."""
    at_once, in_two = weights_of(policy), weights_of(policy)
    for weights in (at_once, in_two):
        weights.perturb_(KEY, (1e-2,))
    in_two.restore_()
    for weights in (at_once, in_two):
        weights.move_(KEY, (3e-3,))
    assert_close(at_once.working, in_two.working.double(), policy[1])
    assert torch.equal(at_once.theta, at_once.working)


@each_kind_of_factors
@each_policy
def test_adding_to_another_vector_leaves_theta_alone(policy: Policy, factors: Factors) -> None:
    weights = weights_of(policy)
    before = weights.working.clone()
    target = torch.ones(len(weights))
    weights.add_(target, KEY, factors)
    expected = 1.0 + factor_of_each_element(factors) * direction()
    assert_close(target, expected, torch.float32)
    assert torch.equal(weights.working, before)


@each_number_of_threads
@pytest.mark.parametrize("kinds", [(ONE, ONE), (PER_TENSOR, PER_TENSOR), (ONE, PER_TENSOR)])
def test_squared_norms_are_those_of_the_sum_over_the_directions(
    kinds: tuple[Factors, Factors], threads: int
) -> None:
    weights = weights_of(POLICIES[0], threads)
    total = sum(
        factor_of_each_element(f) * direction(k) for k, f in zip((KEY, OTHER), kinds, strict=True)
    )
    assert isinstance(total, torch.Tensor)
    expected = [float(part.square().sum()) for part in weights.split(total)]
    assert weights.squared_norms((KEY, OTHER), kinds) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("law", [Gaussian(), Sphere(), Rademacher()])
@each_policy
def test_threads_change_no_bit_of_anything(policy: Policy, law: Perturbation) -> None:
    one, two = (weights_of(policy, threads, law) for threads in (1, 2))
    for factors in (ONE, PER_TENSOR):
        for weights in (one, two):
            weights.perturb_(KEY, factors)
        assert torch.equal(one.working, two.working)
        for weights in (one, two):
            weights.restore_()
            weights.move_(OTHER, factors)
            weights.retrace_(KEY, [factors, ONE])
            weights.restore_()
        assert torch.equal(one.theta, two.theta)
        assert torch.equal(one.working, two.working)
        norms = [weights.squared_norms([KEY], [factors]) for weights in (one, two)]
        assert norms[0] == norms[1]


TOURS: list[list[Factors]] = [
    [(1e-3,), (-1e-3,)],
    [(5e-4,), (-5e-4,), (1e-3,), (-1e-3,)],
    [tuple(1e-3 * f for f in PER_TENSOR), tuple(-1e-3 * f for f in PER_TENSOR)],
]


@pytest.mark.parametrize("tour", TOURS, ids=["mezo", "richardson", "per tensor"])
@each_policy
def test_retracing_gives_the_bits_of_perturbing_to_each_point_and_restoring(
    policy: Policy, tour: Sequence[Factors]
) -> None:
    walked, retraced = weights_of(policy), weights_of(policy, threads=2)
    for key in (KEY, OTHER):
        for point in tour:
            walked.perturb_(key, point)
        retraced.retrace_(key, tour)
        for weights in (walked, retraced):
            weights.restore_()
        assert torch.equal(walked.theta, retraced.theta)
        assert torch.equal(walked.working, retraced.working)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-2])
def test_fp32_in_place_does_not_drift_beyond_rounding(epsilon: float) -> None:
    """3000 additions round at random: √3000 times an rms rounding of some 2⁻²⁵ of the spread.

    That is 1.6e-6 of the spread.
    """
    assert measure_drift(torch.float32, epsilon) < 4e-6
    assert measure_drift(torch.float32, epsilon) < measure_drift(torch.float16, epsilon) / 1000


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 0.1), (torch.float16, 0.01)])
def test_half_precision_in_place_drifts_by_more_than_a_percent(
    dtype: torch.dtype, least: float
) -> None:
    assert measure_drift(dtype, 1e-3) > least


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_a_master_copy_does_not_drift_at_all(dtype: torch.dtype) -> None:
    weights = MasterWeights(tensors(dtype)[:1], Gaussian())
    before = weights.working.clone()
    for step in range(300):
        key = derive_key(0, "directions", step)
        for point in ((1e-3,), (-1e-3,)):
            weights.perturb_(key, point)
        weights.restore_()
    assert torch.equal(weights.working, before)
    assert torch.equal(weights.master, before.float())


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_in_place_is_refused_with_its_drift_and_both_ways_out(
    dtype: torch.dtype,
) -> None:
    drift = f"{measure_drift(dtype, 1e-3):.1%}"
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=f"precision=inplace with {name} weights") as caught:
        check_precision("inplace", dtype, 1e-3)
    for part in (drift, "perturbation_scale=0.001", "precision=master", "precision=inplace_half"):
        assert part in str(caught.value)


@each_policy
def test_precisions_that_fit_their_dtype_pass(policy: Policy) -> None:
    check_precision(*policy)


def test_half_precision_asked_for_by_name_is_refused_for_fp32() -> None:
    with pytest.raises(ValueError, match="inplace_half is for half precision, got float32 weights"):
        check_precision("inplace_half", torch.float32)


def test_an_unknown_precision_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="one of master, inplace, inplace_half, got 'fp16'"):
        check_precision("fp16", torch.float32)


@pytest.mark.parametrize("scope", ["step", "tensor"])
@pytest.mark.parametrize("failing_call", [1, 2, 5, 8])
@each_policy
def test_a_closure_that_raises_leaves_the_weights_as_they_were(
    policy: Policy, failing_call: int, scope: str
) -> None:
    """Exactly with a master copy, to the rounding of the additions in place."""
    weights = weights_of(policy)
    before = weights.theta.clone()
    calls = 0

    def loss() -> float:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise RuntimeError("out of memory")
        return 1.0

    arguments = {"r_scope": scope, "num_directions": 2}
    estimator = Estimator(RichardsonKernel(4), Bandwidth(), 1e-2, **arguments)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="out of memory"):
        estimator.estimate(weights, loss, 0)
    if policy[0] == "master":
        assert torch.equal(weights.theta, before)
        assert torch.equal(weights.working, before.to(weights.working.dtype))
    else:
        moved = (weights.theta.double() - before.double()).abs().max()
        assert float(moved) < 20 * 0.2 * torch.finfo(weights.working.dtype).eps
    weights.restore_()  # nothing is displaced any more
    again = weights.theta.clone()
    weights.restore_()
    assert torch.equal(weights.theta, again)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p[0] == "master"])
def test_adopting_takes_over_what_was_written_and_keeps_the_rest_of_a_master_copy(
    policy: Policy,
) -> None:
    weights = weights_of(policy)
    weights.move_(KEY, (1e-6,))  # less than half precision resolves
    weights.restore_()
    fine = weights.theta.clone()
    weights.adopt_()
    assert torch.equal(weights.theta, fine)
    with torch.no_grad():
        weights.parameters[0].fill_(0.25)
    weights.adopt_()
    first = weights.sizes[0]
    assert bool((weights.theta[:first] == 0.25).all())
    assert torch.equal(weights.theta[first:], fine[first:])


def test_adopting_in_place_has_nothing_to_do() -> None:
    weights = weights_of(("inplace", torch.float32))
    with torch.no_grad():
        weights.parameters[0].fill_(0.25)
    expected = weights.working.clone()
    weights.adopt_()
    assert torch.equal(weights.theta, expected)
    assert weights.theta is weights.working


def test_parameters_become_views_and_keep_their_values_and_shapes() -> None:
    parameters = tensors(torch.float32)
    values = [p.detach().clone() for p in parameters]
    weights = InPlaceWeights(parameters, Gaussian())
    for parameter, before in zip(parameters, values, strict=True):
        assert torch.equal(parameter, before)
    weights.working.zero_()
    assert all(not p.any() for p in parameters)
    assert weights.sizes == tuple(v.numel() for v in values)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([], "parameters must not be empty"),
        ([torch.zeros(2), torch.zeros(2).half()], "parameters must share one device and dtype"),
        ([torch.zeros(2, dtype=torch.int64)], "parameters must be floating point"),
    ],
)
def test_parameters_that_make_no_flat_vector_are_refused(
    parameters: list[torch.Tensor], message: str
) -> None:
    wrapped = [nn.Parameter(p, requires_grad=False) for p in parameters]
    with pytest.raises(ValueError, match=message):
        MasterWeights(wrapped, Gaussian())


def test_mezo_on_weights_in_place_measures_where_it_should() -> None:
    """Both points of a step, seen from inside the closure."""
    weights = weights_of(("inplace", torch.float32))
    start = weights.theta.double().clone()
    seen: list[torch.Tensor] = []

    def loss() -> float:
        seen.append(weights.working.double().clone())
        return 0.0

    Estimator(ConstantKernel(), Bandwidth(), 1e-2).estimate(weights, loss, 0)
    for point, sign in zip(seen, (1.0, -1.0), strict=True):
        assert torch.allclose(point, start + sign * 1e-2 * direction(), atol=1e-7)
