"""OPT, Llama with grouped-query attention and RoBERTa, at sizes where a forward is instant."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from kerzoo.models.sizes import ModelSizes
from kerzoo.tuning import decoder_layers

VOCABULARY, HIDDEN, LAYERS, HEADS = 67, 32, 3, 4
PADDING = 1


def _opt(**changes: Any) -> Any:
    sizes = {"word_embed_proj_dim": HIDDEN, "ffn_dim": 4 * HIDDEN} | changes
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=64,
            init_std=0.2,
            dropout=0.0,
            pad_token_id=PADDING,
            **sizes,
        )
    )


def _llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            intermediate_size=48,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            initializer_range=0.2,
            tie_word_embeddings=False,
            pad_token_id=None,
        )
    )


def _roberta() -> Any:
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            intermediate_size=4 * HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=64,
            type_vocab_size=1,
            initializer_range=0.2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=PADDING,
        )
    )


MODELS = {
    "opt": _opt,
    "opt with narrow embeddings": lambda: _opt(word_embed_proj_dim=16, do_layer_norm_before=False),
    "llama": _llama,
    "roberta": _roberta,
}


def make_model(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """The same weights every time; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = MODELS[name]()
    model.to(dtype).train(False).requires_grad_(False)
    model.config.use_cache = False
    return model


def sizes_of(model: Any) -> ModelSizes:
    """Sizes counted on the model itself."""
    config = model.config
    head_size = config.hidden_size // config.num_attention_heads
    key_value_heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    inner = getattr(config, "ffn_dim", None) or config.intermediate_size

    def count(module: Any) -> int:
        return sum(p.numel() for p in module.parameters())

    return ModelSizes(
        num_parameters=count(model),
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        layer_parameters=count(decoder_layers(model)[0]),
        head_parameters=count(model.get_output_embeddings()),
        embedding_size=model.get_input_embeddings().embedding_dim,
        key_value_size=key_value_heads * head_size,
        feedforward_size=inner,
    )
