"""Low-rank adapters."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kerzoo.models.sizes import ModelSizes
from kerzoo.noise import derive_key
from kerzoo.tuning.base import Attached, Tuning, adapters_in
from kerzoo.tuning.layers import (
    QUERY,
    VALUE,
    decoder_layers,
    find_modules,
    first_trainable_layer,
    is_called,
    layers_path,
    shape_of,
    weighted_modules,
)

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class LoRA(Tuning):
    """Low-rank adapters W + (α/rank)·B·A, through PEFT. B starts at 0, A at Kaiming-uniform.

    A is drawn from the run's own initialisation stream, not from the global generator.

    Args:
        rank: r of A and B.
        alpha: α.
        target_modules: Names of the linear modules that get an adapter; null for the query and
            value projections, whatever the model calls them.
        last_layers: k; null adapts every layer.

    Source: Hu et al. 2021, arXiv 2106.09685; r 8 and α 16 on q and v as in MeZO.
    """

    rank: int = 8
    alpha: int = 16
    target_modules: tuple[str, ...] | None = None
    last_layers: int | None = None

    can_be_stacked = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_modules is not None:
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be > 0, got {self.alpha}")
        if self.target_modules == ():
            raise ValueError("target_modules must name at least one module, or be null")

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """Insert the adapters; take them out again on leaving."""
        import peft

        first = first_trainable_layer(model, self.last_layers)
        targets = self.target_modules or find_modules(model, QUERY, VALUE)
        self._check_targets(model, targets, first)
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=list(targets),
            layers_to_transform=None
            if self.last_layers is None
            else list(range(first, len(decoder_layers(model)))),
            layers_pattern=None if self.last_layers is None else layers_path(model).split(".")[-1],
            lora_dropout=0.0,
        )
        adapted = adapters_in(model, config)
        try:
            chosen = {n: p for n, p in adapted.named_parameters() if ".lora_" in n}
            _initialise_adapters(chosen, seed)
            yield Attached(chosen, adapted)
        finally:
            adapted.unload()

    def count_parameters(self, sizes: ModelSizes) -> int:
        """rank · (inputs + outputs) for each adapted module."""
        layers = min(self.last_layers or sizes.num_layers, sizes.num_layers)
        targets = self.target_modules or (QUERY[0], VALUE[0])
        return layers * self.rank * sum(sum(shape_of(name, sizes)) for name in targets)

    def _check_targets(self, model: PreTrainedModel, targets: tuple[str, ...], first: int) -> None:
        inside = [name for layer in decoder_layers(model) for name, _ in layer.named_modules()]
        everywhere = [name for name, _ in model.named_modules()]
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        outputs = [name for name, module in model.named_modules() if module is head]
        for target in targets:
            if any(is_called(name, target) for name in outputs):
                raise ValueError(
                    f"tuning.target_modules: {target!r} is the output layer, of which the loss "
                    "uses the label words' rows alone; it cannot have an adapter"
                )
            if not any(is_called(name, target) for name in everywhere):
                raise ValueError(
                    f"tuning.target_modules: {target!r} is no module of {type(model).__name__}; "
                    f"its layers have: {', '.join(weighted_modules(model))}"
                )
            if self.last_layers is not None and not any(is_called(n, target) for n in inside):
                raise ValueError(
                    f"tuning.target_modules: {target!r} lies below layer {first} and changes the "
                    f"input of every layer, so the outputs of the frozen layers cannot be cached; "
                    f"set tuning.last_layers=null or leave {target!r} out"
                )


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
