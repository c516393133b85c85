"""The first page does not hide what no kernel is needed for."""

from __future__ import annotations

import math

import pytest

from analysis.alternatives import describe_alternatives
from analysis.decision import Decision
from analysis.language import load_language
from analysis.standings import Estimate, Group, Standing


def standing(arm: str, dev_loss: float, trains: bool = True) -> Standing:
    return Standing(
        arm=arm,
        is_baseline=arm == "mezo",
        is_kernel=arm in ("mezo", "legendre2"),
        trains=trains,
        settings=(0,),
        tasks=1,
        seeds=1,
        split="dev",
        dev_loss=dev_loss,
        start_loss=0.7,
        last_loss=dev_loss,
        passes=144.0,
        budget=144.0,
        score=Estimate(0.5),
        seconds=Estimate(1.0),
        target_seconds=Estimate(math.nan),
        memory_gib=1.5,
        reached=0,
        runs=1,
    )


def tell(*others: Standing) -> list[str]:
    group = Group("s", "screen", "m", "lora", (standing("mezo", 0.6), *others))
    return describe_alternatives(Decision(group, "leads", "mezo"), "accuracy", load_language("en"))


def test_a_stronger_method_without_a_kernel_is_named_with_its_memory() -> None:
    (sentence,) = tell(standing("adamw", 0.3), standing("sgd", 0.4), standing("legendre2", 0.2))
    assert sentence.startswith("adamw has no kernel and ends lower still: dev loss 0.3000")
    assert "1.50 GiB" in sentence


def test_an_untouched_model_that_is_not_beaten_is_named() -> None:
    (sentence,) = tell(standing("zero_shot", 0.6, trains=False))
    assert sentence.startswith("mezo does not beat zero_shot, which trains nothing")


@pytest.mark.parametrize(
    "others", [(), (standing("adamw", 0.7), standing("zero_shot", 0.7, False))]
)
def test_what_is_worse_is_not_told(others: tuple[Standing, ...]) -> None:
    assert tell(*others) == []


def test_where_nothing_is_recommended_there_is_no_alternative() -> None:
    nothing = Decision(Group("", "", "", "", ()), "nothing")
    assert describe_alternatives(nothing, "accuracy", load_language("en")) == []
