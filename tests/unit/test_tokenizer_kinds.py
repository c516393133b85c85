"""Prompts and label words with tokenizers of each kind that models bring along, made here."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from kerzoo.tasks import encoding

WORDS = (" terrible", " great")
ANSWERS = ("Yes", "No")
AFTER_A_WORD = "good film It was"
AFTER_A_LINE_BREAK = "good film\nYes or No?\n"
_SPELLED = ["terrible", "great", "Yes", "No", "good", "film", "It", "was", "or"]
_GPT4_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def template(single: str, vocabulary: dict[str, int]) -> Any:
    special = [(token, vocabulary[token]) for token in single.split() if token != "$A"]
    return processors.TemplateProcessing(single=single, special_tokens=special)


def wrap(tokenizer: Tokenizer, **roles: Any) -> Any:
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=tokenizer, **roles)


def byte_level(single: str, split: str | None = None, prefix: bool = False, **roles: Any) -> Any:
    """Byte-level BPE as in GPT-2, OPT, RoBERTa and, with another split, in Llama 3 and Qwen2."""
    apart = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=split is None)
    spellings = [start + word for start in ("Ġ", "") for word in _SPELLED] + ["?Ċ"]
    merges = list(dict.fromkeys((s[:i], s[i]) for s in spellings for i in range(1, len(s))))
    tokens = ["<s>", "<pad>", "</s>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {t: i for i, t in enumerate([*tokens, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = (
        apart
        if split is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), apart])
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = template(single, vocabulary)
    return wrap(tokenizer, **roles)


def sentence_piece_bpe(single: str, legacy: bool, **roles: Any) -> Any:
    """BPE over whole texts with bytes to fall back on, as in Llama 2 and Mistral."""
    characters = sorted(set("".join(_SPELLED)) | set("▁?"))
    spellings = [start + word for start in ("▁", "") for word in _SPELLED]
    merges = list(dict.fromkeys((s[:i], s[i]) for s in spellings for i in range(1, len(s))))
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *characters, *map("".join, merges)]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    if legacy:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = template(single, vocabulary)
    return wrap(tokenizer, unk_token="<unk>", **roles)


def sentence_piece_unigram(single: str, **roles: Any) -> Any:
    """Unigram over words that begin with ▁, with all spaces made one, as in T5 and XLM-R."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in _SPELLED]
    pieces += [(letter, -9.0) for letter in sorted(set("".join(_SPELLED)) | {"?"})]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = template(single, {piece: i for i, (piece, _) in enumerate(pieces)})
    return wrap(tokenizer, unk_token="<unk>", **roles)


MASK = AddedToken("<mask>", lstrip=True, special=True)
KINDS: dict[str, tuple[Any, list[str], list[str]]] = {
    "GPT-2: nothing in front, no padding": (
        lambda: byte_level("$A", eos_token="</s>"),
        [],
        [],
    ),
    "OPT: a beginning that is the end": (
        lambda: byte_level("</s> $A", bos_token="</s>", eos_token="</s>", pad_token="<pad>"),
        ["</s>"],
        [],
    ),
    "RoBERTa: a beginning and an appended end": (
        lambda: byte_level("<s> $A </s>", bos_token="<s>", eos_token="</s>", mask_token=MASK),
        ["<s>"],
        ["</s>"],
    ),
    "RoBERTa with a space put in front": (
        lambda: byte_level("<s> $A </s>", prefix=True, bos_token="<s>", eos_token="</s>"),
        ["<s>"],
        ["</s>"],
    ),
    "Llama 3: line breaks belong to what precedes": (
        lambda: byte_level("<s> $A", split=_GPT4_SPLIT, bos_token="<s>", eos_token="</s>"),
        ["<s>"],
        [],
    ),
    "Qwen2: the same without a beginning": (
        lambda: byte_level("$A", split=_GPT4_SPLIT, eos_token="</s>", pad_token="<pad>"),
        [],
        [],
    ),
    "Llama 2": (
        lambda: sentence_piece_bpe("<s> $A", legacy=True, bos_token="<s>", eos_token="</s>"),
        ["<s>"],
        [],
    ),
    "Llama 2 with an appended end": (
        lambda: sentence_piece_bpe("<s> $A </s>", legacy=True, bos_token="<s>", eos_token="</s>"),
        ["<s>"],
        ["</s>"],
    ),
    "Mistral": (
        lambda: sentence_piece_bpe("<s> $A", legacy=False, bos_token="<s>", eos_token="</s>"),
        ["<s>"],
        [],
    ),
    "T5: an appended end alone": (
        lambda: sentence_piece_unigram("$A </s>", eos_token="</s>", pad_token="<pad>"),
        [],
        ["</s>"],
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Any, list[str], list[str]]:
    make, front, behind = KINDS[request.param]
    return make(), front, behind


def encode(
    tokenizer: Any, prompt: str, words: tuple[str, ...], max_length: int = 64
) -> tuple[list[str], list[str]]:
    """Tokens of a prompt with what stands in front, and of its label words."""
    encoded = encoding.encode(tokenizer, [prompt])
    sequences = encoding.encode_sequences(tokenizer, encoded, max_length)
    answers = encoding.single_tokens(tokenizer, prompt, words)
    assert answers is not None
    pieces = tokenizer.convert_ids_to_tokens
    return pieces(sequences.tokens.tolist()), pieces(answers)


def bare(tokenizer: Any, prompt: str) -> list[str]:
    pieces: list[str] = tokenizer.convert_ids_to_tokens(
        tokenizer(prompt, add_special_tokens=False)["input_ids"]
    )
    return pieces


@pytest.mark.parametrize("prompt", [AFTER_A_WORD, AFTER_A_LINE_BREAK])
def test_label_words_with_a_space_in_front_are_single_tokens_after_a_word_and_a_line_break(
    kind: tuple[Any, list[str], list[str]], prompt: str
) -> None:
    tokenizer, front, _ = kind
    tokens, labels = encode(tokenizer, prompt, WORDS)
    assert tokens == [*front, *bare(tokenizer, prompt)]
    assert [label[1:] for label in labels] == [word[1:] for word in WORDS]
    assert {label[0] for label in labels} <= {"Ġ", "▁"}


def test_what_a_tokenizer_adds_itself_is_found_in_front_and_behind(
    kind: tuple[Any, list[str], list[str]],
) -> None:
    tokenizer, front, behind = kind
    whole = tokenizer.convert_ids_to_tokens(tokenizer(AFTER_A_WORD)["input_ids"])
    assert whole == [*front, *bare(tokenizer, AFTER_A_WORD), *behind]


def test_answers_without_a_space_are_single_tokens_after_a_line_break(
    kind: tuple[Any, list[str], list[str]],
) -> None:
    tokenizer, front, _ = kind
    tokens, labels = encode(tokenizer, AFTER_A_LINE_BREAK, ANSWERS)
    assert tokens == [*front, *bare(tokenizer, AFTER_A_LINE_BREAK)]
    assert [label.lstrip("▁") for label in labels] == list(ANSWERS)


def test_a_cut_prompt_keeps_what_stands_in_front_and_its_end(
    kind: tuple[Any, list[str], list[str]],
) -> None:
    tokenizer, front, _ = kind
    tokens, _ = encode(tokenizer, AFTER_A_WORD, WORDS, max_length=len(front) + 2)
    assert tokens == [*front, *bare(tokenizer, AFTER_A_WORD)[-2:]]
