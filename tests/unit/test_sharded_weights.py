"""Weights in several shards: bit for bit what one flat vector is, and no operation across devices.

Shards are forced on the CPU by cutting the parameters as if the device changed there.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from kerzoo.clipping import GlobalNormClipping, NoClipping, TensorNormClipping
from kerzoo.kernels import PolynomialKernel
from kerzoo.momentum import CoupledCopy, HeavyBall, Momentum, NoMomentum
from kerzoo.noise import (
    CHUNK_ELEMENTS,
    Gaussian,
    Perturbation,
    Rademacher,
    Sphere,
    compiled,
    derive_key,
)
from kerzoo.noise.compiled import CompiledNoise
from kerzoo.noise.engine import NoiseEngine, PlainNoise
from kerzoo.optimizer import KerZOO
from kerzoo.weights import (
    Factors,
    FlatWeights,
    MasterWeights,
    Precision,
    ShardedWeights,
    Weights,
    flatten,
)

RUNS = "kerzoo.weights.precision.runs_by_device"
CHUNK = 64
"""So small that a few hundred weights have chunks, and shards that end within them."""
LAWS: list[Perturbation] = [Gaussian(), Sphere(), Rademacher()]
KEY, OTHER = derive_key(0, "directions"), derive_key(0, "directions", 1)
EXACT: list[tuple[Precision, torch.dtype]] = [
    ("master", torch.float32),
    ("master", torch.bfloat16),
    ("master", torch.float16),
    ("inplace", torch.float32),
    ("inplace_half", torch.bfloat16),
    ("inplace_half", torch.float16),
]
MOMENTA: dict[str, Momentum] = {
    "none": NoMomentum(),
    "buffer": HeavyBall(0.8),
    "replay": HeavyBall(0.8, "replay"),
    "coupled": CoupledCopy(),
}


@contextmanager
def sharded_before(*indices: int) -> Iterator[None]:
    """Within the block, a new shard begins at each of these tensors."""

    def cut(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
        ends = [0, *sorted(set(indices)), len(parameters)]
        runs = [list(parameters[a:b]) for a, b in itertools.pairwise(ends)]
        return [run for run in runs if run]

    with mock.patch(RUNS, cut):
        yield


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", CHUNK)
    monkeypatch.setattr(compiled, "PIECE", CHUNK)


def parameters_of(sizes: Sequence[int], dtype: torch.dtype) -> list[nn.Parameter]:
    """The same at every call; every second tensor has two dimensions."""
    generator = torch.Generator().manual_seed(0)
    drawn = [0.03 * torch.randn(size, generator=generator) for size in sizes]
    shaped = [v[:, None] if i % 2 else v for i, v in enumerate(drawn)]
    return [nn.Parameter(values.to(dtype)) for values in shaped]


def bits(weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model computes with, and θ as kept; neither changes."""
    working = weights.join([shard.working for shard in weights.shards])
    kept = [getattr(shard, "master", shard.working) for shard in weights.shards]
    return working, weights.join(kept)


def assert_same(one: Weights, other: Weights) -> None:
    for a, b in zip(bits(one), bits(other), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 3 * CHUNK), min_size=2, max_size=6).filter(any),
    cuts=st.sets(st.integers(1, 5), min_size=1),
    law=st.sampled_from(LAWS),
    policy=st.sampled_from(EXACT),
    threads=st.sampled_from([1, 2]),
)
def test_shards_have_the_bits_of_one_flat_vector_after_everything_that_is_done_to_it(
    sizes: list[int],
    cuts: set[int],
    law: Perturbation,
    policy: tuple[Precision, torch.dtype],
    threads: int,
) -> None:
    precision, dtype = policy
    flat = flatten(parameters_of(sizes, dtype), law, precision, threads)
    with sharded_before(*(c for c in cuts if c < len(sizes)), 1):
        shards = flatten(parameters_of(sizes, dtype), law, precision, threads)
    assert isinstance(shards, ShardedWeights)
    assert shards.sizes == flat.sizes
    per_tensor: Factors = tuple(0.5 - 0.25 * i for i in range(len(sizes)))
    for factors in ((0.75,), per_tensor):
        for key in (KEY, OTHER):
            for weights in (flat, shards):
                weights.perturb_(key, factors)
            assert_same(flat, shards)
        for weights in (flat, shards):
            weights.move_(KEY, factors)
            weights.restore_()
        assert_same(flat, shards)
        for weights in (flat, shards):
            weights.retrace_(OTHER, [factors, (1e-3,)])
            weights.restore_()
        assert_same(flat, shards)
        norms = [w.squared_norms([KEY, OTHER], [factors, (2.0,)]) for w in (flat, shards)]
        assert norms[0] == norms[1]
    for weights in (flat, shards):
        with torch.no_grad():
            weights.parameters[-1].fill_(0.25)
        weights.adopt_()
    assert_same(flat, shards)
    found = torch.cat([p.detach().flatten() for p in shards.parameters])
    assert torch.equal(found, bits(flat)[0])


