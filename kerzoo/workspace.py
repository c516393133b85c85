"""What the trials of one process share: a loaded model, tokenised data, frozen outputs.

A worker that runs one trial after another loads each of them once. Before a trial starts, a
checksum of all the model's weights is compared with the one taken when it was loaded; a model
that was changed is given its weights again, or loaded again where that does not bring them back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import re
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from kerzoo.allocation import keep_freed_memory, return_free_memory
from kerzoo.evaluation import Metrics, evaluate
from kerzoo.frozen import CachedEntry, FrozenOutputs, frozen_layers_replaced, frozen_outputs
from kerzoo.losses import (
    ForwardGraphs,
    LastLayer,
    SequenceRunner,
    SplitLoss,
    can_be_computed_at_rows,
    check_output_layer,
    open_loss,
)
from kerzoo.models import LoadedModel
from kerzoo.models.folder import read_weights_again
from kerzoo.options import TrialOptions
from kerzoo.progress import Progress, no_progress
from kerzoo.tasks import EncodedSplit, GenerationTask
from kerzoo.tasks.demonstrations import Demonstrations
from kerzoo.tuning import StackedAdapters, first_trainable_layer

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Bench:
    """A trial's model and data, ready to train.

    Attributes:
        parameters: The trainable parameters, in a fixed order.
        losses: On the examples of each split that the method needs.
        notes: What is worth knowing about the data, by what it is about.
    """

    parameters: list[nn.Parameter]
    losses: dict[str, SplitLoss]
    notes: dict[str, str]

    @property
    def train(self) -> SplitLoss:
        """The loss on training examples."""
        return self.losses["train"]

    @property
    def dev(self) -> SplitLoss:
        """The loss on dev examples."""
        return self.losses["dev"]


class _Kept(NamedTuple):
    """A model that was loaded.

    Attributes:
        key: Of what was asked for.
        loaded: The model.
        checksum: Of its weights as they were loaded.
        at_rows: Whether its last layer can be computed at some rows alone.
    """

    key: str
    loaded: LoadedModel
    checksum: int
    at_rows: bool


class Workspace:
    """Opens trials one after another; keeps the newest model, data and first evaluations.

    Args:
        num_threads: Threads for one-time preparation; changes no bit of any result.
        progress: Told about long preparations.
        num_devices: GPUs over which a model is spread.

    Attributes:
        busy_s: Seconds of steps and evaluations that trials made here so far.
        replay_s: Seconds in which they replayed steps that were made before.
    """

    def __init__(
        self, num_threads: int = 1, progress: Progress = no_progress, num_devices: int = 1
    ) -> None:
        self.num_threads = num_threads
        self.progress = progress
        self.num_devices = num_devices
        self.busy_s = self.replay_s = 0.0
        self._model: _Kept | None = None
        self._revisions: dict[str, str] = {}
        self._splits: dict[str, EncodedSplit] = {}
        self._notes: dict[str, dict[str, str]] = {}
        self._first_metrics: dict[str, Metrics] = {}

    @contextlib.contextmanager
    def open(self, options: TrialOptions) -> Iterator[Bench]:
        """Model and data of a trial; within the block its parameters may be changed.

        Raises:
            ValueError: When model, task and tuning do not fit each other.
        """
        with self._open(options, options.method.splits) as bench:
            yield bench

    @contextlib.contextmanager
    def open_test(self, options: TrialOptions) -> Iterator[tuple[list[nn.Parameter], SplitLoss]]:
        """The trial's parameters as they are before any update, and the loss on test examples.

        Raises:
            ValueError: When model, task and tuning do not fit each other.
        """
        with self._open(options, ("test",)) as bench:
            yield bench.parameters, bench.losses["test"]

    @contextlib.contextmanager
    def _open(self, options: TrialOptions, names: Sequence[str]) -> Iterator[Bench]:
        loaded = self.load(options)
        longest = loaded.num_positions
        if longest is not None and options.task.max_length > longest:
            raise ValueError(
                f"task.max_length must not exceed the {longest} positions of {options.model.name}, "
                f"got {options.task.max_length}"
            )
        splits = {name: self._split(options, loaded, name) for name in names}
        tuning = options.method.tuning(options)
        with contextlib.ExitStack() as stack:
            stack.callback(_forget_gradients, loaded.model)
            attached = stack.enter_context(tuning.attach(loaded.model, options.training.seed))
            parameters = list(attached.parameters.values())
            recorded = options.training.device == "cuda" and not loaded.is_spread
            graphs = ForwardGraphs(parameters) if recorded else None
            together = options.method.points_per_forward(options) > 1
            adapters = StackedAdapters(attached) if together else None
            losses = self._losses(stack, options, loaded, splits, graphs, adapters)
            if options.training.device == "cpu":
                keep_freed_memory()
            yield Bench(parameters, losses, self._note(options, loaded))

    def first_metrics(self, options: TrialOptions, bench: Bench) -> Metrics:
        """Dev metrics before any update; evaluated once for trials that start alike."""
        training = options.training
        numerics: list[Any] = [training.seed, training.threads, training.device]
        numerics.append(training.micro_batch)
        tuning, demonstrations = options.method.tuning(options), options.method.demonstrations
        numerics += [type(tuning).__name__, *demonstrations]
        key = _key(options.model, options.task, tuning, numerics)
        if key not in self._first_metrics:
            self._first_metrics[key] = evaluate(bench.dev, options.task.binary)
        return self._first_metrics[key]

    def load(self, options: TrialOptions) -> LoadedModel:
        """The trial's model, untouched: the one at hand if its checksum is right.

        Raises:
            ValueError: If the model cannot be had, is no longer that of earlier trials, or its
                logits are not its output layer's.
        """
        key = _key(options.model, options.training.device)
        if self._model is not None and self._model.key == key and _is_restored(self._model):
            return self._model.loaded
        self._model = None  # before the next one is loaded: there may be no room for two
        self._model = self._load(key, options)
        return self._model.loaded

    def _load(self, key: str, options: TrialOptions) -> _Kept:
        self.progress(f"loading {options.model.name}", 0, 1)
        device = options.training.device
        num_devices = self.num_devices if device == "cuda" else 1
        loaded = options.model.load(device, num_devices=num_devices)
        before = self._revisions.setdefault(key, loaded.revision)
        if loaded.revision != before:
            raise ValueError(
                f"model: the files of {options.model.name} changed while its trials run (they were "
                f"{before} and are {loaded.revision}); start a sweep of another name for the new "
                "ones"
            )
        check_output_layer(loaded.model)
        at_rows = can_be_computed_at_rows(loaded)
        self.progress(f"loading {options.model.name}", 1, 1)
        return _Kept(key, loaded, weights_checksum(loaded.model), at_rows)

    def release_memory(self) -> None:
        """Give back what a failed attempt left."""
        gc.collect()
        return_free_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _split(self, options: TrialOptions, loaded: LoadedModel, name: str) -> EncodedSplit:
        task, demonstrations = options.task, options.method.demonstrations
        key = _key(options.model, task, name, demonstrations)
        if key not in self._splits:
            found = demonstrations_for(options, loaded)
            self._splits[key] = task.encode(loaded.tokenizer, name, found)
        return self._splits[key]

    def _note(self, options: TrialOptions, loaded: LoadedModel) -> dict[str, str]:
        """How many demonstrations were left out, where that is allowed."""
        task, (number, fit) = options.task, options.method.demonstrations
        if not number or fit != "cut":
            return {}
        key = _key(options.model, task, number)
        if key not in self._notes:
            found, examples = demonstrations_for(options, loaded), task.examples("dev")
            assert found is not None
            counts = task.count_left_out(loaded.tokenizer, examples, found)
            self._notes[key] = {
                "demonstrations": f"{sum(counts)} of {number * len(counts)} left out, for want of "
                f"room in {found.window} tokens: {sum(map(bool, counts))} of {len(counts)} dev "
                f"examples have fewer than {number}"
            }
        return self._notes[key]

    def _losses(
        self,
        stack: contextlib.ExitStack,
        options: TrialOptions,
        loaded: LoadedModel,
        splits: dict[str, EncodedSplit],
        graphs: ForwardGraphs | None,
        adapters: StackedAdapters | None,
    ) -> dict[str, SplitLoss]:
        task = options.task
        judged = dict.fromkeys(("dev", "test"), task.dev_objective)
        objectives = {"train": task.objective, **judged}
        tuning = options.method.tuning(options)
        first = first_trainable_layer(loaded.model, tuning.last_layers)
        stored: dict[str, FrozenOutputs] = {}
        entry: CachedEntry | None = None
        if first and not isinstance(task, GenerationTask):  # what is generated has no stored output
            stored = self._frozen_outputs(loaded, splits, first)
            entry = stack.enter_context(frozen_layers_replaced(loaded.model, first))
        assert self._model is not None
        last_layer = LastLayer(loaded.model) if self._model.at_rows else None
        shared = (entry, options.training.micro_batch, graphs, adapters, last_layer)
        runners = {
            n: SequenceRunner(loaded, s.sequences, stored.get(n), *shared)
            for n, s in splits.items()
        }
        return {n: open_loss(task, runners[n], s, objectives[n]) for n, s in splits.items()}

    def _frozen_outputs(
        self, loaded: LoadedModel, splits: dict[str, EncodedSplit], first: int
    ) -> dict[str, FrozenOutputs]:
        return {
            name: frozen_outputs(loaded, split.sequences, first, self.num_threads, self.progress)
            for name, split in splits.items()
        }


def _is_restored(kept: _Kept) -> bool:
    """Whether a model has the weights that it was loaded with, or was given them again."""
    model = kept.loaded.model
    if weights_checksum(model) == kept.checksum:
        return True
    return read_weights_again(model) and weights_checksum(model) == kept.checksum


def demonstrations_for(options: TrialOptions, loaded: LoadedModel) -> Demonstrations | None:
    """The first training examples as demonstrations; None where the method shows none.

    Training examples are in an order that follows from the task's data seed alone.

    Raises:
        ValueError: If there are fewer than the method asks for.
    """
    task, (number, fit) = options.task, options.method.demonstrations
    if number == 0:
        return None
    examples = task.examples("train")[:number]
    if len(examples) < number:
        raise ValueError(
            f"method.num_demonstrations must not exceed the {len(examples)} training examples of "
            f"{task.name}, got {number}"
        )
    positions = getattr(loaded.model.config, "max_position_embeddings", task.max_length)
    window = min(task.max_length, int(positions))
    return Demonstrations(tuple(map(task.verbalise, examples)), window, fit)


def _forget_gradients(model: nn.Module) -> None:
    """What a first-order trial, or one that was interrupted, leaves on the model's own weights."""
    model.requires_grad_(False)
    model.zero_grad()


