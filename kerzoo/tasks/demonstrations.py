"""Demonstrations for in-context learning: solved examples in front of every prompt.

As in MeZO's protocol a demonstration is a prompt with its right continuation, stripped, and
demonstrations and the prompt are joined by an empty line. Where they do not fit the context
window, MeZO cuts tokens on the left; here that is refused, or whole demonstrations are left out.

Source: Malladi et al. 2023, arXiv 2305.17333, large_models/utils.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from kerzoo.tasks.encoding import encode, tokens_in_front

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Fit = Literal["refuse", "cut"]
FITS: tuple[Fit, ...] = ("refuse", "cut")
SEPARATOR = "\n\n"


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """Solved examples, and how much room they have.

    Attributes:
        texts: Verbalised and stripped, k of them.
        window: Tokens of a whole input: prompt, continuation, and what is in front of them.
        fit: "refuse" what does not fit, or "cut" whole demonstrations, the first ones first.
    """

    texts: tuple[str, ...]
    window: int
    fit: Fit

    def in_front_of(self, prompts: Sequence[str], left_out: Sequence[int]) -> list[str]:
        """Prompts behind their demonstrations.

        Args:
            prompts: N of them.
            left_out: How many of the first demonstrations each goes without. Length: N.
        """
        return [
            SEPARATOR.join([*self.texts[n:], prompt])
            for prompt, n in zip(prompts, left_out, strict=True)
        ]

    def count_left_out(
        self, tokenizer: PreTrainedTokenizerBase, inputs: Sequence[str], reserved: int = 0
    ) -> list[int]:
        """How many demonstrations each input has no room for.

        Args:
            tokenizer: The model's tokenizer.
            inputs: Prompts with their longest continuation, N of them.
            reserved: Tokens that are kept free.

        Returns:
            Length: N; zeros unless fit is "cut".

        Raises:
            ValueError: If some do not fit and fit is "refuse".
        """
        room = self.window - reserved - len(tokens_in_front(tokenizer))
        counts = [0] * len(inputs)
        waiting = list(range(len(inputs)))
        while waiting:
            chosen = self.in_front_of([inputs[i] for i in waiting], [counts[i] for i in waiting])
            lengths = list(map(len, encode(tokenizer, chosen)))
            if self.fit == "refuse" and max(lengths) > room:
                raise ValueError(
                    f"method.num_demonstrations: with {len(self.texts)} of them "
                    f"{sum(length > room for length in lengths)} of {len(inputs)} examples do not "
                    f"fit the {self.window} tokens that task.max_length and the model's positions "
                    f"allow (the longest lacks {max(lengths) - room}); raise task.max_length, ask "
                    "for fewer, or set method.fit=cut to leave out whole demonstrations"
                )
            long = [i for i, n in zip(waiting, lengths, strict=True) if n > room]
            waiting = [i for i in long if counts[i] < len(self.texts)]
            for i in waiting:
                counts[i] += 1
        return counts
