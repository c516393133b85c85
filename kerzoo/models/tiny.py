"""Stand-ins made from a config with random weights: nothing is downloaded."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, ClassVar

from kerzoo.models.base import SIZES, ModelSource
from kerzoo.models.placement import check_visible, spread
from kerzoo.models.vocabulary import VOCABULARY, make_opt_tokenizer, make_roberta_tokenizer
from kerzoo.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyModel(ModelSource):
    """An architecture at a size where a step takes milliseconds, for rehearsals and tests.

    The weights are drawn from a generator of their own, and are larger than a model's usual
    initial weights, so that training moves the loss within a few dozen steps. The tokenizer is of
    the architecture's kind, made from a short list of English words; each of them, with a space
    in front, is one token, the label words of the shipped tasks among them.

    Args:
        num_heads: Attention heads; divides hidden_size.
        num_positions: Longest input in tokens.
        init_std: Standard deviation of the weights.
        seed: Of the weights.

    Attributes:
        kind: In front of the fingerprint.

    Raises:
        ValueError: For sizes that do not fit each other, or if a path is set.
    """

    kind: ClassVar[str]
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
        identity = json.dumps([sizes, VOCABULARY], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return f"{self.kind}@sha256:{digest}"

    def check_source(self) -> None:
        """Always available."""

    def load_source(
        self, progress: Progress, num_devices: int
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Made on the CPU; the global random state stays as it was."""
        import torch

        if num_devices > 1:
            check_visible(num_devices)
        tokenizer = self.make_tokenizer()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            model = self.make_model(tokenizer)
        model = model.to(getattr(torch, self.dtype))
        if num_devices > 1:
            spread(model, [f"cuda:{index}" for index in range(num_devices)])
        return model, tokenizer

    @abc.abstractmethod
    def make_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, from the list of words."""

    @abc.abstractmethod
    def make_model(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The model, whose weights the global generator draws."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyOpt(TinyModel):
    """OPT: a causal language model whose texts begin with `</s>`."""

    kind = "tiny-opt"

    def make_tokenizer(self) -> PreTrainedTokenizerBase:
        """Byte-level BPE with `</s>` in front."""
        return make_opt_tokenizer()

    def make_model(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """OPT without dropout."""
        from transformers import OPTConfig, OPTForCausalLM

        return OPTForCausalLM(
            OPTConfig(
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
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyRoberta(TinyModel):
    """RoBERTa: a masked language model whose texts stand between `<s>` and `</s>`."""

    kind = "tiny-roberta"

    def make_tokenizer(self) -> PreTrainedTokenizerBase:
        """Byte-level BPE with `<s>` in front and `</s>` behind, and a `<mask>`."""
        return make_roberta_tokenizer()

    def make_model(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """RoBERTa without dropout; its positions are counted from the padding's id + 1 on."""
        from transformers import RobertaConfig, RobertaForMaskedLM

        padding = tokenizer.pad_token_id
        assert isinstance(padding, int)
        return RobertaForMaskedLM(
            RobertaConfig(
                vocab_size=len(tokenizer),
                hidden_size=self.hidden_size,
                num_hidden_layers=self.num_layers,
                num_attention_heads=self.num_heads,
                intermediate_size=4 * self.hidden_size,
                max_position_embeddings=self.num_positions + padding + 1,
                type_vocab_size=1,
                initializer_range=self.init_std,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=padding,
            )
        )
