"""First order: ordinary fine-tuning by backpropagation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from kerzoo.methods.base import BatchLearner, Method
from kerzoo.progress import Progress
from kerzoo.records import TrialFolder, TrialWriter, choose_checkpoint
from kerzoo.trajectory import StepRecord
from kerzoo.tuning import (
    PrefixTuning,
    decoder_layers,
    first_trainable_layer,
    forward_replaced,
)

if TYPE_CHECKING:
    from kerzoo.options import TrialOptions
    from kerzoo.workspace import Bench

OPTIMIZERS = ("adamw", "sgd")
STATE = "optimizer.pt"


@dataclasses.dataclass(frozen=True)
class FirstOrder(Method):
    """AdamW or SGD on the gradient of the loss that zeroth order measures.

    A step is one forward pass and one backward pass, which counts as two. The model stays in
    evaluation mode, as in every method, and batches are those of a zeroth-order trial with the
    same seed. Half-precision weights are updated through fp32 masters. `training.learning_rate`
    and `learning_rate_schedule` apply; clipping, momentum and weight decay of zeroth order do not.

    At each rung the trainable weights (`weights-STEP.safetensors`) and the optimizer's state
    (`optimizer.pt`) are written to the trial's folder; a trial resumes from the newest, and makes
    the steps behind it again. Two files of weights are kept: the newest, and those of lowest dev
    loss among the ones before it.

    Args:
        optimizer: "adamw" or "sgd".
        weight_decay: ≥ 0, decoupled from the gradient with AdamW; skips tensors with fewer than
            two dimensions, as in MeZO's code.
        betas: β₁ and β₂ of AdamW.
        momentum: Of SGD, in [0, 1).
        gradient_checkpointing: Whether layers are computed again in the backward pass, which
            keeps one layer's activations in memory instead of all; not counted as passes.

    Raises:
        ValueError: For a value outside its range.

    Source: Loshchilov and Hutter 2019, arXiv 1711.05101.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, ...] = (0.9, 0.999)
    momentum: float = 0.0
    gradient_checkpointing: bool = False

    parts = ("learning_rate_schedule", "tuning")
    numbers = frozenset({"learning_rate", "forward_passes", "batch_size", "seed"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}"
            )
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be a number ≥ 0, got {self.weight_decay!r}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {list(self.betas)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum!r}")
        if self.momentum and self.optimizer == "adamw":
            raise ValueError(f"momentum must be 0 with adamw (see betas), got {self.momentum!r}")

    def check(self, options: TrialOptions) -> None:
        """What a gradient needs: a loss that has one, more range than fp16, a prefix met once."""
        if options.task.objective != options.task.dev_objective:
            raise ValueError(
                f"task.objective={options.task.objective} has no gradient, which "
                f"{self.optimizer} needs; set task.objective={options.task.dev_objective}"
            )
        if self.gradient_checkpointing and isinstance(options.tuning, PrefixTuning):
            raise ValueError(
                "method.gradient_checkpointing must be false with tuning=prefix: a layer that is "
                "run again would see its prefix twice"
            )
        if options.model.dtype == "float16":
            raise ValueError(
                "model.dtype must be float32 or bfloat16 with a first-order method: small "
                "gradients vanish in float16"
            )

    def forward_passes_per_step(self, options: TrialOptions) -> int:
        """One forward, and a backward that counts as two."""
        return 3

    def added_bytes(self, options: TrialOptions, num_trainable: int) -> int:
        """The gradient, the optimizer's state, and weights that the model itself has not."""
        state = 2 if self.optimizer == "adamw" else int(self.momentum > 0)
        whole = options.tuning.changes_base_model and options.model.dtype == "float32"
        return 4 * num_trainable * (1 + state + (not whole))

    def num_stored_layers(self, options: TrialOptions) -> int:
        """All that the gradient passes through, or one."""
        layers = options.tuning.last_layers or options.model.num_layers
        return 1 if self.gradient_checkpointing else min(layers, options.model.num_layers)

    def start(self, options: TrialOptions, bench: Bench, folder: TrialFolder) -> FirstOrderLearner:
        """With a fresh optimizer."""
        return FirstOrderLearner(self, options, bench, folder)

    def rebuild(
        self,
        options: TrialOptions,
        parameters: Sequence[nn.Parameter],
        folder: TrialFolder,
        steps: Sequence[StepRecord],
        progress: Progress,
    ) -> None:
        """From the weights that were kept at the step's rung."""
        if steps:
            path = weights_path(folder, len(steps))
            if not path.exists():
                raise ValueError(
                    f"{path}: is missing; of a first-order trial only the weights of lowest dev "
                    "loss and the newest are kept"
                )
            _load(path, parameters)


