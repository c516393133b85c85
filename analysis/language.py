"""The report's words in several languages: one file of texts each, `languages/CODE.toml`."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import pandas as pd
from markupsafe import Markup

from analysis.formats import format_duration
from analysis.selection import STATUS_ORDER
from analysis.sources.base import flatten

LANGUAGES = ("en", "ja")


@dataclasses.dataclass(frozen=True)
class Language:
    """The texts of one language.

    Attributes:
        code: As in `<html lang>`.
        texts: Dotted key → text, with `{names}` for what is filled in.
    """

    code: str
    texts: Mapping[str, str]

    def say(self, key: str, **values: Any) -> str:
        """A text with its values filled in."""
        return self.texts[key].format(**values)

    def mark_up(self, key: str) -> Markup:
        """A text that is markup; nothing is filled in, so that nothing can slip in."""
        return Markup(self.texts[key])

    def duration(self, seconds: float) -> str:
        """A duration in the unit that suits it."""
        number, _, unit = format_duration(seconds).partition(" ")
        return f"{number} {self.say(f'unit.{unit}')}" if unit else number

    def statuses(self, trials: pd.DataFrame) -> str:
        """3 finished, 9 stopped."""
        counts = trials["status"].value_counts()
        known = [status for status in STATUS_ORDER if status in counts.index]
        shown = [self.say(f"status.{status}", count=counts[status]) for status in known]
        others = sorted(set(counts.index) - set(known))
        return self.joint.join([*shown, *(f"{counts[status]} {status}" for status in others)])

    @property
    def joint(self) -> str:
        """What stands between the parts of a list."""
        return "、" if self.code == "ja" else ", "

    def section(self, name: str) -> dict[str, str]:
        """The texts of a section, by the rest of their keys."""
        prefix = f"{name}."
        return {k.removeprefix(prefix): v for k, v in self.texts.items() if k.startswith(prefix)}


@functools.cache
def load_language(code: str) -> Language:
    """The texts of a language.

    Raises:
        ValueError: If there are none.
    """
    if code not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, got {code!r}")
    content = (resources.files("analysis") / "languages" / f"{code}.toml").read_text("utf-8")
    texts = {key: str(text).strip() for key, text in flatten(tomllib.loads(content)).items()}
    return Language(code, texts)
