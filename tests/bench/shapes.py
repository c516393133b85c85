"""Models of published sizes with random weights, and batches of random tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from kerzoo.models import LoadedModel
from kerzoo.models.vocabulary import make_opt_tokenizer
from kerzoo.tasks import LabelWordSplit, Sequences


def _opt(layers: int, hidden: int, heads: int, vocabulary: int = 50272) -> Any:
    return OPTForCausalLM, OPTConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        word_embed_proj_dim=hidden,
        ffn_dim=4 * hidden,
        num_attention_heads=heads,
        vocab_size=vocabulary,
        dropout=0.0,
    )


SHAPES: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "opt-tiny": _opt(8, 32, 4, 771),
    "opt-125m": _opt(12, 768, 12),
    "opt-350m": _opt(24, 1024, 16),
    "opt-2.7b": _opt(32, 2560, 32),
    "smollm2-135m": (
        LlamaForCausalLM,
        LlamaConfig(
            num_hidden_layers=30,
            hidden_size=576,
            intermediate_size=1536,
            num_attention_heads=9,
            num_key_value_heads=3,
            vocab_size=49152,
            tie_word_embeddings=True,
        ),
    ),
    "minilm-22m": (
        BertForMaskedLM,
        BertConfig(
            num_hidden_layers=6,
            hidden_size=384,
            intermediate_size=1536,
            num_attention_heads=12,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
    ),
}


def make_model(shape: str, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    """A model of a published shape with its full vocabulary; nothing is downloaded."""
    kind, config = SHAPES[shape]
    with torch.random.fork_rng(devices=[]), torch.device(device), _default(dtype):
        torch.manual_seed(0)
        model = kind._from_config(config, attn_implementation="sdpa")
    model.eval().requires_grad_(False)
    return LoadedModel(model, make_opt_tokenizer(), revision=f"random {shape}")


def make_split(num_examples: int, length: int, vocabulary: int) -> LabelWordSplit:
    """Random tokens in examples of one length; the label is read at the last position."""
    generator = torch.Generator().manual_seed(0)
    offsets = torch.arange(num_examples + 1) * length
    tokens = torch.randint(3, vocabulary, (num_examples * length,), generator=generator)
    return LabelWordSplit(
        sequences=Sequences(tokens, offsets, max_length=length, num_truncated=0),
        positions=torch.full((num_examples,), length - 1),
        labels=torch.randint(0, 2, (num_examples,), generator=generator),
        label_token_ids=torch.tensor([3, 4]),
    )


@contextlib.contextmanager
def _default(dtype: str) -> Iterator[None]:
    """Within the block, new tensors are of this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(before)
