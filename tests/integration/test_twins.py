"""The engine against slow twins in plain torch, over fifty steps on a tiny OPT.

The twins know neither flat buffers nor precision policies: lists of tensors, three passes over
them for MeZO, one formula after the other for KerZOO. All they take from the product is what is
documented as data: the direction of a key, and r and K(r) of a uniform number.

Both sides compute the same loss function with a model of their own. What may differ after fifty
steps is stated as a part of the movement, |fast − slow| / |slow − start|:

    fp32 against a float64 twin   FP32. A forward rounds the loss by about 2⁻²², and a slope, near
                                  1 here, by 2⁻²²/ε = 2e-5; fifty such errors average out, and
                                  steps are small enough that none grows.
    bf16 with a master copy       BF16. The twin keeps an fp32 master too and adds as the engine
                                  does; but where one fp32 addition rounds otherwise (without FMA,
                                  say) a bf16 weight may flip, which a bf16 forward turns into
                                  some 2⁻⁹ of the loss and 2⁻⁹/ε = .2 of a slope. With that at
                                  every step, fifty steps deviate by 5e-2; .2 is allowed.
    bf16 in place                 IN_PLACE. The twin rounds the perturbations as the engine does
                                  and the updates otherwise: by 1.4e-4 rms for weights near .1,
                                  which fifty updates and decays make 1.4e-3 of a movement of
                                  9e-3 a weight: .16, and .3 with what comes through the slopes.

The last test shows how far apart methods are that differ in one option.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny_trials import trial_config
from torch import nn
from torch.nn import functional as F

from kerzoo.batches import BatchSampler
from kerzoo.clipping import (
    Clipping,
    GlobalNormClipping,
    NoClipping,
    ProjectedGradientClipping,
    TensorNormClipping,
)
from kerzoo.estimator import RadiusScope
from kerzoo.kernels import ConstantKernel, Kernel, PolynomialKernel, RichardsonKernel
from kerzoo.models import LoadedModel
from kerzoo.noise import derive_key, uniform_from_key
from kerzoo.optimizer import KerZOO
from kerzoo.options import TrialOptions
from kerzoo.schedules import Bandwidth, LinearSchedule
from kerzoo.tasks import LabelWordSplit
from kerzoo.tuning import FullTuning, LoRA, Tuning
from kerzoo.weights import Precision

STEPS = 50
SEED = 11
EPSILON = 1e-2
BATCH = 4
FP32 = 1e-4
BF16 = 2e-1
IN_PLACE = 3e-1

Directions = Callable[[int, int], list[torch.Tensor]]
"""u of a step and a direction's number, one tensor for each parameter."""
Loss = Callable[[int], float]
"""Of a step's batch, at the parameters' present values."""

FULL = FullTuning()
ADAPTERS = LoRA(rank=2, alpha=4)
RATES: dict[Tuning, float] = {FULL: 3e-4, ADAPTERS: 3e-3}


@dataclasses.dataclass(frozen=True)
class Method:
    """The options of a run that the KerZOO twin knows."""

    kernel: Kernel = dataclasses.field(default_factory=lambda: PolynomialKernel("uniform", 4))
    num_directions: int = 1
    r_scope: RadiusScope = "step"
    clipping: Clipping = dataclasses.field(default_factory=NoClipping)
    bandwidth: Bandwidth = dataclasses.field(default_factory=Bandwidth)


@torch.no_grad()
def mezo(
    parameters: list[torch.Tensor], loss: Loss, directions: Directions, lr: float, decay: float
) -> None:
    """MeZO's own three passes, and its update."""
    for step in range(STEPS):
        z = directions(step, 0)
        losses: list[float] = []
        for shift in (1.0, -2.0, 1.0):
            for parameter, values in zip(parameters, z, strict=True):
                parameter.add_(values.to(parameter.dtype), alpha=shift * EPSILON)
            losses.append(loss(step))
        projected = (losses[0] - losses[1]) / (2 * EPSILON)
        for parameter, values in zip(parameters, z, strict=True):
            gradient = projected * values
            if parameter.dim() >= 2:
                gradient = gradient + decay * parameter
            parameter.sub_((lr * gradient).to(parameter.dtype))


