"""Virtual tokens in front of every sequence, for whoever runs the model in the ordinary way.

PEFT's model of a prefix or a prompt has to be called itself: the base model inside it knows
nothing of them. Here the base model is given another `forward` for the time, at the one module
through which all sequences go (the whole model, its `base_model` and `generate` included). It adds
the virtual tokens as PEFT does, so that adapters saved by PEFT's model compute the same: they
come first, the input's positions follow theirs, and every token sees them. Callers pass what they
would pass without them, and get states of their own tokens alone.

In generation the cache holds the virtual tokens from the first step on. A cache that is not empty
therefore has them already.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kerzoo.noise import derive_key
from kerzoo.tuning.layers import decoder_layers, forward_replaced, layers_path

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


def draw_tokens(model: PreTrainedModel, count: int, seed: int) -> torch.Tensor:
    """Token ids, uniform over the model's vocabulary without the padding token.

    Args:
        model: The model.
        count: T.
        seed: The run's; the ids are drawn from its initialisation stream.

    Returns:
        Shape: [1, T], on the model's device.
    """
    generator = torch.Generator().manual_seed(derive_key(seed, "initialisation"))
    padding = getattr(model.config, "pad_token_id", None)
    size = model.config.vocab_size - (padding is not None)
    tokens = torch.randint(size, (1, count), generator=generator)
    if padding is not None:
        tokens += tokens >= padding
    return tokens.to(model.device)


def task_type_of(model: PreTrainedModel) -> str:
    """PEFT's name for a model that virtual tokens can be put in front of.

    A masked language model is none of PEFT's tasks; as FEATURE_EXTRACTION it gives logits too.
    """
    return "CAUSAL_LM" if model.can_generate() else "FEATURE_EXTRACTION"


class VirtualTokens(abc.ABC):
    """Runs a model with virtual tokens in front.

    Args:
        model: The base model.
        count: T, the number of virtual tokens.
    """

    def __init__(self, model: PreTrainedModel, count: int) -> None:
        self.model = model
        self.count = count
        self.runner = _module_that_runs_sequences(model)
        self._forward = self.runner.forward
        self._names = list(inspect.signature(self._forward).parameters)
        self._num_positions, self.first_position = _positions(self.runner)

    @contextlib.contextmanager
    def in_front(self) -> Iterator[None]:
        """Within the block, the model has the virtual tokens in front of all that it is given."""
        with forward_replaced(self.runner, self._run):
            yield

    @abc.abstractmethod
    def begin(self, inputs: dict[str, Any], batch: int) -> None:
        """Put the virtual tokens into the arguments of a forward that begins a sequence.

        Args:
            inputs: Arguments of the forward by name; changed in place.
            batch: Number of sequences.
        """

    @abc.abstractmethod
    def end(self, outputs: Any, keeps_cache: bool) -> Any:
        """Take the virtual tokens out of what such a forward returned.

        Args:
            outputs: transformers' outputs.
            keeps_cache: Whether the caller asked for a cache.
        """

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        inputs = dict(zip(self._names, args, strict=False)) | kwargs
        given = inputs.get("input_ids")
        if given is None:
            given = inputs["inputs_embeds"]
        batch, length = given.shape[:2]
        cache: Cache | None = inputs.get("past_key_values")
        seen = 0 if cache is None else int(cache.get_seq_length())
        self._check_length((seen or self.count) + length)
        mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
        if mask is not None:
            if mask.ndim != 2:
                raise ValueError(
                    f"attention_mask must have 2 dimensions with virtual tokens, got {mask.ndim}"
                )
            inputs["attention_mask"] = torch.cat([mask.new_ones(batch, self.count), mask], dim=1)
        if positions is not None:
            inputs["position_ids"] = positions + self.count
        if seen:
            return self._forward(**inputs)
        used = inputs.get("use_cache")
        used = getattr(self.model.config, "use_cache", False) if used is None else used
        self.begin(inputs, batch)
        return self.end(self._forward(**inputs), bool(used) or cache is not None)

    def _check_length(self, length: int) -> None:
        if self._num_positions is not None and length > self._num_positions:
            raise ValueError(
                f"a sequence has {length} tokens with the {self.count} virtual ones in front, and "
                f"{type(self.model).__name__} has {self._num_positions} positions; lower "
                "task.max_length or tuning.num_tokens"
            )


class PrefixTokens(VirtualTokens):
    """Keys and values of every layer for tokens that are not computed.

    Args:
        model: The base model.
        weight: PEFT's parameter. Shape: [T, layers · 2 · heads · head size].
        num_heads: Heads that have keys and values of their own.
    """

    def __init__(self, model: PreTrainedModel, weight: nn.Parameter, num_heads: int) -> None:
        super().__init__(model, len(weight))
        self.weight = weight
        self.num_heads = num_heads
        self.devices = [next(layer.parameters()).device for layer in decoder_layers(model)]

    def begin(self, inputs: dict[str, Any], batch: int) -> None:
        """Fill the caller's empty cache, or one of our own, as an earlier forward would have."""
        from transformers import DynamicCache

        if inputs.get("past_key_values") is None:
            inputs["past_key_values"] = DynamicCache(config=self.model.config)
        values = self.weight.to(self.model.dtype)
        # [T, layers · 2 · heads · size] → [layers, 2, 1, heads, T, size]
        layers = self.model.config.num_hidden_layers
        values = values.view(self.count, layers, 2, 1, self.num_heads, -1)
        values = values.permute(1, 2, 3, 4, 0, 5)
        for index, device in enumerate(self.devices):
            keys, states = values[index].to(device)
            inputs["past_key_values"].update(
                keys.expand(batch, -1, -1, -1), states.expand(batch, -1, -1, -1), index
            )

    def end(self, outputs: Any, keeps_cache: bool) -> Any:
        """Without our own cache, which nobody asked for."""
        return outputs if keeps_cache else dataclasses.replace(outputs, past_key_values=None)


