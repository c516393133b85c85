"""Tokenizers of the stand-ins, made from a short list of English words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORDS = """
the a an and or of to in is it was that this with for as on not but be are by at from has have had
film movie story plot character actor scene director comedy drama performance screen script audience
one two all more most so too very much just than into out up about its his her their they you we he
she who what which when where how there will would can could make makes made time life way work look
funny smart dull bold warm cold long short new old little big real true false first last never
great terrible good bad awful wonderful boring brilliant positive negative excellent poor nice fine
always okay neutral correct incorrect same different entailment contradiction yes no maybe Yes No
Maybe True False Question Answer Description Entity Expression Human Location Number The
It A An In That Abbreviation subjective objective does Does mean question answer passage sentence
"""
_WORDS_AFTER_A_LINE_BREAK = "Yes No Maybe True False Question Answer"
_PIECES = "ing ed er es ly ion ent al an in on at or en ar st re th ou ea it is ic le ch un com pre"

VOCABULARY = (_WORDS, _WORDS_AFTER_A_LINE_BREAK, _PIECES)
"""What the vocabulary is made of."""


def make_opt_tokenizer() -> PreTrainedTokenizerBase:
    """OPT's kind: `</s>` is the beginning, the end and the unknown; ids 0, 1 and 2 as in OPT."""
    return _make_tokenizer(
        first=("<s>", "<pad>", "</s>"),
        last=(),
        single="</s> $A",
        pair="</s> $A </s> $B",
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
    )


def make_roberta_tokenizer() -> PreTrainedTokenizerBase:
    """RoBERTa's kind: `<mask>` takes the space in front of it; ids 0 … 3 as in RoBERTa."""
    from tokenizers import AddedToken

    return _make_tokenizer(
        first=("<s>", "<pad>", "</s>", "<unk>"),
        last=("<mask>",),
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
    )


def _make_tokenizer(
    first: Sequence[str], last: Sequence[str], single: str, pair: str, **special_tokens: Any
) -> PreTrainedTokenizerBase:
    """Byte-level BPE whose merges spell each word of the list from its first letter on.

    A listed word becomes one token whatever else is listed: no earlier merge than its own applies
    to it. Words without a space in front, and the pieces, come after those with one; the pieces
    shorten all other words.

    Args:
        first: Special tokens in front of the vocabulary.
        last: Special tokens behind it.
        single: Template of a text.
        pair: Template of two texts.
        special_tokens: Their roles.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    bytes_apart = pre_tokenizers.ByteLevel(add_prefix_space=False)
    space = bytes_apart.pre_tokenize_str(" ")[0][0]
    spellings = [space + word for word in _WORDS.split()]
    spellings += [*_WORDS_AFTER_A_LINE_BREAK.split(), *_PIECES.split()]
    merges = list(dict.fromkeys((s[:i], s[i]) for s in spellings for i in range(1, len(s))))
    tokens = [*first, *sorted(bytes_apart.alphabet()), *map("".join, merges), *last]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = bytes_apart
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(token, vocabulary[token]) for token in first],
    )
    wrap: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerBase = wrap(tokenizer_object=tokenizer, **special_tokens)
    return wrapped
