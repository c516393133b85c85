"""The label-word loss equals the loss of the full logits, or the model is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from tiny_trials import label_word_loss
from torch.nn import functional as F

from kerzoo.evaluation import evaluate
from kerzoo.losses import check_output_layer
from kerzoo.models import LoadedModel
from kerzoo.tasks import LabelWordSplit

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
KEY_VALUE = {"num_key_value_heads": 2}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 2}
TOLERANCE = 1e-5

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", SIZES | KEY_VALUE),
    "Llama with tied embeddings": ("LlamaForCausalLM", SIZES | {"tie_word_embeddings": True}),
    "Mistral with a short window": (
        "MistralForCausalLM",
        SIZES | KEY_VALUE | {"sliding_window": 4},
    ),
    "Qwen2": ("Qwen2ForCausalLM", SIZES | KEY_VALUE),
    "Gemma": ("GemmaForCausalLM", SIZES | KEY_VALUE | {"head_dim": 8}),
    "GPT-NeoX": ("GPTNeoXForCausalLM", SIZES),
    "GPT-2": ("GPT2LMHeadModel", GPT2),
    "Phi with a bias in the output layer": ("PhiForCausalLM", SIZES),
    "OPT with projected embeddings": (
        "OPTForCausalLM",
        SIZES | {"word_embed_proj_dim": 16, "ffn_dim": 64, "init_std": 0.2},
    ),
}


def make(architecture: str, values: dict[str, Any], vocab_size: int) -> Any:
    """A model with random weights, the same at every call; the global generator is untouched."""
    cls = getattr(transformers, architecture)
    config = cls.config_class(vocab_size=vocab_size, **values)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return cls(config).train(False).requires_grad_(False)


@pytest.fixture(params=["opt-tiny", *ARCHITECTURES])
def model(request: pytest.FixtureRequest, loaded: LoadedModel) -> LoadedModel:
    if request.param == "opt-tiny":
        return loaded
    made = make(*ARCHITECTURES[request.param], len(loaded.tokenizer))
    return dataclasses.replace(loaded, model=made)


def full_loss(loaded: LoadedModel, split: LabelWordSplit, indices: list[int]) -> float:
    """Cross-entropy over the label words' logits, each example alone and without padding."""
    losses = []
    for i in indices:
        tokens = split.sequences.tokens[split.sequences.offsets[i] : split.sequences.offsets[i + 1]]
        with torch.inference_mode():
            logits = loaded.model(input_ids=tokens[None]).logits[0, -1]
        losses.append(F.cross_entropy(logits[split.label_token_ids].double(), split.labels[i]))
    return float(torch.stack(losses).mean())


def test_the_loss_is_that_of_the_full_logits_whatever_the_padding_and_the_batch(
    model: LoadedModel, split: LabelWordSplit
) -> None:
    loss = label_word_loss(model, split)
    by_length = split.sequences.order_by_length()
    for indices in (
        [by_length[0]],
        [by_length[-1]],
        by_length[:2],
        by_length[::7],
        by_length[::-3],
    ):
        assert loss.loss(indices) == pytest.approx(full_loss(model, split, indices), abs=TOLERANCE)


def test_the_loss_is_that_of_a_padded_batch_with_its_attention_mask(
    model: LoadedModel, split: LabelWordSplit
) -> None:
    indices = split.sequences.order_by_length()[::9]
    tokens, lengths = split.sequences.batch(indices, model.pad_token_id)
    labels = split.labels[indices]
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    with torch.inference_mode():
        logits = model.model(input_ids=tokens, attention_mask=mask).logits
    scores = logits[torch.arange(len(indices)), lengths - 1][:, split.label_token_ids]
    assert label_word_loss(model, split).loss(indices) == pytest.approx(
        float(F.cross_entropy(scores.double(), labels)), abs=TOLERANCE
    )


def test_an_examples_scores_do_not_depend_on_its_neighbours(
    model: LoadedModel, split: LabelWordSplit
) -> None:
    loss = label_word_loss(model, split)
    together = loss.scores(list(range(20)))
    for i in range(20):
        assert torch.allclose(together[i], loss.scores([i])[0], atol=TOLERANCE)


def test_models_whose_logits_are_their_output_layers_pass_the_check(model: LoadedModel) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        check_output_layer(model.model.to(dtype))


@pytest.mark.parametrize(
    ("architecture", "values"),
    [
        ("Gemma2ForCausalLM", {"head_dim": 8}),
        ("GraniteForCausalLM", {"logits_scaling": 8.0}),
        ("CohereForCausalLM", {}),
    ],
)
def test_models_that_scale_or_cap_their_logits_are_refused(
    architecture: str, values: dict[str, Any]
) -> None:
    sizes = SIZES | KEY_VALUE | values | {"initializer_range": 0.02}
    with pytest.raises(ValueError, match=f"{architecture} scales or caps its logits"):
        check_output_layer(make(architecture, sizes, 300))


def test_gemma_without_caps_would_pass() -> None:
    sizes = SIZES | KEY_VALUE | {"head_dim": 8, "final_logit_softcapping": None}
    check_output_layer(make("Gemma2ForCausalLM", sizes, 300))


def test_evaluating_a_split_is_its_mean_loss_and_the_share_of_right_answers(
    loaded: LoadedModel, split: LabelWordSplit
) -> None:
    loss = label_word_loss(loaded, split)
    metrics = evaluate(loss, binary=True)
    everything = list(range(len(split)))
    assert metrics.loss == pytest.approx(full_loss(loaded, split, everything), abs=TOLERANCE)
    right = loss.scores(everything).argmax(dim=1) == split.labels
    assert metrics.accuracy == pytest.approx(float(right.double().mean()))
    assert metrics.auc is not None


def test_tokens_are_counted_without_padding(loaded: LoadedModel, split: LabelWordSplit) -> None:
    counted = label_word_loss(loaded, split).num_tokens([3, 4, 5])
    assert counted == int(split.sequences.offsets[6] - split.sequences.offsets[3])
