"""Which parameters move: all of them, or adapters, in every layer or in the last k.

With the last k layers the outputs of the layers below are the same throughout a run, so they are
computed once per example and cached (`kerzoo.frozen`).
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kerzoo.noise import derive_key

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class Attached:
    """A model with what a trial trains.

    Attributes:
        parameters: The trainable parameters by name, in a fixed order.
        model: What `save_pretrained` writes: the whole model, or its adapters alone.
    """

    parameters: dict[str, nn.Parameter]
    model: PreTrainedModel | PeftModel


class Tuning(abc.ABC):
    """The contract: attach to a model for the length of a trial, and name what is trainable.

    Attributes:
        last_layers: k, or None for all layers.
    """

    last_layers: int | None

    def __post_init__(self) -> None:
        if self.last_layers is not None and self.last_layers < 1:
            raise ValueError(f"last_layers must be at least 1 or null, got {self.last_layers}")

    @abc.abstractmethod
    def attach(
        self, model: PreTrainedModel, seed: int
    ) -> contextlib.AbstractContextManager[Attached]:
        """Make the trainable parameters trainable, initialised from the seed.

        On leaving the context the model has its own structure again. Weights of the base model
        that were trained stay changed: load the model afresh, or check its fingerprint.

        Args:
            model: A freshly loaded (or verified) model; nothing in it requires a gradient.
            seed: The run's seed, for initial values of adapters.

        Returns:
            A context that gives the model and its trainable parameters.

        Raises:
            ValueError: When the mode does not fit the model, or would change the input of layers
                whose outputs are cached.
        """

    @abc.abstractmethod
    def count_parameters(self, num_parameters: int, num_layers: int, hidden_size: int) -> int:
        """Estimated number of trainable parameters, from the model's sizes."""

    @property
    @abc.abstractmethod
    def changes_base_model(self) -> bool:
        """Whether the base model's own weights move."""


@dataclasses.dataclass(frozen=True)
class FullTuning(Tuning):
    """All weights of the model, or all weights of its last k layers.

    Args:
        last_layers: k; null moves everything, embeddings and final norm included.
    """

    last_layers: int | None = None

    changes_base_model = True

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """Mark the base model's own parameters."""
        first = first_trainable_layer(model, self.last_layers)
        if self.last_layers is None:
            chosen = dict(model.named_parameters())
        else:
            kept = {id(p) for layer in decoder_layers(model)[first:] for p in layer.parameters()}
            chosen = {n: p for n, p in model.named_parameters() if id(p) in kept}
        yield Attached(chosen, model)

    def count_parameters(self, num_parameters: int, num_layers: int, hidden_size: int) -> int:
        """All, or k layers of 12·h² weights each."""
        if self.last_layers is None:
            return num_parameters
        return min(num_parameters, self.last_layers * 12 * hidden_size**2)


@dataclasses.dataclass(frozen=True)
class NoTuning(Tuning):
    """Nothing moves: what methods attach that leave the model as it is."""

    last_layers = None
    changes_base_model = False

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """The model itself."""
        yield Attached({}, model)

    def count_parameters(self, num_parameters: int, num_layers: int, hidden_size: int) -> int:
        """None."""
        return 0