class Net(nn.Module):
    """Tensors whose ends lie inside chunks, and a loss in float64."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.tensors = nn.ParameterList(parameters_of((70, 130, 5, 61, 100), dtype))

    def loss(self) -> float:
        return sum(float((t.detach().double() - 0.1).pow(2).sum()) for t in self.tensors)


def optimizer_of(net: Net, momentum: Momentum, **changes: Any) -> KerZOO:
    options: dict[str, Any] = {
        "lr": 1e-3,
        "kernel": PolynomialKernel("uniform", 4),
        "perturbation_scale": 1e-2,
        "num_directions": 2,
        "seed": 3,
        "momentum": momentum,
        "weight_decay": 0.0 if isinstance(momentum, CoupledCopy) else 0.1,
    }
    return KerZOO(net.parameters(), **(options | changes))


TRIALS: list[dict[str, Any]] = [
    {"clipping": TensorNormClipping(1.0), "r_scope": "tensor"},
    {"clipping": GlobalNormClipping(2.0), "perturbation": Sphere(), "lazy": True},
    {"clipping": NoClipping(), "precision": "inplace", "lazy": True},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", TRIALS)
@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA.keys())
def test_a_run_in_shards_is_that_of_one_vector_and_so_is_its_replay(
    momentum: Momentum, options: dict[str, Any], dtype: torch.dtype
) -> None:
    if dtype != torch.float32:
        options = {**options, "precision": "master"}
    nets = [Net(dtype) for _ in range(3)]
    plain = optimizer_of(nets[0], momentum, **options)
    with sharded_before(1, 3):
        cut, replayed = (optimizer_of(net, momentum, **options) for net in nets[1:])
    for _ in range(4):
        estimates = [o.estimate(net.loss) for o, net in zip((plain, cut), nets, strict=False)]
        assert estimates[0] == estimates[1]
        plain.apply(estimates[0])
        cut.apply(estimates[1])
        replayed.replay(estimates[0].losses)
    for optimizer in (plain, cut, replayed):
        optimizer.settle()
    assert_same(plain.weights, cut.weights)
    assert_same(plain.weights, replayed.weights)
    assert not torch.equal(nets[0].tensors[0], Net(dtype).tensors[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cuts", [((1, 3), ()), ((), (2,)), ((1,), (3, 4))])
@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA.keys())
def test_a_run_resumes_on_another_number_of_shards_bit_for_bit(
    momentum: Momentum, cuts: tuple[tuple[int, ...], tuple[int, ...]], dtype: torch.dtype
) -> None:
    through, begun, ended = Net(dtype), Net(dtype), Net(dtype)
    optimizer = optimizer_of(through, momentum)
    with sharded_before(*cuts[0]):
        first = optimizer_of(begun, momentum)
    with sharded_before(*cuts[1]):
        second = optimizer_of(ended, momentum)
    for _ in range(3):
        optimizer.step(through.loss)
        first.step(begun.loss)
    file = io.BytesIO()
    torch.save((begun.state_dict(), first.state_dict()), file)
    file.seek(0)
    model_state, optimizer_state = torch.load(file, weights_only=True)
    ended.load_state_dict(model_state)
    second.load_state_dict(optimizer_state)
    for _ in range(3):
        optimizer.step(through.loss)
        second.step(ended.loss)
    assert_same(optimizer.weights, second.weights)


def test_a_sphere_measures_each_direction_once_for_all_shards() -> None:
    with sharded_before(1, 2):
        weights = flatten(parameters_of((70, 90, 40), torch.float32), Sphere())
    measured = mock.Mock(wraps=CompiledNoise.length_of)
    with mock.patch.object(CompiledNoise, "length_of", lambda self, key: measured(self, key)):
        weights.perturb_(KEY, (1.0,))
        weights.move_(KEY, (1.0,))
    assert measured.call_count == 1
    u = torch.cat([shard.noise.materialise(KEY) for shard in weights.shards])
    assert float(u.double().norm()) == pytest.approx(200**0.5)


def test_a_closure_that_raises_leaves_every_shard_as_it_was() -> None:
    net = Net()
    with sharded_before(1, 3):
        optimizer = optimizer_of(net, NoMomentum())
    before = bits(optimizer.weights)
    losses = iter([1.0, 2.0])
    with pytest.raises(StopIteration):
        optimizer.estimate(lambda: next(losses))
    for a, b in zip(bits(optimizer.weights), before, strict=True):
        assert torch.equal(a, b)


def test_a_tensor_that_was_moved_away_from_its_shard_is_noticed() -> None:
    with sharded_before(2):
        weights = flatten(parameters_of((5, 6, 7), torch.float32), Gaussian())
    weights.parameters[2].data = weights.parameters[2].detach().clone()
    with pytest.raises(ValueError, match="parameters must stay where they are"):
        weights.adopt_()


def test_shards_of_several_dtypes_are_refused() -> None:
    mixed = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2).half())]
    with sharded_before(1), pytest.raises(ValueError, match="parameters must share one dtype"):
        flatten(mixed, Gaussian())


# Devices that are not there: torch's fake tensors have a device and no values, and an operation
# on tensors of two devices raises as it would on real ones. "lazy" is a type of device that torch
# lets a machine without it pretend to have.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", ["master", "inplace_half"])
@pytest.mark.parametrize("momentum", MOMENTA.values(), ids=MOMENTA.keys())
def test_no_operation_of_a_step_mixes_devices(
    momentum: Momentum, precision: Precision, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings and the last norm on one device, layers on two: four shards."""
    if dtype == torch.float32 and precision == "inplace_half":
        precision = "inplace"
    monkeypatch.setattr("kerzoo.weights.flat.noise_engine", _noise_of_torch)
    monkeypatch.setattr(FlatWeights, "check_attached", lambda self: None)  # looks at addresses
    monkeypatch.setattr(NoiseEngine, "sum_of_squares", lambda self, values: 1.0)
    places = ["lazy:0", "lazy:0", "lazy:1", "lazy:1", "lazy:0", "lazy:1"]
    with FakeTensorMode():
        parameters = [
            nn.Parameter(torch.zeros(40, 3, dtype=dtype, device=place)) for place in places
        ]
        optimizer = KerZOO(
            parameters,
            lr=1e-3,
            perturbation=Sphere(),
            clipping=TensorNormClipping(1.0),
            momentum=momentum,
            precision=precision,
            weight_decay=0.0 if isinstance(momentum, CoupledCopy) else 0.1,
            r_scope="tensor",
        )
        assert [str(s.working.device) for s in optimizer.weights.shards] == [
            "lazy:0",
            "lazy:1",
            "lazy:0",
            "lazy:1",
        ]
        losses = iter([1.0, 0.5, 0.25, 2.0])
        for _ in range(2):
            optimizer.step(lambda: next(losses))
        optimizer.load_state_dict(optimizer.state_dict())
        assert [str(p.device) for p in parameters] == places


def test_an_operation_that_mixes_pretended_devices_is_found() -> None:
    with (
        FakeTensorMode(),
        pytest.raises(RuntimeError, match="at least two devices, lazy:0 and lazy:1"),
    ):
        torch.zeros(2, device="lazy:0") + torch.zeros(2, device="lazy:1")


def _noise_of_torch(
    total: int,
    law: Perturbation,
    device: torch.device,
    num_threads: int,
    part: slice,
) -> PlainNoise:
    """In place of Triton's kernels, which run on real GPUs alone."""
    return PlainNoise(total, law, device, part)


def test_one_device_makes_one_flat_vector() -> None:
    assert type(flatten(parameters_of((5, 6), torch.float32), Gaussian())) is MasterWeights
