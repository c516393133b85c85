"""Where a model's layers are, and what their modules are called."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kerzoo.models.sizes import ModelSizes

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

QUERY = ("q_proj", "query")
KEY = ("k_proj", "key")
VALUE = ("v_proj", "value")
ATTENTION_OUTPUT = ("o_proj", "out_proj", "attention.output.dense")
FEEDFORWARD_INPUT = ("fc1", "up_proj", "gate_proj", "intermediate.dense")
FEEDFORWARD_OUTPUT = ("fc2", "down_proj", "output.dense")
"""Names of a kind of module in OPT, in Llama and its relatives, in RoBERTa and BERT."""


def decoder_layers(model: PreTrainedModel) -> Any:
    """The model's list of layers (an `nn.ModuleList`), found by its length.

    Raises:
        ValueError: If the model has no such list.
    """
    return model.get_submodule(layers_path(model))


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


def layers_path(model: PreTrainedModel) -> str:
    """The name of the list of layers."""
    from torch import nn

    total = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == total:
            return str(name)
    raise ValueError(f"{type(model).__name__} has no list of {total} layers")


@contextlib.contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within the block, a module has another forward; afterwards its own, or a hook's, again."""
    own = vars(module)
    before = own.get("forward")
    own["forward"] = forward
    try:
        yield
    finally:
        del own["forward"]
        if before is not None:
            own["forward"] = before


def is_called(path: str, name: str) -> bool:
    """Whether a module's path ends in a name of one or more parts."""
    return path == name or path.endswith(f".{name}")


def paths_in_layers(model: PreTrainedModel, name: str) -> list[str]:
    """Paths, inside a layer, of the modules of a name; those of just this path before all others.

    In RoBERTa "output.dense" is the feed-forward output and not "attention.output.dense".
    """
    paths = [path for path, _ in decoder_layers(model)[-1].named_modules() if path]
    return [p for p in paths if p == name] or [p for p in paths if is_called(p, name)]


def find_modules(model: PreTrainedModel, *kinds: Sequence[str]) -> tuple[str, ...]:
    """The name that each kind of module has in this model.

    Args:
        model: The model.
        kinds: Names that modules of a kind may have.

    Raises:
        ValueError: Where there is none, with the names that there are.
    """
    found = []
    for kind in kinds:
        names = [name for name in kind if paths_in_layers(model, name)]
        if not names:
            raise ValueError(
                f"tuning.target_modules: null looks for {' or '.join(kind)}, and "
                f"{type(model).__name__} has none; its layers have: "
                f"{', '.join(weighted_modules(model))}; name the ones to adapt"
            )
        found.append(names[0])
    return tuple(found)


def weighted_modules(model: PreTrainedModel) -> list[str]:
    """Names of the modules in the layers that multiply by a matrix."""
    modules = [item for layer in decoder_layers(model) for item in layer.named_modules()]
    return sorted(
        {
            name.split(".")[-1]
            for name, module in modules
            if getattr(getattr(module, "weight", None), "ndim", 0) == 2
        }
    )


def shape_of(name: str, sizes: ModelSizes) -> tuple[int, int]:
    """Inputs and outputs of a module of this name; hidden_size both where the name is unknown."""
    hidden = sizes.hidden_size
    if name in KEY + VALUE:
        return hidden, sizes.key_value_size
    if name in FEEDFORWARD_INPUT:
        return hidden, sizes.feedforward_size
    if name in FEEDFORWARD_OUTPUT:
        return sizes.feedforward_size, hidden
    return hidden, hidden
