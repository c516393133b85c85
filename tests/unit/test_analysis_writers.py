from __future__ import annotations

import pandas as pd
import pytest

from analysis import registry
from analysis.formats import (
    format_change,
    format_duration,
    format_level,
    format_loss,
    format_points,
    format_score,
)
from analysis.load import Study
from analysis.registry import Column, Table
from analysis.writers import to_csv, to_latex, to_markdown

TABLE = Table(
    pd.DataFrame({"arm": ["a_b", "c|d"], "loss": [0.5, float("nan")], "loss_sd": [0.01, 0.02]}),
    (Column("arm", "Arm"), Column("loss", "Loss, %", format_loss, True, spread="loss_sd")),
    note="Read it.",
)


def test_csv_holds_the_values_as_they_are() -> None:
    assert to_csv(TABLE) == "arm,loss,loss_sd\na_b,0.5,0.01\nc|d,,0.02\n"


def test_markdown_escapes_what_would_break_the_table() -> None:
    lines = to_markdown(TABLE, "Losses").splitlines()
    assert lines[2:6] == [
        "| Arm | Loss, % |",
        "| :--- | ---: |",
        r"| a\_b | 0.5000 ± 0.0100 |",
        r"| c\|d | – |",
    ]


def test_latex_uses_booktabs_and_escapes() -> None:
    text = to_latex(TABLE, "losses_all", "Losses & all")
    assert r"\caption{Losses \& all. Read it.}" in text
    assert r"\label{tab:losses-all}" in text
    assert r"Arm & Loss, \% \\" in text
    assert r"a\_b & 0.5000 $\pm$ 0.0100 \\" in text
    assert r"\toprule" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_level(1e-6), "1e-6"),
        (format_level(0.01), "0.01"),
        (format_change(-0.04), "−0.0400"),
        (format_change(-0.00001), "±0.0000"),
        (format_points(0.031), "+3.1"),
        (format_score(0.5), "50.0 %"),
        (format_loss(12345.6), "1.235e+04"),
        (format_duration(30), "30 s"),
        (format_duration(3600), "60.0 min"),
        (format_duration(36000), "10.0 h"),
        (format_loss(None), "–"),
    ],
)
def test_numbers_read_as_in_print(text: str, expected: str) -> None:
    assert text == expected


def test_a_spread_has_no_sign() -> None:
    column = Column("change", "Change", format_points, numeric=True, spread="sd")
    assert column.text({"change": 0.012, "sd": 0.0}) == "+1.2 ± 0.0"
    assert column.text({"change": 0.012, "sd": 0.004}) == "+1.2 ± 0.4"


def test_a_new_table_is_one_decorated_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TABLES", {})

    @registry.table("cost")
    def invented(study: Study) -> Table:
        """What it shows.

        More about it.
        """
        return TABLE

    assert registry.TABLES["invented"].caption == "What it shows"
    assert registry.TABLES["invented"].section == "cost"
    with pytest.raises(ValueError, match="invented: the name must be new"):
        registry.table("cost")(invented)


def test_an_unknown_section_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"section must be one of best, cells, .* got 'nowhere'"):
        registry.table("nowhere")(lambda study: None)
