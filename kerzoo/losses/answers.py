"""Generated answers: greedy decoding, and the F1 and exact match of what is written.

Source: Rajpurkar et al. 2016, "SQuAD", arXiv 1606.05250.
"""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Sequence
from typing import Any

import torch

from kerzoo.losses.continuations import ContinuationLoss
from kerzoo.losses.heads import SequenceRunner
from kerzoo.tasks import ContinuationSplit
from kerzoo.tasks.base import Objective
from kerzoo.tasks.encoding import encode

_ARTICLES = re.compile(r"\b(a|an|the)\b")


class AnswerLoss(ContinuationLoss):
    """Trained as a language model, or on 1 − F1 of the generated answers.

    Args:
        runner: As for `SplitLoss`.
        split: With answers and prompts.
        objective: "language_model" or "f1".
        max_new_tokens: Longest generated answer.
    """

    def __init__(
        self,
        runner: SequenceRunner,
        split: ContinuationSplit,
        objective: Objective,
        max_new_tokens: int,
    ) -> None:
        super().__init__(runner, split, objective)
        self.max_new_tokens = max_new_tokens

    def tensor_loss(self, indices: Sequence[int]) -> torch.Tensor:
        """The contract's; F1 is that of generated answers."""
        if self.objective == "f1":
            return 1.0 - torch.tensor(self.f1(indices)).mean()
        return super().tensor_loss(indices)

    def f1(self, indices: Sequence[int]) -> list[float]:
        """F1 of each example's generated answer: the best over its acceptable answers."""
        written = self.generate(indices)
        return [
            best_f1(text, self.split.answers[i]) for i, text in zip(indices, written, strict=True)
        ]

    @torch.inference_mode()
    def generate(self, indices: Sequence[int]) -> list[str]:
        """Greedy answers, up to a line break or the end of text, stripped."""
        loaded, prompts = self.runner.loaded, self.split.prompts
        assert prompts is not None
        tokenizer, model = loaded.tokenizer, loaded.model
        generate: Any = model.generate
        (line_break,) = (ids[-1] for ids in encode(tokenizer, ["\n"]))
        stops = [line_break]
        if tokenizer.eos_token_id is not None:
            stops.append(int(tokenizer.eos_token_id))
        texts: dict[int, str] = {}
        size = 8
        ordered = prompts.order_by_length(indices)
        for start in range(0, len(ordered), size):
            group = ordered[start : start + size]
            tokens, lengths = prompts.batch(group, loaded.pad_token_id)
            width = int(lengths.max())
            # Generation continues at the right end, so that here the padding is on the left.
            rolled = torch.stack(
                [
                    row[:width].roll(width - length)
                    for row, length in zip(tokens, lengths.tolist(), strict=True)
                ]
            )
            mask = torch.arange(width) >= (width - lengths)[:, None]
            written = generate(
                input_ids=rolled.to(model.device),
                attention_mask=mask.long().to(model.device),
                do_sample=False,
                max_new_tokens=self.max_new_tokens,
                eos_token_id=stops,
                pad_token_id=loaded.pad_token_id,
                use_cache=True,
            )
            decoded = tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
            texts |= zip(group, (text.strip() for text in decoded), strict=True)
        return [texts[index] for index in indices]


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous space.

    >>> normalise("The  Eiffel tower!")
    'eiffel tower'
    """
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def best_f1(text: str, answers: Sequence[str]) -> float:
    """The best F1 of shared words between a text and one of the answers.

    >>> best_f1("the Eiffel tower", ["Eiffel"])
    0.6666666666666666
    """
    return max(_f1(normalise(text).split(), normalise(answer).split()) for answer in answers)


def exact_match(text: str, answers: Sequence[str]) -> bool:
    """Whether the text is one of the answers, once both are normalised."""
    return any(normalise(text) == normalise(answer) for answer in answers)


def _f1(written: list[str], expected: list[str]) -> float:
    if not written or not expected:
        return float(written == expected)
    shared = sum((collections.Counter(written) & collections.Counter(expected)).values())
    return 2.0 * shared / (len(written) + len(expected))
