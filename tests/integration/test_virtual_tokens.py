"""Prefix and prompt: what the model computes with them, however it is run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_models import HIDDEN, LAYERS, PADDING, VOCABULARY, make_model

from kerzoo.tuning import PrefixTuning, PromptTuning, Tuning
from kerzoo.tuning.virtual_tokens import draw_tokens

COUNT = 5
MODES: dict[str, Tuning] = {
    "prefix": PrefixTuning(num_tokens=COUNT),
    "random prefix": PrefixTuning(num_tokens=COUNT, initialisation="random"),
    "prompt": PromptTuning(num_tokens=COUNT),
}
MODELS = ("opt", "opt with narrow embeddings", "llama", "roberta")
CAUSAL = MODELS[:3]
ROWS = [[9, 20, 31], [8, 16, 24, 32, 40, 48, 56], [3, 2]]

each_mode = pytest.mark.parametrize("mode", sorted(MODES))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def batch_of(rows: list[list[int]], length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask, padded on the right."""
    length = length or max(map(len, rows))
    tokens = torch.full((len(rows), length), PADDING)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
    return tokens, (torch.arange(length) < torch.tensor([[len(row)] for row in rows])).long()


def states_of(model: Any, tokens: torch.Tensor, **inputs: Any) -> torch.Tensor:
    hidden: torch.Tensor = model.base_model(input_ids=tokens, **inputs).last_hidden_state
    return hidden


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_drawn_tokens_are_uniform_over_the_vocabulary_without_padding() -> None:
    """66 kinds in 66 000 draws: χ² below mean + 5 standard deviations (false alarm < 1e-5)."""
    model = make_model("opt")
    tokens = draw_tokens(model, 66_000, seed=4)
    counts = torch.bincount(tokens[0], minlength=VOCABULARY).double()
    assert counts[PADDING] == 0
    others = torch.cat([counts[:PADDING], counts[PADDING + 1 :]])
    assert float(((others - 1000) ** 2 / 1000).sum()) < 65 + 5 * math.sqrt(130)
    assert torch.equal(draw_tokens(model, 66_000, seed=4), tokens)
    assert not torch.equal(draw_tokens(model, 66_000, seed=5), tokens)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("mode", ["prefix", "prompt"])
def test_a_causal_model_starts_as_with_the_drawn_tokens_in_front(name: str, mode: str) -> None:
    model = make_model(name)
    tokens, _ = batch_of([ROWS[1]])
    drawn = draw_tokens(model, COUNT, seed=7)
    expected = model(torch.cat([drawn, tokens], dim=1)).logits[:, COUNT:]
    states = states_of(model, torch.cat([drawn, tokens], dim=1))[:, COUNT:]
    with MODES[mode].attach(model, 7):
        close(states_of(model, tokens), states)
        close(model(tokens).logits, expected)
        close(model(tokens, attention_mask=torch.ones_like(tokens)).logits, expected)


def test_a_masked_models_prompt_starts_as_with_the_drawn_tokens_in_front() -> None:
    model = make_model("roberta")
    tokens, mask = batch_of([ROWS[1]])
    drawn = draw_tokens(model, COUNT, seed=7)
    expected = model(torch.cat([drawn, tokens], dim=1)).logits[:, COUNT:]
    with MODES["prompt"].attach(model, 7):
        close(model(tokens, attention_mask=mask).logits, expected)


def test_a_masked_models_prefix_is_drawn_tokens_that_do_not_see_the_input() -> None:
    model = make_model("roberta")
    tokens, mask = batch_of([ROWS[1]])
    drawn = draw_tokens(model, COUNT, seed=7)
    total = COUNT + tokens.shape[1]
    sees = torch.ones(1, 1, total, total, dtype=torch.bool)
    sees[:, :, :COUNT, COUNT:] = False
    both = torch.cat([drawn, tokens], dim=1)
    expected = states_of(model, both, attention_mask=sees)[:, COUNT:]
    with MODES["prefix"].attach(model, 7):
        close(states_of(model, tokens, attention_mask=mask), expected)
        assert not torch.allclose(states_of(model, tokens), states_of(model, both)[:, COUNT:])


@pytest.mark.parametrize("name", MODELS)
def test_a_prefix_is_the_keys_and_values_of_every_layer_for_the_drawn_tokens(name: str) -> None:
    model = make_model(name)
    names = ("attention.self.key", "attention.self.value") if name == "roberta" else ("v_proj",)
    found: list[torch.Tensor] = []
    handles = [
        module.register_forward_hook(lambda _, __, output: found.append(output[0]))
        for path, module in model.named_modules()
        if path.endswith(names)
    ]
    states_of(model, draw_tokens(model, COUNT, seed=7))
    for handle in handles:
        handle.remove()
    with MODES["prefix"].attach(model, 7) as attached:
        (weight,) = attached.parameters.values()
        pairs = weight.view(COUNT, LAYERS, 2, -1)  # Llama's keys are rotated after k_proj
    kept = pairs.flatten(1, 2) if name == "roberta" else pairs[:, :, 1]
    close(kept, torch.stack(found, dim=1))


def test_a_random_prefix_is_standard_normal() -> None:
    """5 · 3 · 2 · 32 values: mean and mean square within 5 standard errors."""
    with MODES["random prefix"].attach(make_model("opt"), 0) as attached:
        (weight,) = attached.parameters.values()
    assert weight.numel() == COUNT * LAYERS * 2 * HIDDEN
    assert abs(float(weight.mean())) < 5 / math.sqrt(weight.numel())
    assert abs(float(weight.square().mean()) - 1) < 5 * math.sqrt(2 / weight.numel())


