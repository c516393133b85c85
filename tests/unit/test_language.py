from __future__ import annotations

import re
import string

import pytest

from analysis.language import LANGUAGES, load_language
from analysis.registry import SECTIONS

OTHERS = [code for code in LANGUAGES if code != "en"]


def fields_of(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("code", OTHERS)
def test_every_language_has_the_same_keys_and_fills_in_the_same_names(code: str) -> None:
    english, other = load_language("en").texts, load_language(code).texts
    assert list(english) == list(other)
    for key, text in english.items():
        assert fields_of(text) == fields_of(other[key]), key


@pytest.mark.parametrize("code", LANGUAGES)
def test_markup_is_closed_and_only_where_nothing_is_filled_in(code: str) -> None:
    for key, text in load_language(code).texts.items():
        if "<" in text:
            assert key.partition(".")[0] in ("about", "reading"), key
            assert not fields_of(text), key
        for tag in set(re.findall(r"<(\w+)>", text)):
            assert text.count(f"<{tag}>") == text.count(f"</{tag}>"), key


def test_every_section_has_a_heading_and_no_other_has() -> None:
    assert {*SECTIONS, "reading"} == set(load_language("en").section("sections"))


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="language must be one of en, ja, got 'xx'"):
        load_language("xx")