def weights_checksum(model: nn.Module) -> int:
    """Sum of all parameters' bit patterns, taken as 64-bit words, mod 2⁶⁴; exact."""
    total = 0
    for parameter in model.parameters():
        bits = parameter.detach().contiguous().flatten().view(torch.uint8)
        bits = bits.clone() if bits.storage_offset() % 8 else bits  # words start at whole ones
        whole = len(bits) // 8 * 8
        total += int(bits[:whole].view(torch.int64).sum()) + int(bits[whole:].sum())
    return total % (1 << 64)


def reset_peak_memory(device: str, num_devices: int = 1) -> None:
    """Begin a new peak, so that a trial is not charged with those before it in its process.

    On a CPU only Linux can, and what they freed is given back first; elsewhere the peak remains
    that of the process.
    """
    if device == "cuda":
        for index in range(num_devices):
            torch.cuda.reset_peak_memory_stats(index)
        return
    return_free_memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gib(device: str, num_devices: int = 1) -> float:
    """Peak device memory since the last reset, or peak resident memory on a CPU, in GiB.

    Of several GPUs it is the sum of their peaks.
    """
    if device == "cuda":
        return sum(map(torch.cuda.max_memory_allocated, range(num_devices))) / GIB
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024 / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def synchronise(device: str, num_devices: int = 1) -> None:
    """Wait until the device, or the first GPUs, have done what was asked of them."""
    if device == "cuda":
        for index in range(num_devices):
            torch.cuda.synchronize(index)


class Stopwatch:
    """Wall time of a trial over its attempts, replay apart.

    Args:
        before: Seconds that earlier attempts spent.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._start = time.perf_counter() - before

    @property
    def elapsed(self) -> float:
        """Seconds so far, with those of earlier attempts."""
        return time.perf_counter() - self._start

    def discount(self, seconds: float) -> None:
        """Take time off that does not count."""
        self._start += seconds


def _key(*parts: Any) -> str:
    return json.dumps(
        [dataclasses.asdict(p) if dataclasses.is_dataclass(p) else p for p in parts],  # type: ignore[arg-type]
        sort_keys=True,
        default=str,
    )
