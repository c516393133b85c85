"""Ways of making one zeroth-order step: MeZO as it is published, and ours in its parts.

Every arm has a model of its own and the same batch, and minimises the same loss.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from shapes import SHAPES, make_model, make_split
from torch import nn
from torch.nn import functional as F

from kerzoo.frozen import frozen_layers_replaced, frozen_outputs
from kerzoo.losses import ForwardGraphs, LabelWordLoss, LastLayer, SequenceRunner
from kerzoo.models import LoadedModel
from kerzoo.models.linear import compute_by_onednn
from kerzoo.noise.engine import PlainNoise
from kerzoo.optimizer import KerZOO
from kerzoo.tasks import LabelWordSplit
from kerzoo.tuning import FullTuning, LoRA, StackedAdapters, Tuning, first_trainable_layer
from kerzoo.weights import Precision

TUNINGS: dict[str, Tuning] = {
    "full": FullTuning(),
    "lora": LoRA(),
    "lora_last6": LoRA(last_layers=6),
}
SCALE = 1e-3
RATE = 1e-7


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, what moves of it, and a batch."""

    model: str
    tuning: str
    batch_size: int
    sequence_length: int
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 2


@dataclasses.dataclass
class Setting:
    """An arm's model and batch, before its step is made.

    Attributes:
        passes_s: Seconds that the last step spent in passes over the weights, where they are
            timed.
    """

    case: Case
    loaded: LoadedModel
    split: LabelWordSplit
    parameters: list[nn.Parameter]
    loss: LabelWordLoss
    passes_s: float = 0.0

    def full_logits_loss(self) -> float:
        """The same loss from the logits of all tokens at all positions."""
        tokens, _ = self.split.sequences.batch(range(len(self.split)), 1)
        tokens = tokens.to(self.case.device)
        size = self.loss.runner.micro_batch or (8 if self.case.device == "cpu" else len(tokens))
        logits = torch.cat(
            [
                self.loaded.model(tokens[i : i + size]).logits[:, -1]
                for i in range(0, len(tokens), size)
            ]
        )
        scores = logits[:, self.split.label_token_ids.to(logits.device)].float()
        return float(F.cross_entropy(scores, self.split.labels.to(logits.device)))

    def label_loss(self) -> float:
        """The loss as trials compute it."""
        return self.loss.loss(range(len(self.split)))

    def whole_layers_loss(self) -> float:
        """The loss as trials compute it, but with the last layer at all positions."""
        self.loss.runner.last_layer = None
        return self.label_loss()

    def losses_at(self, points: Sequence[torch.Tensor]) -> list[float]:
        """The loss at several points, by forward passes that they share."""
        return self.loss.losses(range(len(self.split)), points)


Step = Callable[[], object]


def published_step(setting: Setting, loss: Callable[[], float]) -> Step:
    """Four passes of `torch.normal`, tensor by tensor, each from the step's seed again.

    Written from the description of the algorithm: perturb by +ε, by −2ε, by +ε, and update.
    Source: Malladi et al. 2023, arXiv 2305.17333, algorithm 1.
    """
    steps = iter(range(1 << 30))

    def shift(seed: int, factor: float) -> None:
        torch.manual_seed(seed)
        for parameter in setting.parameters:
            z = torch.normal(
                mean=0,
                std=1,
                size=parameter.size(),
                device=parameter.device,
                dtype=parameter.dtype,
            )
            parameter.data = parameter.data + factor * z

    @torch.inference_mode()
    def step() -> None:
        seed = next(steps)
        shift(seed, SCALE)
        above = loss()
        shift(seed, -2 * SCALE)
        below = loss()
        shift(seed, SCALE)
        shift(seed, -RATE * (above - below) / (2 * SCALE))

    return step


