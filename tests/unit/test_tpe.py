"""Points from optuna's TPE: better where outcomes are better, and the same from the same."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from sweeps.compose import CONF
from sweeps.dimensions import Choices, Range
from sweeps.plan.outcomes import Outcome
from sweeps.plan.tpe import ask
from sweeps.sampling import Point, draw_points
from sweeps.schema import SearchOptions

LINE = {"x": Range(0.0, 1.0)}
WORSE: list[Outcome | None] = [
    Outcome(True, 144, 0.9),  # than a finished one of lower loss
    Outcome(False, 72, 0.1),  # than any finished one
    None,  # than all others
]


@pytest.mark.parametrize("worse", WORSE)
def test_points_are_asked_for_where_outcomes_are_better(worse: Outcome | None) -> None:
    better = Outcome(True, 144, 0.5)
    told: list[tuple[Point, Outcome | None]] = [
        ({"x": (i + 0.5) / 20}, better if i < 10 else worse) for i in range(20)
    ]
    asked = [p["x"] for seed in range(40) for p in ask(LINE, told, 1, seed, lambda p: True)]
    assert sum(x < 0.5 for x in asked) >= 30  # by chance alone once in 900


def test_of_stopped_points_those_that_came_further_are_better() -> None:
    told: list[tuple[Point, Outcome | None]] = [
        ({"x": (i + 0.5) / 20}, Outcome(False, 72, 0.9) if i < 10 else Outcome(False, 36, 0.1))
        for i in range(20)
    ]
    asked = [p["x"] for seed in range(40) for p in ask(LINE, told, 1, seed, lambda p: True)]
    assert sum(x < 0.5 for x in asked) >= 30


def test_choices_are_asked_for_as_categories() -> None:
    drawn = {"c": Choices(("a", "b", "c", "d"))}
    told: list[tuple[Point, Outcome | None]] = [
        ({"c": (i % 4 + 0.5) / 4}, Outcome(True, 1, float(i % 4 != 2))) for i in range(16)
    ]
    asked = [p["c"] for seed in range(30) for p in ask(drawn, told, 1, seed, lambda p: True)]
    found = Counter(drawn["c"].at(u) for u in asked)
    assert found["c"] > 15
    assert set(found) <= set("abcd")


def tune(loss: Callable[[Point], float], drawn: dict[str, Range | Choices], seed: int) -> float:
    """The best of 32 points, 8 at once."""
    search = SearchOptions("optuna", num_samples=32, generation=8, seed=seed)
    asked = draw_points(search, drawn)
    told: list[tuple[Point, Outcome | None]] = []
    while asked:
        told += [(point, Outcome(True, 1, loss(point))) for point in asked]
        asked = ask(drawn, told, min(8, 32 - len(told)), seed + len(told), lambda p: True)
    return min(loss(point) for point, _ in told)


@pytest.mark.slow
def test_a_planted_optimum_is_approached_better_than_by_random_points() -> None:
    """Were the two alike, 24 of 30 wins or more would come once in 1400."""
    drawn: dict[str, Range | Choices] = {"x": Range(0.0, 1.0), "y": Range(0.0, 1.0)}
    optima = np.random.default_rng(0).uniform(0.1, 0.9, (30, 2))
    wins = 0
    for seed, (x, y) in enumerate(optima.tolist()):

        def loss(point: Point, x: float = x, y: float = y) -> float:
            return (point["x"] - x) ** 2 + (point["y"] - y) ** 2

        drawn_at_random = draw_points(SearchOptions("random", num_samples=32, seed=seed), drawn)
        wins += tune(loss, drawn, seed) < min(map(loss, drawn_at_random))
    assert stats.binom.sf(23, 30, 0.5) < 1 / 1390
    assert wins >= 24


def test_optuna_is_imported_by_one_module_and_only_when_it_is_asked() -> None:
    def imported(node: ast.AST) -> list[str]:
        if isinstance(node, ast.ImportFrom):
            return [node.module or ""]
        return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []

    for path in (CONF.parent / "sweeps").rglob("*.py"):
        tree = ast.parse(path.read_text())
        at_once = [name for node in tree.body for name in imported(node)]
        anywhere = [name for node in ast.walk(tree) for name in imported(node)]
        assert "optuna" not in at_once
        assert path.name == "tpe.py" or not [n for n in anywhere if n.startswith("optuna")]