class FirstOrderLearner(BatchLearner):
    """The contract with a torch optimizer, and checkpoints in place of replay."""

    def __init__(
        self, method: FirstOrder, options: TrialOptions, bench: Bench, folder: TrialFolder
    ) -> None:
        super().__init__(options, bench)
        self.method = method
        self.folder = folder
        self.restart_at = 0
        for parameter in bench.parameters:
            parameter.requires_grad_(True)
        self.masters = [
            p if p.dtype == torch.float32 else nn.Parameter(p.detach().float())
            for p in bench.parameters
        ]
        self.optimizer = self._make_optimizer()

    def advance(self, step: int) -> tuple[float, ...] | None:
        """Forward, backward, update."""
        loss = self._backward(step)
        if not math.isfinite(loss):
            self._drop_gradients()
            return None
        rate = self.options.training.learning_rate * self.learning_rate_factor_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for parameter, master in zip(self.bench.parameters, self.masters, strict=True):
            if master is not parameter and parameter.grad is not None:
                master.grad = parameter.grad.float()
        self.optimizer.step()
        self._write_back()
        self._drop_gradients()
        return (loss,)

    def replay(self, record: StepRecord) -> None:
        """Nothing, until the step whose weights were kept: then it takes them over."""
        if record.step + 1 == self.restart_at:
            _load(weights_path(self.folder, self.restart_at), self.masters)
            self.optimizer.load_state_dict(_read_state(self.folder)["optimizer"])
            self._write_back()

    def resume(self, logged: Sequence[StepRecord], evaluated: Container[int]) -> int:
        """Up to the newest checkpoint, or none if a row before it is missing."""
        if (self.folder.path / STATE).exists():
            state = _read_state(self.folder)
            rungs = map(self.options.steps_at, [0, *self.options.rungs])
            rows_are_there = all(step in evaluated for step in rungs if step < state["step"])
            if state["step"] <= len(logged) and rows_are_there:
                self.restart_at = state["step"]
        return self.restart_at

    def save(self, step: int, writer: TrialWriter) -> None:
        """Weights, then the state, which names the step and thereby makes them valid."""
        if step <= self.restart_at:  # kept already, or the untouched model
            return
        tensors = {str(i): p.detach().contiguous() for i, p in enumerate(self.masters)}
        writer.replace_file(weights_path(self.folder, step), lambda p: save_file(tensors, p))
        state = {"step": step, "optimizer": self.optimizer.state_dict()}
        writer.replace_file(self.folder.path / STATE, lambda path: torch.save(state, path))
        self._drop_weights_before(step, writer)

    def _drop_weights_before(self, step: int, writer: TrialWriter) -> None:
        """Of the weights before a step keep those that dev would choose."""
        kept = {_step_of(path): path for path in self.folder.path.glob("weights-*.safetensors")}
        rows = [row for row in self.folder.rows() if row["step"] in kept and not row["diverged"]]
        best = choose_checkpoint(rows)["step"] if rows else step
        for earlier, path in kept.items():
            if earlier < step and earlier != best:
                writer.remove_file(path)

    def measure(self, step: int) -> int:
        """Forward and backward."""
        self._backward(step)
        self._drop_gradients()
        return 3

    def learning_rate_factor_at(self, step: int) -> float:
        """f(t) of the schedule."""
        return self.options.learning_rate_schedule.factor_at(step, self.options.num_steps)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        method, rate = self.method, self.options.training.learning_rate
        decayed = [p for p in self.masters if p.dim() >= 2]
        others = [p for p in self.masters if p.dim() < 2]
        groups: list[dict[str, Any]] = [
            {"params": chosen, "weight_decay": decay}
            for chosen, decay in ((decayed, method.weight_decay), (others, 0.0))
            if chosen
        ]
        if method.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=method.momentum, foreach=False)
        first, second = method.betas
        return torch.optim.AdamW(groups, lr=rate, betas=(first, second), foreach=False)

    def _backward(self, step: int) -> float:
        model = self.bench.train.runner.loaded.model
        first = first_trainable_layer(model, self.options.tuning.last_layers)
        layers = decoder_layers(model)[first:] if self.method.gradient_checkpointing else []
        with torch.enable_grad(), _recomputed(layers), _deterministic(model.device.type):
            loss = self.bench.train.tensor_loss(self.indices(step))
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _drop_gradients(self) -> None:
        for parameter in (*self.bench.parameters, *self.masters):
            parameter.grad = None

    @torch.no_grad()
    def _write_back(self) -> None:
        for parameter, master in zip(self.bench.parameters, self.masters, strict=True):
            if master is not parameter:
                parameter.copy_(master)


def weights_path(folder: TrialFolder, step: int) -> Path:
    """Where the trainable weights after some steps lie."""
    return folder.path / f"weights-{step:06d}.safetensors"


def _step_of(path: Path) -> int:
    return int(path.name.removesuffix(".safetensors").rpartition("-")[2])


def _read_state(folder: TrialFolder) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder.path / STATE, map_location="cpu", weights_only=True)
    return state


@torch.no_grad()
def _load(path: Path, parameters: Sequence[nn.Parameter]) -> None:
    tensors = load_file(path)
    for index, parameter in enumerate(parameters):
        parameter.copy_(tensors[str(index)])


@contextlib.contextmanager
def _recomputed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Within the block, layers keep no activations and are run again in the backward pass."""
    with contextlib.ExitStack() as stack:
        for layer in layers:
            again = functools.partial(checkpoint, layer.forward, use_reentrant=False)
            stack.enter_context(forward_replaced(layer, again))
        yield


@contextlib.contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Within the block, a GPU sums gradients in a fixed order where it can."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
