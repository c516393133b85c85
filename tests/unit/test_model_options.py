"""Hub options against the published configs: kinds, sizes and exact numbers of parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
MADE_HERE = {"opt-tiny", "roberta-tiny"}


def opt(layers: int, heads: int, hidden: int, **others: Any) -> tuple[str, dict[str, Any]]:
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden}
    widths = {"ffn_dim": 4 * hidden, "word_embed_proj_dim": hidden}
    return "OPTForCausalLM", sizes | widths | {"vocab_size": 50272} | others


def roberta(layers: int, heads: int, hidden: int) -> tuple[str, dict[str, Any]]:
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden}
    fixed = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
    return "RobertaForMaskedLM", sizes | fixed | {"intermediate_size": 4 * hidden}


def gated(  # as in Llama: gated feed-forward layers, keys and values in groups
    kind: str,
    layers: int,
    heads: tuple[int, int, int],
    widths: tuple[int, int],
    vocabulary: int,
    tied: bool,
) -> tuple[str, dict[str, Any]]:
    queries, key_values, size = heads
    return f"{kind}ForCausalLM", {
        "num_hidden_layers": layers,
        "num_attention_heads": queries,
        "num_key_value_heads": key_values,
        "head_dim": size,
        "hidden_size": widths[0],
        "intermediate_size": widths[1],
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "opt-125m": opt(12, 12, 768),
    "opt-350m": opt(24, 16, 1024, word_embed_proj_dim=512, do_layer_norm_before=False),
    "opt-1.3b": opt(24, 32, 2048),
    "opt-2.7b": opt(32, 32, 2560),
    "opt-6.7b": opt(32, 32, 4096),
    "opt-13b": opt(40, 40, 5120),
    "opt-30b": opt(48, 56, 7168),
    "roberta-base": roberta(12, 12, 768),
    "roberta-large": roberta(24, 16, 1024),
    "llama-2-7b": gated("Llama", 32, (32, 32, 128), (4096, 11008), 32000, tied=False),
    "llama-3.2-1b": gated("Llama", 16, (32, 8, 64), (2048, 8192), 128256, tied=True),
    "llama-3.2-3b": gated("Llama", 28, (24, 8, 128), (3072, 8192), 128256, tied=True),
    "llama-3.1-8b": gated("Llama", 32, (32, 8, 128), (4096, 14336), 128256, tied=False),
    "mistral-7b": gated("Mistral", 32, (32, 8, 128), (4096, 14336), 32000, tied=False),
    "qwen2.5-0.5b": gated("Qwen2", 24, (14, 2, 64), (896, 4864), 151936, tied=True),
    "qwen2.5-1.5b": gated("Qwen2", 28, (12, 2, 128), (1536, 8960), 151936, tied=True),
    "qwen2.5-7b": gated("Qwen2", 28, (28, 4, 128), (3584, 18944), 152064, tied=False),
    "gemma-2b": gated("Gemma", 18, (8, 1, 256), (2048, 16384), 256000, tied=True),
    "smollm2-135m": gated("Llama", 30, (9, 3, 64), (576, 1536), 49152, tied=True),
    "smollm2-360m": gated("Llama", 32, (15, 5, 64), (960, 2560), 49152, tied=True),
    "smollm2-1.7b": gated("Llama", 24, (32, 32, 64), (2048, 8192), 49152, tied=True),
}
"""Architecture and sizes as in the config that each repository publishes."""


def test_every_option_that_is_not_made_here_has_published_sizes() -> None:
    assert {path.name.removesuffix(".yaml") for path in CONF.glob("*.yaml")} - MADE_HERE == set(
        PUBLISHED
    )


@pytest.mark.parametrize("option", PUBLISHED)
def test_an_option_states_the_sizes_of_its_model(option: str) -> None:
    architecture, sizes = PUBLISHED[option]
    stated = yaml.safe_load((CONF / f"{option}.yaml").read_text())
    cls: Any = getattr(transformers, architecture)
    with torch.device("meta"):
        model = cls(cls.config_class(**sizes))
        model.tie_weights()
    assert sum(p.numel() for p in model.parameters()) == stated["num_parameters"]
    assert sizes["num_hidden_layers"] == stated["num_layers"]
    assert sizes["hidden_size"] == stated["hidden_size"]