def kerzoo_step(
    setting: Setting,
    loss: Callable[..., object],
    plain_noise: bool = False,
    precision: Precision = "master",
    num_directions: int = 1,
    points_per_forward: int = 1,
) -> Step:
    """A step as trials make it, its passes timed apart.

    Args:
        setting: The arm's.
        loss: Of the batch.
        plain_noise: Noise by operations of torch and not by a compiled kernel.
        precision: Where θ is kept.
        num_directions: n.
        points_per_forward: Of more than one, the loss is that of the arm's points.
    """
    optimizer = KerZOO(
        setting.parameters,
        lr=RATE,
        perturbation_scale=SCALE,
        precision=precision,
        num_directions=num_directions,
        points_per_forward=points_per_forward,
        num_threads=setting.case.threads,
        lazy=True,
    )
    weights = optimizer.weights
    if plain_noise:
        weights.noise = PlainNoise(len(weights), weights.noise.perturbation, weights.noise.device)
    for name in ("perturb_", "write_", "move_"):
        setattr(weights, name, _timed(setting, getattr(weights, name)))

    def step() -> None:
        setting.passes_s = 0.0
        optimizer.step(loss)

    return step


def two_forwards(setting: Setting, loss: Callable[[], float]) -> Step:
    """What no step of two forward passes can be faster than."""

    @torch.inference_mode()
    def step() -> None:
        loss()
        loss()

    return step


def _timed(setting: Setting, function: Callable[..., None]) -> Callable[..., None]:
    """Count a function's duration as a pass, if passes are timed; once, if it calls another."""

    def call(*arguments: object) -> None:
        if not TIME_PASSES[0]:
            return function(*arguments)
        before = setting.passes_s
        wait(setting.case.device)
        start = time.perf_counter()
        function(*arguments)
        wait(setting.case.device)
        setting.passes_s = before + time.perf_counter() - start
        return None

    return call


TIME_PASSES = [False]
"""Whether passes are timed: that makes a GPU wait, so it is done in steps of their own."""