@pytest.mark.parametrize("name", MODELS)
@each_mode
def test_padding_and_batch_size_change_no_state_of_a_real_token(name: str, mode: str) -> None:
    model = make_model(name)
    with MODES[mode].attach(model, 1):
        alone = [states_of(model, torch.tensor([row]))[0] for row in ROWS]
        for length in (None, 12):
            tokens, mask = batch_of(ROWS, length)
            inputs: list[dict[str, Any]] = [{"attention_mask": mask}, {"attention_mask": mask > 0}]
            if name != "roberta":
                inputs += [{}, {"use_cache": True}]  # a causal model sees no padding on the right
            for given in inputs:
                states = states_of(model, tokens, **given)
                assert states.shape == (*tokens.shape, HIDDEN if "narrow" not in name else 16)
                for row, expected in zip(states, alone, strict=True):
                    close(row[: len(expected)], expected)


@pytest.mark.parametrize("name", MODELS)
@each_mode
def test_given_positions_and_embeddings_do_what_their_defaults_do(name: str, mode: str) -> None:
    model = make_model(name)
    tokens, _ = batch_of([ROWS[1]])
    positions = torch.arange(tokens.shape[1])[None]
    if name == "roberta":
        positions = positions + PADDING + 1
    with MODES[mode].attach(model, 1):
        expected = states_of(model, tokens)
        close(states_of(model, tokens, position_ids=positions), expected)
        embeddings = model.get_input_embeddings()(tokens)
        if name != "roberta" or mode == "prompt":  # RoBERTa ignores the cache's length here
            close(model.base_model(inputs_embeds=embeddings).last_hidden_state, expected)
        outputs = model(tokens, output_hidden_states=True)
        assert {layer.shape[1] for layer in outputs.hidden_states} == {tokens.shape[1]}


@pytest.mark.parametrize("name", CAUSAL)
@each_mode
def test_generation_sees_the_virtual_tokens_with_and_without_a_cache(name: str, mode: str) -> None:
    model = make_model(name)
    options: dict[str, Any] = {
        "max_new_tokens": 6,
        "do_sample": False,
        "pad_token_id": PADDING,
        "eos_token_id": VOCABULARY,
    }
    plain = model.generate(torch.tensor([ROWS[1]]), use_cache=True, **options)
    with MODES[mode].attach(model, 1):
        greedy = []
        for row in ROWS:
            tokens = list(row)
            for _ in range(6):
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
            greedy.append(tokens[len(row) :])
        width = max(map(len, ROWS))
        left = torch.tensor([[PADDING] * (width - len(row)) + row for row in ROWS])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ROWS])
        for use_cache in (True, False):
            written = model.generate(left, attention_mask=mask, use_cache=use_cache, **options)
            assert written[:, width:].tolist() == greedy
            longest = model.generate(torch.tensor([ROWS[1]]), use_cache=use_cache, **options)
            assert longest[0, width:].tolist() == greedy[1]
    assert greedy[1] != plain[0, width:].tolist()


@pytest.mark.parametrize("name", CAUSAL)
@each_mode
def test_a_cache_that_was_begun_with_virtual_tokens_goes_on_with_them(name: str, mode: str) -> None:
    model = make_model(name)
    tokens, mask = batch_of([ROWS[1]])
    with MODES[mode].attach(model, 1):
        expected = states_of(model, tokens)
        first = model.base_model(input_ids=tokens[:, :4], use_cache=True)
        assert first.past_key_values.get_seq_length() == 4 + COUNT
        rest = states_of(
            model, tokens[:, 4:], past_key_values=first.past_key_values, attention_mask=mask
        )
        close(rest, expected[:, 4:])
        if mode != "prompt":
            assert model.base_model(input_ids=tokens).past_key_values is None


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # asked by PEFT
@pytest.mark.parametrize("name", MODELS)
@each_mode
def test_pefts_own_model_of_a_saved_adapter_gives_the_same_logits_for_a_padded_batch(
    name: str, mode: str, tmp_path: Path
) -> None:
    model = make_model(name)
    tokens, mask = batch_of(ROWS)
    with MODES[mode].attach(model, 1) as attached:
        (weight,) = attached.parameters.values()
        weight.mul_(1.3)
        logits = model(tokens, attention_mask=mask).logits
        attached.model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    loaded = PeftModel.from_pretrained(model, str(tmp_path)).eval()
    again = loaded(input_ids=tokens, attention_mask=mask).logits[:, -tokens.shape[1] :]
    for row, (ours, theirs) in enumerate(zip(logits, again, strict=True)):
        close(theirs[: len(ROWS[row])], ours[: len(ROWS[row])])


@pytest.mark.parametrize("name", ["opt", "roberta"])
@each_mode
def test_an_input_that_no_longer_fits_the_models_positions_is_refused(name: str, mode: str) -> None:
    model = make_model(name)
    fits = 64 - COUNT - (PADDING + 1 if name == "roberta" else 0)
    tokens = torch.full((1, fits + 1), 9)
    with MODES[mode].attach(model, 1):
        assert states_of(model, tokens[:, :-1]).isfinite().all()
        with pytest.raises(ValueError, match=r"has 6\d tokens with the 5 virtual ones in front"):
            model(tokens)


@each_mode
def test_a_mask_that_was_prepared_already_is_refused(mode: str) -> None:
    model = make_model("llama")
    with (
        MODES[mode].attach(model, 1),
        pytest.raises(ValueError, match="attention_mask must have 2 dimensions with virtual"),
    ):
        model(torch.tensor([ROWS[0]]), attention_mask=torch.ones(1, 1, 3, 3))
