"""A stand-in for OPT, made from a config with random weights: nothing is downloaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

from kerzoo.models.base import SIZES, ModelSource
from kerzoo.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>")  # ids 0, 1 and 2, as in OPT

_WORDS = """
the a an and or of to in is it was that this with for as on not but be are by at from has have had
film movie story plot character actor scene director comedy drama performance screen script audience
one two all more most so too very much just than into out up about its his her their they you we he
she who what which when where how there will would can could make makes made time life way work look
funny smart dull bold warm cold long short new old little big real true false first last never
great terrible good bad awful wonderful boring brilliant positive negative excellent poor nice fine
always okay neutral correct incorrect same different entailment contradiction yes no maybe Yes No
Maybe True False Question Answer Description Entity Expression Human Location Number The
It A An In That
"""
_PIECES = "ing ed er es ly ion ent al an in on at or en ar st re th ou ea it is ic le ch un com pre"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyOpt(ModelSource):
    """OPT's architecture at a size where a step takes milliseconds, for rehearsals and tests.

    The weights are drawn from a generator of their own, and are larger than a model's usual
    initial weights, so that training moves the loss within a few dozen steps. The tokenizer is
    OPT's kind (byte-level BPE with `</s>` in front), made from a short list of English words;
    each of them, with a space in front, is one token, the usual label words among them.

    Args:
        num_heads: Attention heads; divides hidden_size.
        num_positions: Longest input in tokens.
        init_std: Standard deviation of the weights.
        seed: Of the weights.

    Raises:
        ValueError: For sizes that do not fit each other, or if a path is set.
    """

    num_heads: int
    num_positions: int
    init_std: float
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None:
            raise ValueError(
                f"path must be null: {self.name} is made from its config, got {self.path!r}"
            )
        if self.num_heads < 1 or self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads must divide hidden_size {self.hidden_size}, got {self.num_heads}"
            )
        if self.num_positions < 1:
            raise ValueError(f"num_positions must be ≥ 1, got {self.num_positions}")
        if not self.init_std > 0:
            raise ValueError(f"init_std must be > 0, got {self.init_std}")

    def source_fingerprint(self) -> str:
        """Hash of sizes, seed and vocabulary."""
        labels = ("name", "dtype", "num_parameters", "path", *SIZES)
        sizes = {k: v for k, v in dataclasses.asdict(self).items() if k not in labels}
        identity = json.dumps([sizes, _WORDS, _PIECES], sort_keys=True)
        return f"tiny-opt@sha256:{hashlib.sha256(identity.encode()).hexdigest()}"

    def check_source(self) -> None:
        """Always available."""

    def load_source(self, progress: Progress) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Made on the CPU; the global random state stays as it was."""
        import torch
        from transformers import OPTConfig, OPTForCausalLM

        tokenizer = _make_tokenizer()
        config = OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            word_embed_proj_dim=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            ffn_dim=4 * self.hidden_size,
            max_position_embeddings=self.num_positions,
            init_std=self.init_std,
            dropout=0.0,
            attention_dropout=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            model = OPTForCausalLM(config)
        return model.to(getattr(torch, self.dtype)), tokenizer


def _make_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE whose merges spell each word of the list from its first letter on.

    A listed word becomes one token whatever else is listed: no earlier merge than its own applies
    to it. The pieces, which come last, shorten all other words.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    bytes_apart = pre_tokenizers.ByteLevel(add_prefix_space=False)
    space = bytes_apart.pre_tokenize_str(" ")[0][0]
    spellings = [*(space + word for word in _WORDS.split()), *_PIECES.split()]
    merges = list(dict.fromkeys((s[:i], s[i]) for s in spellings for i in range(1, len(s))))
    tokens = [*_SPECIAL_TOKENS, *sorted(bytes_apart.alphabet()), *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = bytes_apart
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    wrap: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerBase = wrap(
        tokenizer_object=tokenizer,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
    )
    return wrapped
