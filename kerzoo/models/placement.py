"""Models over several devices: the layers in order, and activations that travel between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def balanced_over(num_devices: int) -> dict[str, Any]:
    """Arguments of `from_pretrained`: GPUs 0 … num_devices − 1, and nothing left on CPU or disk.

    Raises:
        ValueError: If fewer GPUs are visible.
    """
    import torch

    check_visible(num_devices)
    free = {index: torch.cuda.mem_get_info(index)[0] for index in range(num_devices)}
    return {"device_map": "balanced", "max_memory": free}


def num_gpus_of(gpus_per_trial: float | str) -> int:
    """Over how many GPUs a trial's model is spread; 1 where trials share one, or pack them.

    Args:
        gpus_per_trial: What `cluster.gpus_per_trial` says: a number or "auto".
    """
    return 1 if isinstance(gpus_per_trial, str) else max(1, int(gpus_per_trial))


def num_gpus_here(gpus_per_trial: float | str) -> int:
    """`num_gpus_of`, as far as GPUs are visible to this process; at least 1."""
    import torch

    return max(1, min(num_gpus_of(gpus_per_trial), torch.cuda.device_count()))


def check_visible(num_devices: int) -> None:
    """See that there are as many GPUs.

    Raises:
        ValueError: If fewer are visible.
    """
    import torch

    visible = torch.cuda.device_count()
    if visible < num_devices:
        raise ValueError(
            f"num_devices must not exceed the {visible} visible GPUs, got {num_devices}"
        )


def spread(model: PreTrainedModel, devices: Sequence[str]) -> None:
    """Move a model to the places of `places_on`; its forward passes carry activations along.

    Args:
        model: On one device.
        devices: As torch names them.
    """
    from accelerate import dispatch_model

    dispatch_model(
        model,
        places_on(model, devices),
        main_device=devices[0],
        skip_keys=model._skip_keys_device_placement,
        force_hooks=True,
    )


def places_on(model: PreTrainedModel, devices: Sequence[str]) -> dict[str, str]:
    """Each module's device: the layers in order and evenly on all, what is outside on the first."""
    from kerzoo.tuning.layers import decoder_layers, layers_path

    path, total = layers_path(model), len(decoder_layers(model))
    places = {f"{path}.{i}": devices[i * len(devices) // total] for i in range(total)}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    owners = [name.rpartition(".")[0] for name, _ in tensors if not name.startswith(f"{path}.")]
    return dict.fromkeys(owners, devices[0]) | places