@dataclasses.dataclass(frozen=True)
class LoRA(Tuning):
    """Low-rank adapters W + (α/rank)·B·A, through PEFT. B starts at 0, A at Kaiming-uniform.

    A is drawn from the run's own initialisation stream, not from the global generator.

    Args:
        rank: r of A and B.
        alpha: α.
        target_modules: Names of the linear modules that get an adapter.
        last_layers: k; null adapts every layer.

    Source: Hu et al. 2021, arXiv 2106.09685; r 8 and α 16 on q and v as in MeZO.
    """

    rank: int = 8
    alpha: int = 16
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    last_layers: int | None = None

    changes_base_model = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "target_modules", tuple(self.target_modules))
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be > 0, got {self.alpha}")
        if not self.target_modules:
            raise ValueError("target_modules must name at least one module")

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """Insert the adapters; take them out again on leaving."""
        import peft

        first = first_trainable_layer(model, self.last_layers)
        self._check_targets(model, first)
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=list(self.target_modules),
            layers_to_transform=None
            if self.last_layers is None
            else list(range(first, len(decoder_layers(model)))),
            layers_pattern=None if self.last_layers is None else _layers_attribute(model),
            lora_dropout=0.0,
        )
        import torch

        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for an attribute's old name
            adapted = peft.get_peft_model(model, config)
        adapted.eval()
        try:
            chosen = {n: p for n, p in adapted.named_parameters() if ".lora_" in n}
            _initialise_adapters(chosen, seed)
            yield Attached(chosen, adapted)
        finally:
            adapted.unload()

    def count_parameters(self, num_parameters: int, num_layers: int, hidden_size: int) -> int:
        """rank · (inputs + outputs) for each adapted module."""
        layers = num_layers if self.last_layers is None else min(self.last_layers, num_layers)
        return layers * len(self.target_modules) * self.rank * 2 * hidden_size

    def _check_targets(self, model: PreTrainedModel, first: int) -> None:
        layers = decoder_layers(model)
        inside = {name.split(".")[-1] for layer in layers for name, _ in layer.named_modules()}
        everywhere = {name.split(".")[-1] for name, _ in model.named_modules()}
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        outputs = {name.split(".")[-1] for name, module in model.named_modules() if module is head}
        for target in self.target_modules:
            if target in outputs:
                raise ValueError(
                    f"tuning.target_modules: {target!r} is the output layer, of which the loss "
                    "uses the label words' rows alone; it cannot have an adapter"
                )
            if target not in everywhere:
                raise ValueError(
                    f"tuning.target_modules: {target!r} is no module of {type(model).__name__}; "
                    f"its layers have: {', '.join(_linear_modules(layers))}"
                )
            if self.last_layers is not None and target not in inside:
                raise ValueError(
                    f"tuning.target_modules: {target!r} lies below layer {first} and changes the "
                    f"input of every layer, so the outputs of the frozen layers cannot be cached; "
                    f"set tuning.last_layers=null or leave {target!r} out"
                )


def decoder_layers(model: PreTrainedModel) -> Any:
    """The model's list of layers (an `nn.ModuleList`), found by its length.

    Raises:
        ValueError: If the model has no such list.
    """
    return model.get_submodule(_layers_path(model))


def first_trainable_layer(model: PreTrainedModel, last_layers: int | None) -> int:
    """Index of the first layer that may move; 0 for all.

    Raises:
        ValueError: If the model has fewer layers than asked for.
    """
    total = len(decoder_layers(model))
    if last_layers is None:
        return 0
    if last_layers > total:
        raise ValueError(
            f"tuning.last_layers must not exceed the model's {total} layers, got {last_layers}"
        )
    return total - last_layers


def _layers_path(model: PreTrainedModel) -> str:
    from torch import nn

    total = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == total:
            return str(name)
    raise ValueError(f"{type(model).__name__} has no list of {total} layers")


def _linear_modules(layers: Any) -> list[str]:
    from torch import nn

    modules = (item for layer in layers for item in layer.named_modules())
    return sorted({name.split(".")[-1] for name, m in modules if isinstance(m, nn.Linear)})


def _layers_attribute(model: PreTrainedModel) -> str:
    return _layers_path(model).split(".")[-1]


def _initialise_adapters(parameters: dict[str, nn.Parameter], seed: int) -> None:
    import torch

    for index, (name, parameter) in enumerate(sorted(parameters.items())):
        with torch.no_grad():
            if ".lora_A." in name:
                generator = torch.Generator().manual_seed(
                    derive_key(seed, "initialisation", direction=index)
                )
                values = torch.empty(parameter.shape, dtype=torch.float32)
                torch.nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)
                parameter.copy_(values.to(parameter.device))
            else:
                parameter.zero_()
