"""Encoding: what the model sees of an example, and how sequences stand side by side in a batch."""

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
from kerzoo.tasks import (
    ClassificationTask,
    ContinuationSplit,
    EncodedSplit,
    Example,
    ExampleSource,
    GenerationTask,
    LabelWordSplit,
    MultipleChoiceTask,
    Sequences,
)
from kerzoo.tasks.sources import Pool

TEXTS = ("good", "an unbelievably long comedy", "the plot was dull")
WORDS = (" terrible", " great")
SIZES = {"num_train": 3, "num_dev": 0, "num_test": 0}


@dataclasses.dataclass(frozen=True)
class Given(ExampleSource):
    """Examples that a test names, in their order."""

    pool: tuple[Example, ...]
    num_labels: int | None = 2

    fields = ("text",)

    def check_available(self, data_dir: str | None, pool: str) -> None:
        """Always."""

    def fingerprint(self, data_dir: str | None) -> str:
        """Of no use here."""
        return "given"

    def read_pool(self, data_dir: str | None, pool: str) -> Pool:
        """The same for both pools."""
        return Pool(self.pool, {})


TEXT_POOL = tuple(
    Example({"text": text}, label) for text, label in zip(TEXTS, (1, 0, 0), strict=True)
)


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


def encode(
    tokenizer: Any, label_words: Sequence[str] = WORDS, max_length: int = 64, **changes: Any
) -> EncodedSplit:
    task = ClassificationTask(
        name="given",
        source=Given(TEXT_POOL),
        prompt="{text} It was",
        label_words=tuple(label_words),
        max_length=max_length,
        **SIZES | changes,
    )
    return task.encode(tokenizer, "train")


def words_of(tokenizer: Any, **options: Any) -> LabelWordSplit:
    split = encode(tokenizer, **options)
    assert isinstance(split, LabelWordSplit)
    return split