@torch.no_grad()
def kerzoo(
    theta: list[torch.Tensor],
    model: list[nn.Parameter],
    loss: Loss,
    directions: Directions,
    lr: float,
    method: Method,
) -> None:
    """θ ← θ − lr·Σ_i Σ_k pg_ik·K(r_ik)·u_i / n, each point written to the model from θ anew."""
    n, kernel, bandwidth = method.num_directions, method.kernel, method.bandwidth
    for step in range(STEPS):
        width = bandwidth.half_width * bandwidth.schedule.factor_at(step, STEPS)
        moves = []
        for i in range(n):
            u = directions(step, i)
            key = derive_key(SEED, "radii", step, i)
            indices = range(len(theta)) if method.r_scope == "tensor" else [0] * len(theta)
            uniforms = [uniform_from_key(key, index) for index in indices]
            draws = [kernel.draw(x, width, bandwidth.rescale) for x in uniforms]
            weights = [0.0] * len(theta)
            for k in range(kernel.num_nodes):
                losses = []
                for sign in (1.0, -1.0):
                    for p, t, v, nodes in zip(model, theta, u, draws, strict=True):
                        p.copy_(t.add(v, alpha=sign * EPSILON * nodes[k].radius))
                    losses.append(loss(step))
                slope = (losses[0] - losses[1]) / (2 * EPSILON)
                weights = [w + slope * d[k].weight for w, d in zip(weights, draws, strict=True)]
            if isinstance(method.clipping, ProjectedGradientClipping):
                bound = method.clipping.bound
                weights = [min(max(w, -bound), bound) for w in weights]
            moves.append((u, weights))
        shrink = shrinkage(moves, method)
        for u, weights in moves:
            for t, v, w, factor in zip(theta, u, weights, shrink, strict=True):
                t.add_(v, alpha=-lr * factor * w / n)
    for p, t in zip(model, theta, strict=True):
        p.copy_(t)


def shrinkage(moves: list[tuple[list[torch.Tensor], list[float]]], method: Method) -> list[float]:
    """What each tensor of (1/n) Σ_i w_i·u_i is multiplied by, where its norm is clipped."""
    gradient = [torch.zeros_like(t, dtype=torch.float64) for t in moves[0][0]]
    for u, weights in moves:
        for total, v, w in zip(gradient, u, weights, strict=True):
            total += v.double() * w / len(moves)
    norms = [float(total.norm()) for total in gradient]
    if isinstance(method.clipping, GlobalNormClipping):
        norms = [sum(norm**2 for norm in norms) ** 0.5] * len(norms)
    if isinstance(method.clipping, TensorNormClipping | GlobalNormClipping):
        return [min(1.0, method.clipping.bound / norm) for norm in norms]
    return [1.0] * len(norms)


