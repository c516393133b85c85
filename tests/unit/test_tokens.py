"""Tokens: what the model sees of a prompt, and how prompts stand side by side in a batch."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from kerzoo.models import TinyOpt
from kerzoo.tasks import TokenizedSplit
from kerzoo.tasks.tokens import tokenize_prompts

PROMPTS = ("good It was", "an unbelievably long comedy It was", "the plot was dull It was")
LABELS = (1, 0, 0)
WORDS = (" terrible", " great")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    source = TinyOpt(
        name="opt-tiny",
        dtype="float32",
        num_parameters=1,
        num_layers=1,
        hidden_size=8,
        num_heads=1,
        num_positions=64,
        init_std=0.1,
        seed=0,
    )
    return source.load("cpu").tokenizer


def tokenize(
    tokenizer: Any, label_words: Sequence[str] = WORDS, max_length: int = 64
) -> TokenizedSplit:
    return tokenize_prompts(tokenizer, PROMPTS, LABELS, label_words, max_length)


def rows(split: TokenizedSplit) -> list[list[int]]:
    bounds = split.offsets.tolist()
    return [split.tokens[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def test_a_row_is_the_prompt_from_the_beginning_of_text_to_the_label_position(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    split = tokenize(tokenizer)
    assert [tokenizer.decode(row) for row in rows(split)] == [f"</s>{p}" for p in PROMPTS]
    assert split.labels.tolist() == list(LABELS)
    assert tokenizer.decode(split.label_token_ids) == " terrible great"
    assert (len(split), split.num_truncated) == (3, 0)


def test_a_long_prompt_loses_its_beginning_and_keeps_its_question(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    whole = rows(tokenize(tokenizer))
    split = tokenize(tokenizer, max_length=8)
    assert split.num_truncated == sum(len(row) > 8 for row in whole) == 1
    for row, cut in zip(whole, rows(split), strict=True):
        assert cut == (row if len(row) <= 8 else [row[0], *row[-7:]])


def test_a_tokenizer_without_special_tokens_adds_none(tokenizer: PreTrainedTokenizerBase) -> None:
    def plain(texts: Any, add_special_tokens: bool = True, **options: Any) -> Any:
        return tokenizer(texts, add_special_tokens=False, **options)

    assert [[2, *row] for row in rows(tokenize(plain))] == rows(tokenize(tokenizer))


def test_tokens_that_a_tokenizer_appends_do_not_stand_before_the_label(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    def closing(texts: Any, add_special_tokens: bool = True, **options: Any) -> Any:
        encoding = tokenizer(texts, add_special_tokens=add_special_tokens, **options)
        return {"input_ids": [*encoding["input_ids"], 2]} if add_special_tokens else encoding

    assert rows(tokenize(closing)) == rows(tokenize(tokenizer))


def test_a_label_word_of_several_tokens_is_refused_naming_them(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    with pytest.raises(ValueError, match=r"task\.label_words: .*' unpleasant' is \d+ for .*'Ġ"):
        tokenize(tokenizer, label_words=(" unpleasant", " great"))


def test_label_words_of_one_token_between_them_are_refused() -> None:
    def unknown(texts: Any, **options: Any) -> Any:
        if isinstance(texts, str):
            return {"input_ids": [7]}
        return {"input_ids": [[7] * len(text.split()) for text in texts]}

    with pytest.raises(ValueError, match="' terrible' and ' great' are the same token"):
        tokenize(unknown)


def test_two_splits_have_one_fingerprint_when_they_have_the_same_tokens_and_labels(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    split = tokenize(tokenizer)
    assert tokenize(tokenizer).fingerprint == split.fingerprint
    others = (
        dataclasses.replace(split, tokens=split.tokens.flip(0)),
        dataclasses.replace(split, offsets=split.offsets + torch.tensor([0, 1, 0, 0])),
        dataclasses.replace(split, labels=1 - split.labels),
        dataclasses.replace(split, label_token_ids=split.label_token_ids.flip(0)),
    )
    assert len({s.fingerprint for s in (split, *others)}) == 5


def split_of(lengths: list[int], max_length: int = 20) -> TokenizedSplit:
    return TokenizedSplit(
        tokens=torch.arange(100, 100 + sum(lengths)),
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        labels=torch.tensor([i % 2 for i in range(len(lengths))]),
        label_token_ids=torch.tensor([5, 6]),
        max_length=max_length,
        num_truncated=0,
    )


@given(st.data(), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_a_batch_holds_its_examples_padded_on_the_right(
    data: st.DataObject, lengths: list[int]
) -> None:
    split = split_of(lengths)
    indices = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    tokens, sizes, labels = split.batch(indices, pad_token_id=1)
    assert tokens.dtype == sizes.dtype == labels.dtype == torch.int64
    longest = max(lengths[i] for i in indices)
    assert tokens.shape == (len(indices), min(20, 8 * ((longest + 7) // 8)))
    assert sizes.tolist() == [lengths[i] for i in indices]
    assert labels.tolist() == [i % 2 for i in indices]
    for row, index in zip(tokens.tolist(), indices, strict=True):
        assert row[: lengths[index]] == rows(split)[index]
        assert set(row[lengths[index] :]) <= {1}


def test_examples_are_ordered_by_length_with_ties_as_they_stand() -> None:
    assert split_of([5, 3, 5, 1, 3]).order_by_length() == [3, 1, 4, 0, 2]