def wait(device: str) -> None:
    """Until the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def opened(
    case: Case, cached: bool = False, graphs: bool = False, plain: bool = False
) -> Iterator[Setting]:
    """A model with its adapters and a batch.

    Args:
        case: What to open.
        cached: Whether the outputs of the layers that stay are computed once.
        graphs: Whether forward passes run as CUDA graphs.
        plain: Whether linear layers stay as torch computes them, and freed memory goes back.
    """
    loaded = make_model(case.model, case.dtype, case.device)
    if case.device == "cpu" and not plain:
        compute_by_onednn(loaded.model)
    split = make_split(case.batch_size, case.sequence_length, SHAPES[case.model][1].vocab_size)
    tuning = TUNINGS[case.tuning]
    with contextlib.ExitStack() as stack:
        attached = stack.enter_context(tuning.attach(loaded.model, seed=0))
        parameters: Sequence[nn.Parameter] = list(attached.parameters.values())
        recorded = ForwardGraphs(parameters) if graphs else None
        adapters = StackedAdapters(attached) if tuning.can_be_stacked else None
        others: dict[str, Any] = {
            "graphs": recorded,
            "adapters": adapters,
            "last_layer": LastLayer(loaded.model),
        }
        runner = SequenceRunner(loaded, split.sequences, **others)
        if cached:
            os.environ["KERZOO_CACHE"] = stack.enter_context(TemporaryDirectory())
            first = first_trainable_layer(loaded.model, tuning.last_layers)
            outputs = frozen_outputs(loaded, split.sequences, first, case.threads)
            entry = stack.enter_context(frozen_layers_replaced(loaded.model, first))
            runner = SequenceRunner(loaded, split.sequences, outputs, entry, **others)
        loss = LabelWordLoss(runner, split, "cross_entropy")
        yield Setting(case, loaded, split, list(parameters), loss)


class Arm(NamedTuple):
    """A way of making a step.

    Attributes:
        make: Makes its step from an opened case.
        noise: regenerated, and fused where a kernel adds it as it makes it.
        baseline: The arm with the two forward passes that it is compared with.
        cached: As for `opened`.
        graphs: As for `opened`.
        plain: As for `opened`.
    """

    make: Callable[[Setting], Step]
    noise: str | None = None
    baseline: str = "two forwards"
    cached: bool = False
    graphs: bool = False
    plain: bool = False


def _step_at_points(setting: Setting, num_directions: int, together: bool) -> Step:
    """A step whose points follow one another, or share a forward pass."""
    return kerzoo_step(
        setting,
        setting.losses_at if together else setting.label_loss,
        num_directions=num_directions,
        points_per_forward=2 * num_directions if together else 1,
    )


CPU_ARMS = {
    "mezo, published style": Arm(
        lambda s: published_step(s, s.full_logits_loss),
        "regenerated",
        "two forwards, published style",
        plain=True,
    ),
    "mezo, label logits": Arm(lambda s: published_step(s, s.label_loss), "regenerated"),
    "kerzoo, all logits": Arm(
        lambda s: kerzoo_step(s, s.full_logits_loss), "fused", "two forwards, all logits"
    ),
    "kerzoo, plain layers": Arm(
        lambda s: kerzoo_step(s, s.label_loss), "fused", "two forwards, plain layers", plain=True
    ),
    "kerzoo, whole last layer": Arm(
        lambda s: kerzoo_step(s, s.whole_layers_loss), "fused", "two forwards, whole last layer"
    ),
    "kerzoo, in place": Arm(lambda s: kerzoo_step(s, s.label_loss, precision="inplace"), "fused"),
    "kerzoo": Arm(lambda s: kerzoo_step(s, s.label_loss), "fused"),
    "two forwards, published style": Arm(lambda s: two_forwards(s, s.full_logits_loss), plain=True),
    "two forwards, all logits": Arm(lambda s: two_forwards(s, s.full_logits_loss)),
    "two forwards, plain layers": Arm(lambda s: two_forwards(s, s.label_loss), plain=True),
    "two forwards, whole last layer": Arm(lambda s: two_forwards(s, s.whole_layers_loss)),
    "two forwards": Arm(lambda s: two_forwards(s, s.label_loss)),
}
CACHE_ARMS = {
    "kerzoo, no cache": Arm(lambda s: kerzoo_step(s, s.label_loss), "fused"),
    "kerzoo": Arm(
        lambda s: kerzoo_step(s, s.label_loss), "fused", "two forwards, cached", cached=True
    ),
    "two forwards": Arm(lambda s: two_forwards(s, s.label_loss)),
    "two forwards, cached": Arm(lambda s: two_forwards(s, s.label_loss), cached=True),
}
POINT_ARMS = {
    f"{name}, together" if together else name: Arm(
        functools.partial(_step_at_points, num_directions=n, together=together), "fused"
    )
    for n, name in ((1, "kerzoo"), (4, "kerzoo, n = 4"))
    for together in (False, True)
} | {"two forwards": CPU_ARMS["two forwards"]}
"""A step's points one after another, and all in one forward pass."""
CUDA_POINT_ARMS = {
    name: Arm(arm.make, "fused", "two forwards, graphs", graphs=True)
    for name, arm in POINT_ARMS.items()
    if name not in ("kerzoo", "two forwards")
}
CUDA_ARMS = {
    "mezo, published style": CPU_ARMS["mezo, published style"],
    "mezo, label logits": CPU_ARMS["mezo, label logits"],
    "kerzoo, noise by torch": Arm(
        lambda s: kerzoo_step(s, s.label_loss, plain_noise=True), "regenerated"
    ),
    "kerzoo, no graphs": CPU_ARMS["kerzoo"],
    "kerzoo": Arm(
        lambda s: kerzoo_step(s, s.label_loss),
        "fused",
        "two forwards, graphs",
        graphs=True,
    ),
    "two forwards, published style": CPU_ARMS["two forwards, published style"],
    "two forwards": CPU_ARMS["two forwards"],
    "two forwards, graphs": Arm(lambda s: two_forwards(s, s.label_loss), graphs=True),
}
