"""Factors of inner activations."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kerzoo.models.sizes import ModelSizes
from kerzoo.tuning.base import Attached, Tuning, adapters_in
from kerzoo.tuning.layers import (
    FEEDFORWARD_OUTPUT,
    KEY,
    VALUE,
    decoder_layers,
    find_modules,
    first_trainable_layer,
    layers_path,
    paths_in_layers,
    shape_of,
    weighted_modules,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class IA3(Tuning):
    """Trained factors of keys, values and the inputs of the feed-forward output, through PEFT.

    All start at 1, so that nothing is drawn. Their tensors have two dimensions, so that a
    weight decay would pull them towards 0: leave it at 0.

    Args:
        target_modules: Names of modules whose outputs get factors; null for the key and value
            projections, whatever the model calls them.
        feedforward_modules: Names of modules whose inputs get factors; null for the feed-forward
            output.
        last_layers: k; null adapts every layer.

    Source: Liu et al. 2022, arXiv 2205.05638.
    """

    target_modules: tuple[str, ...] | None = None
    feedforward_modules: tuple[str, ...] | None = None
    last_layers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_modules", "feedforward_modules"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.target_modules == () and self.feedforward_modules == ():
            raise ValueError("target_modules or feedforward_modules must name at least one module")

    @contextlib.contextmanager
    def attach(self, model: PreTrainedModel, seed: int) -> Iterator[Attached]:
        """Insert the factors; take them out again on leaving."""
        import peft

        outputs, inputs = self.target_modules, self.feedforward_modules
        outputs = find_modules(model, KEY, VALUE) if outputs is None else outputs
        inputs = find_modules(model, FEEDFORWARD_OUTPUT) if inputs is None else inputs
        first = first_trainable_layer(model, self.last_layers)
        # PEFT has no choice of layers here, and takes every name that ends in a listed one:
        # regular expressions for whole paths say both.
        config = peft.IA3Config(
            target_modules=_pattern(model, [*outputs, *inputs], first),
            feedforward_modules=_pattern(model, inputs, first),
        )
        adapted = adapters_in(model, config)
        try:
            chosen = {n: p for n, p in adapted.named_parameters() if ".ia3_l." in n}
            yield Attached(chosen, adapted)
        finally:
            adapted.unload()

    def count_parameters(self, sizes: ModelSizes) -> int:
        """For each layer, the outputs of some modules and the inputs of others."""
        layers = min(self.last_layers or sizes.num_layers, sizes.num_layers)
        targets, inner = self.target_modules, self.feedforward_modules
        outputs = (KEY[0], VALUE[0]) if targets is None else targets
        inputs = FEEDFORWARD_OUTPUT[:1] if inner is None else inner
        factors = [shape_of(name, sizes)[1] for name in outputs]
        factors += [shape_of(name, sizes)[0] for name in inputs]
        return layers * sum(factors)


def _pattern(model: PreTrainedModel, names: list[str] | tuple[str, ...], first: int) -> str:
    """A regular expression for the modules of some names in the layers from the first on."""
    paths = []
    for name in names:
        found = paths_in_layers(model, name)
        if not found:
            raise ValueError(
                f"tuning: {name!r} is no module in the layers of {type(model).__name__}, which "
                f"have: {', '.join(weighted_modules(model))}"
            )
        paths += [re.escape(path) for path in found]
    if not paths:
        return "(?!)"  # matches nothing
    layers = "|".join(map(str, range(first, len(decoder_layers(model)))))
    return rf"{re.escape(layers_path(model))}\.({layers})\.({'|'.join(paths)})"