def rows(sequences: Sequences) -> list[list[int]]:
    bounds = sequences.offsets.tolist()
    return [sequences.tokens[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def test_a_row_is_the_prompt_from_the_beginning_of_text_to_the_label_position(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    split = words_of(tokenizer)
    seen = sorted(tokenizer.decode(row) for row in rows(split.sequences))
    assert seen == sorted(f"</s>{text} It was" for text in TEXTS)
    assert split.positions.tolist() == [len(row) - 1 for row in rows(split.sequences)]
    assert sorted(split.labels.tolist()) == [0, 0, 1]
    assert tokenizer.decode(split.label_token_ids) == " terrible great"
    assert (len(split), split.sequences.num_truncated) == (3, 0)


def test_a_long_prompt_loses_its_beginning_and_keeps_its_question(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    whole = rows(words_of(tokenizer).sequences)
    sequences = words_of(tokenizer, max_length=8).sequences
    assert sequences.num_truncated == sum(len(row) > 8 for row in whole) == 1
    for row, cut in zip(whole, rows(sequences), strict=True):
        assert cut == (row if len(row) <= 8 else [row[0], *row[-7:]])


def test_a_tokenizer_without_special_tokens_adds_none(tokenizer: PreTrainedTokenizerBase) -> None:
    def plain(texts: Any, add_special_tokens: bool = True, **options: Any) -> Any:
        return tokenizer(texts, add_special_tokens=False, **options)

    bare = rows(words_of(plain).sequences)
    assert [[2, *row] for row in bare] == rows(words_of(tokenizer).sequences)


def test_tokens_that_a_tokenizer_appends_do_not_stand_before_the_label(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    def closing(texts: Any, add_special_tokens: bool = True, **options: Any) -> Any:
        encoding = tokenizer(texts, add_special_tokens=add_special_tokens, **options)
        return {"input_ids": [*encoding["input_ids"], 2]} if add_special_tokens else encoding

    assert rows(words_of(closing).sequences) == rows(words_of(tokenizer).sequences)


def test_a_label_word_of_several_tokens_makes_every_label_word_a_continuation(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    split = encode(tokenizer, label_words=(" unpleasant", " great"))
    assert isinstance(split, ContinuationSplit)
    texts = [tokenizer.decode(row) for row in rows(split.sequences)]
    assert all(text.endswith((" It was unpleasant", " It was great")) for text in texts)
    assert len(texts) == 6
    for sequence, length in enumerate(split.continuation_lengths.tolist()):
        tail = tokenizer.decode(rows(split.sequences)[sequence][-length:])
        assert tail == (" unpleasant", " great")[sequence % 2]


def test_label_words_of_one_token_between_them_are_refused() -> None:
    def unknown(texts: Any, **options: Any) -> Any:
        if isinstance(texts, str):
            return {"input_ids": [7]}
        return {"input_ids": [[7] * len(text.split()) for text in texts]}

    with pytest.raises(ValueError, match="' terrible' and ' great' are the same token"):
        encode(unknown)


def test_a_choice_is_a_sequence_for_each_of_an_examples_own_candidates(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    pool = (
        Example({"text": "the film"}, 1, (" was dull", " was very good")),
        Example({"text": "a plot"}, 0, (" is long", " is short", " is bad"), also_right=(2,)),
    )
    task = MultipleChoiceTask(
        name="choice", source=Given(pool, None), prompt="{text}", **SIZES | {"num_train": 2}
    )
    split = task.encode(tokenizer, "train")
    for example in range(2):
        own = split.sequences_of(example)
        texts = [tokenizer.decode(rows(split.sequences)[s]) for s in own]
        if len(own) == 2:
            assert texts == ["</s>the film was dull", "</s>the film was very good"]
            assert [split.is_right(example, c) for c in range(2)] == [False, True]
        else:
            assert texts[1] == "</s>a plot is short"
            assert [split.is_right(example, c) for c in range(3)] == [True, False, True]


def test_a_long_choice_is_cut_on_the_left_and_its_continuation_stays_whole(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    pool = (Example({"text": "so long " * 40}, 0, (" was dull", " was very good")),)
    task = MultipleChoiceTask(
        name="choice",
        source=Given(pool, None),
        prompt="{text}the film",
        max_length=16,
        **SIZES | {"num_train": 1},
    )
    split = task.encode(tokenizer, "train")
    assert split.sequences.lengths == [16, 16]
    assert split.sequences.num_truncated == 2
    first, second = (tokenizer.decode(row) for row in rows(split.sequences))
    assert first.endswith("the film was dull")
    assert second.endswith("the film was very good")
    with pytest.raises(ValueError, match=r"task\.max_length must leave room for a prompt"):
        dataclasses.replace(
            task,
            max_length=8,
            source=Given((Example({"text": "so"}, 0, (" was dull" * 8, " was")),), None),
        ).encode(tokenizer, "train")


def test_a_generated_answer_is_trained_with_its_line_break_and_prompted_without_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    pool = (Example({"text": "the film"}, answers=("great", "good")),)
    task = GenerationTask(
        name="answers",
        source=Given(pool, None),
        prompt="{text}\nAnswer:",
        max_new_tokens=4,
        max_length=32,
        **SIZES | {"num_train": 1},
    )
    split = task.encode(tokenizer, "train")
    assert split.prompts is not None
    assert tokenizer.decode(rows(split.sequences)[0]) == "</s>the film\nAnswer: great\n"
    assert tokenizer.decode(rows(split.prompts)[0]) == "</s>the film\nAnswer:"
    length = int(split.continuation_lengths[0])
    assert tokenizer.decode(rows(split.sequences)[0][-length:]) == " great\n"
    assert split.answers == (("great", "good"),)


def sequences_of(lengths: list[int], max_length: int = 20) -> Sequences:
    return Sequences(
        tokens=torch.arange(100, 100 + sum(lengths)),
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        max_length=max_length,
        num_truncated=0,
    )


def test_sequences_have_one_fingerprint_when_they_have_the_same_tokens(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    sequences = words_of(tokenizer).sequences
    assert words_of(tokenizer).sequences.fingerprint == sequences.fingerprint
    others = (
        dataclasses.replace(sequences, tokens=sequences.tokens.flip(0)),
        dataclasses.replace(sequences, offsets=sequences.offsets + torch.tensor([0, 1, 0, 0])),
    )
    assert len({s.fingerprint for s in (sequences, *others)}) == 3


@given(st.data(), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_a_batch_holds_its_sequences_padded_on_the_right(
    data: st.DataObject, lengths: list[int]
) -> None:
    sequences = sequences_of(lengths)
    indices = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    tokens, sizes = sequences.batch(indices, pad_token_id=1)
    assert tokens.dtype == sizes.dtype == torch.int64
    longest = max(lengths[i] for i in indices)
    assert tokens.shape == (len(indices), min(20, 8 * ((longest + 7) // 8)))
    assert sizes.tolist() == [lengths[i] for i in indices]
    for row, index in zip(tokens.tolist(), indices, strict=True):
        assert row[: lengths[index]] == rows(sequences)[index]
        assert set(row[lengths[index] :]) <= {1}


def test_sequences_are_ordered_by_length_with_ties_as_they_stand() -> None:
    sequences = sequences_of([5, 3, 5, 1, 3])
    assert sequences.order_by_length() == [3, 1, 4, 0, 2]
    assert sequences.order_by_length([4, 2, 1, 0]) == [4, 1, 2, 0]