class Pair:
    """Two equal models with what is trained in them, and the same batches for both."""

    def __init__(self, fast: nn.Module, names: list[str], split: LabelWordSplit) -> None:
        self.fast = fast
        self.slow = copy.deepcopy(fast)
        self.names = names
        self.split = split
        self.start = [p.detach().clone() for p in self.parameters(self.fast)]

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """In the order of the tuning."""
        named = dict(model.named_parameters())
        return [named[name] for name in self.names]

    @torch.no_grad()
    def loss(self, model: nn.Module, step: int) -> float:
        """Cross-entropy over the label words in float64, of a padded batch's full logits."""
        indices = BatchSampler(len(self.split), BATCH, SEED).indices(step)
        tokens, lengths = self.split.sequences.batch(indices, 1)
        labels = self.split.labels[indices]
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        logits = model(input_ids=tokens, attention_mask=mask).logits
        scores = logits[torch.arange(BATCH), lengths - 1][:, self.split.label_token_ids]
        return float(F.cross_entropy(scores.double(), labels))

    def directions(self, optimizer: KerZOO) -> Directions:
        """Materialised, cut into the shapes of the tensors."""
        shapes = [p.shape for p in self.parameters(self.slow)]

        def cut(step: int, i: int) -> list[torch.Tensor]:
            u = optimizer.weights.noise.materialise(derive_key(SEED, "directions", step, i))
            pieces = torch.split(u, [s.numel() for s in shapes])
            return [piece.view(s) for piece, s in zip(pieces, shapes, strict=True)]

        return cut

    def train(
        self, method: Method, lr: float, precision: Precision = "master", decay: float = 0.0
    ) -> KerZOO:
        """The engine's fifty steps."""
        optimizer = KerZOO(
            self.parameters(self.fast),
            lr,
            method.kernel,
            EPSILON,
            method.bandwidth,
            num_directions=method.num_directions,
            num_steps=STEPS,
            seed=SEED,
            r_scope=method.r_scope,
            clipping=method.clipping,
            weight_decay=decay,
            precision=precision,
        )
        for _ in range(STEPS):
            optimizer.step(lambda: self.loss(self.fast, optimizer.last_step))
        return optimizer

    def train_mezo_twin(self, optimizer: KerZOO, lr: float, decay: float) -> list[torch.Tensor]:
        """Of fp32 weights in float64, of bf16 weights in bf16."""
        if self.start[0].dtype == torch.float32:
            self.slow.double()
        theta: list[torch.Tensor] = [p.data for p in self.parameters(self.slow)]
        mezo(theta, lambda step: self.loss(self.slow, step), self.directions(optimizer), lr, decay)
        return theta

    def train_kerzoo_twin(self, optimizer: KerZOO, lr: float, method: Method) -> list[torch.Tensor]:
        """θ of fp32 weights in float64, of bf16 weights in fp32."""
        dtype = torch.float32
        if self.start[0].dtype == torch.float32:
            self.slow.double()
            dtype = torch.float64
        model = self.parameters(self.slow)
        theta = [p.detach().to(dtype, copy=True) for p in model]
        run = self.directions(optimizer)
        kerzoo(theta, model, lambda step: self.loss(self.slow, step), run, lr, method)
        return theta

    def deviation(self, optimizer: KerZOO, twin: list[torch.Tensor]) -> float:
        """|fast − slow| / |slow − start|, once it is clear that the weights moved visibly."""
        start, slow = flat(self.start), flat(twin)
        moved = float((slow - start).norm())
        assert moved > 0.02 * float(start.norm())
        return float((optimizer.weights.theta.double() - slow).norm()) / moved


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.detach().flatten().double() for t in tensors])


@contextlib.contextmanager
def pair_of(
    loaded: LoadedModel,
    split: LabelWordSplit,
    tuning: Tuning,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Pair]:
    loaded.model.to(dtype)  # type: ignore[arg-type]
    with tuning.attach(loaded.model, seed=0) as attached:
        names = {id(p): name for name, p in attached.model.named_parameters()}
        yield Pair(attached.model, [names[id(p)] for p in attached.parameters.values()], split)


UNRESCALED = Bandwidth(0.9, LinearSchedule(floor=0.1), rescale=False)


def methods(unit: float) -> dict[str, Method]:
    """Clipping bounds are in units of 1 for adapters, and of 8 for tensors 64 times as large."""
    tensors, whole = TensorNormClipping(20.0 * unit), GlobalNormClipping(40.0 * unit)
    return {
        "plain": Method(),
        "three directions": Method(num_directions=3),
        "r per tensor": Method(r_scope="tensor"),
        "clipped slopes": Method(clipping=ProjectedGradientClipping(2.0)),
        "clipped tensors": Method(clipping=tensors),
        "clipped as a whole": Method(num_directions=2, clipping=whole),
        "shrinking and unrescaled": Method(bandwidth=UNRESCALED),
        "shrinking and rescaled": Method(bandwidth=dataclasses.replace(UNRESCALED, rescale=True)),
        "richardson": Method(RichardsonKernel(4)),
        "as released": Method(
            num_directions=3, r_scope="tensor", clipping=tensors, bandwidth=UNRESCALED
        ),
    }


