"""What the printed plan says of kernels and other parts inside one arm."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sweeps.plan import make_plan, warn_of_parts
from sweeps.tables import print_plan

BASE = ("+sweep=quickstart", "model=opt-tiny")
ONE_RATE = "training.learning_rate:[1e-2]"


def warned(*overrides: str) -> str:
    """The one warning of a plan, or nothing."""
    warnings = warn_of_parts(make_plan([*BASE, *overrides], ""))
    assert len(warnings) < 2
    return "".join(warnings)


def test_kernels_swept_inside_one_arm_are_warned_of_with_the_arms_to_write() -> None:
    plan = make_plan([*BASE, "+space={kernel:[legendre2,legendre4]}", "~space.arm"], "")
    console = Console(file=io.StringIO(), width=160, highlight=False)
    print_plan(plan, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("warning: ") == 1
    assert "kernel: [legendre2, legendre4] is swept inside the arm mezo" in text
    assert "Write arm: [legendre2, legendre4] in the space instead" in text
    row = next(line for line in text.splitlines() if line.startswith(" mezo"))
    assert "legendre2, legendre4   2, 4" in row


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("kernel:[constant,legendre2]", "Write arm: [mezo, legendre2] in the space instead"),
        ("kernel:[legendre2,semicircle6]", "Write an arm for each: a file in conf/arm"),
        ("bandwidth:[full,linear]", "bandwidth: [full, linear] is swept inside the arm legendre2"),
        ("kernel.order:[2,4]", "kernel.order: [2, 4] is swept inside the arm legendre2"),
    ],
)
def test_parts_swept_inside_one_arm_are_warned_of(space: str, told: str) -> None:
    assert told in warned(f"+space={{arm:[legendre2],{space},{ONE_RATE}}}", "baseline=legendre2")


@pytest.mark.parametrize(
    "override",
    [
        "space={arm:[mezo,legendre2]}",
        "+space={bandwidth:[full,linear]}",
        "+space={learning_rate_schedule:[linear]}",
        "bandwidth=half",
    ],
)
def test_a_comparison_of_arms_is_not_warned_of(override: str) -> None:
    assert warned(override) == ""


def test_a_kernel_that_is_not_the_arms_own_is_told() -> None:
    told = warned("kernel=legendre8")
    assert "kernel=legendre8 replaces the kernel of the arms kerzoo_paper, legendre2, mezo" in told
    assert told.endswith("Write arm: [mezo, legendre8] in the space instead")
    assert warned("arm=legendre2", "baseline=legendre2", "kernel=legendre2") == ""
    told = warned("arm=legendre2", "baseline=legendre2", "kernel.order=6")
    assert "kernel.order=6 replaces the kernel of the arm legendre2" in told
    assert "a file in conf/arm" in told