class PromptTokens(VirtualTokens):
    """Embeddings in front of the input's, computed with it.

    Args:
        model: The base model.
        weight: PEFT's parameter. Shape: [T, embedding].
    """

    def __init__(self, model: PreTrainedModel, weight: nn.Parameter) -> None:
        super().__init__(model, len(weight))
        self.weight = weight

    def begin(self, inputs: dict[str, Any], batch: int) -> None:
        """Embed the input, and put the prompt in front."""
        embeddings = inputs.get("inputs_embeds")
        if embeddings is None:
            embed: nn.Module = self.model.get_input_embeddings()
            embeddings = embed(inputs.pop("input_ids"))
        prompt = self.weight.to(embeddings).expand(batch, -1, -1)
        inputs["inputs_embeds"] = torch.cat([prompt, embeddings], dim=1)
        if (positions := inputs.get("position_ids")) is not None:
            first = torch.arange(self.count, device=positions.device) + self.first_position
            first = first.expand(len(positions), -1)
            inputs["position_ids"] = torch.cat([first, positions], dim=1)

    def end(self, outputs: Any, keeps_cache: bool) -> Any:
        """States of the input's tokens."""
        states = outputs.last_hidden_state[:, self.count :]
        between = outputs.hidden_states
        if between is not None:
            between = tuple(layer[:, self.count :] for layer in between)
        return dataclasses.replace(outputs, last_hidden_state=states, hidden_states=between)


def _module_that_runs_sequences(model: PreTrainedModel) -> nn.Module:
    """The innermost module that takes token ids and holds the layers.

    It is the base model, or in OPT the decoder inside it, which OPTForCausalLM calls directly.
    """
    path = layers_path(model)
    while path:
        path = path.rpartition(".")[0]
        module = model.get_submodule(path)
        if "inputs_embeds" in inspect.signature(module.forward).parameters:
            return module
    raise ValueError(f"{type(model).__name__} has no module that takes embeddings")


def _positions(runner: nn.Module) -> tuple[int | None, int]:
    """How many positions a table has, None for computed ones; and the id of the first."""
    for name, module in runner.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name:
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - int(getattr(module, "offset", first)), first
    return None, 0