METHODS: dict[Tuning, dict[str, Method]] = {FULL: methods(8.0), ADAPTERS: methods(1.0)}

each_method = pytest.mark.parametrize("name", METHODS[FULL])
each_tuning = pytest.mark.parametrize("tuning", [FULL, ADAPTERS], ids=["full", "lora"])


@pytest.fixture
def loaded(sst2: Path) -> LoadedModel:
    """opt-tiny with half its layers, made afresh."""
    config = trial_config(sst2)
    config["model"] |= {"num_layers": 2}
    return TrialOptions.from_config(config).model.load("cpu")


@pytest.mark.parametrize("precision", ["master", "inplace"])
@each_tuning
def test_mezo_is_its_twin(
    loaded: LoadedModel, split: LabelWordSplit, tuning: Tuning, precision: Precision
) -> None:
    with pair_of(loaded, split, tuning) as pair:
        lr, method = RATES[tuning], Method(ConstantKernel())
        optimizer = pair.train(method, lr, precision, decay=0.5)
        twin = pair.train_mezo_twin(optimizer, lr, decay=0.5)
        assert pair.deviation(optimizer, twin) < FP32


@each_method
@each_tuning
def test_kerzoo_is_its_twin(
    loaded: LoadedModel, split: LabelWordSplit, tuning: Tuning, name: str
) -> None:
    method = METHODS[tuning][name]
    with pair_of(loaded, split, tuning) as pair:
        optimizer = pair.train(method, RATES[tuning])
        twin = pair.train_kerzoo_twin(optimizer, RATES[tuning], method)
        assert pair.deviation(optimizer, twin) < FP32


@pytest.mark.parametrize("name", ["plain", "as released"])
@each_tuning
def test_kerzoo_in_place_is_its_twin(
    loaded: LoadedModel, split: LabelWordSplit, tuning: Tuning, name: str
) -> None:
    with pair_of(loaded, split, tuning) as pair:
        optimizer = pair.train(METHODS[tuning][name], RATES[tuning], "inplace")
        twin = pair.train_kerzoo_twin(optimizer, RATES[tuning], METHODS[tuning][name])
        assert pair.deviation(optimizer, twin) < FP32


@pytest.mark.parametrize("name", ["plain", "as released"])
def test_kerzoo_in_bf16_with_a_master_copy_is_its_twin(
    loaded: LoadedModel, split: LabelWordSplit, name: str
) -> None:
    with pair_of(loaded, split, FULL, torch.bfloat16) as pair:
        optimizer = pair.train(METHODS[FULL][name], RATES[FULL])
        twin = pair.train_kerzoo_twin(optimizer, RATES[FULL], METHODS[FULL][name])
        assert optimizer.weights.theta.dtype == torch.float32
        assert pair.deviation(optimizer, twin) < BF16


def test_mezo_in_bf16_in_place_is_its_twin(loaded: LoadedModel, split: LabelWordSplit) -> None:
    with pair_of(loaded, split, FULL, torch.bfloat16) as pair:
        optimizer = pair.train(Method(ConstantKernel()), RATES[FULL], "inplace_half", decay=0.5)
        twin = pair.train_mezo_twin(optimizer, RATES[FULL], decay=0.5)
        assert optimizer.weights.theta.dtype == torch.bfloat16
        assert pair.deviation(optimizer, twin) < IN_PLACE


@pytest.mark.parametrize("name", [name for name in METHODS[ADAPTERS] if name != "plain"])
def test_a_twin_of_the_plain_method_is_far_from_every_option(
    loaded: LoadedModel, split: LabelWordSplit, name: str
) -> None:
    with pair_of(loaded, split, ADAPTERS) as pair:
        optimizer = pair.train(METHODS[ADAPTERS][name], RATES[ADAPTERS])
        twin = pair.train_kerzoo_twin(optimizer, RATES[ADAPTERS], METHODS[ADAPTERS]["plain"])
        assert pair.deviation(optimizer, twin) > 100 * FP32
