"""Which factors, and which pairs of factors, decide the dev loss.

A balanced grid has an exact analysis of variance with pairs. Other designs (random, Sobol, a grid
with holes) have PED-ANOVA for main effects, and for pairs the decomposition of a surrogate, which
is withheld where the surrogate foretells less than half of the variance. Beside every figure
stands what permutations of the outcome give, and a dummy factor that means nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.load import Study, is_adaptive
from analysis.memory import once_per_study
from analysis.selection import compared_rung
from analysis.sensitivity.effects import SEEDS, fates_of, shared_keys, values_at
from analysis.statistics.variance import (
    Integers,
    against_chance,
    bins_of,
    contrasts,
    explained_shares,
    is_balanced,
    permutations,
    polynomials,
    surrogate_shares,
    top_divergences,
    with_pairs,
)

EXACT, PED, SURROGATE = "exact ANOVA", "PED-ANOVA", "surrogate ANOVA"
DUMMY = "dummy"
NUM_PERMUTATIONS = 999
MIN_FIT = 0.5
"""R² below which a surrogate's shares are withheld."""
MIN_TRIALS = 8
MAX_CATEGORIES = 6
"""A numeric factor with more levels than this is continuous."""
GROUP = ["sweep", "model", "tuning"]
"""Confirmed trials that share these are taken together, with the task as a factor."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Trials with a loss, or that diverged, and the factors in which they differ.

    Attributes:
        context: What is shown apart.
        name: Which of its arms.
        outcome: What is explained.
        losses: Infinite where the trial diverged.
        factors: Name → value of each trial.
        is_searched: Whether a search that learns from results chose the trials.
    """

    context: str
    name: str
    outcome: str
    losses: np.ndarray
    factors: dict[str, list[Any]]
    is_searched: bool

    @property
    def values(self) -> np.ndarray:
        """The losses; their ranks, with those that diverged last, where any did."""
        if np.isinf(self.losses).any():
            return np.asarray(stats.rankdata(self.losses), dtype=np.float64)
        return self.losses

    @property
    def codes(self) -> dict[str, Integers]:
        """Factor → level of each trial, as an integer."""
        return {name: _encode(values) for name, values in self.factors.items()}


@once_per_study
def importances(study: Study) -> pd.DataFrame:
    """The importance of every factor and pair, for each context at its first rung and confirmed.

    Returns:
        One row per block and effect: `context, block, outcome, method, effect, value, null, p,
        trials, fit` (R² of the surrogate), `biased` (by a search that learns) and `withheld`.
    """
    rows: list[dict[str, Any]] = []
    for block in [*_screened(study), *_confirmed(study)]:
        if len(block.losses) >= MIN_TRIALS and np.ptp(block.values) > 0:
            rows += _explain(block)
    return pd.DataFrame(rows)


def _explain(block: Block) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(0)
    values = block.values
    drawn = permutations(values, NUM_PERMUTATIONS, generator)
    together = np.concatenate([values[None], drawn])
    codes = block.codes
    facts = {
        "context": block.context,
        "block": block.name,
        "outcome": block.outcome + (" (ranks)" if np.isinf(block.losses).any() else ""),
        "trials": len(values),
        "biased": block.is_searched,
        "withheld": False,
        "fit": float("nan"),
    }
    if is_balanced(list(codes.values())):
        bases = with_pairs({name: contrasts(levels) for name, levels in codes.items()})
        number = max(int(levels.max()) + 1 for levels in codes.values())
        bases[DUMMY] = contrasts(generator.permutation(np.arange(len(values)) % number))
        yield from _rows(facts | {"method": EXACT}, explained_shares(together, bases))
        return
    noise = generator.random(len(values))
    levels = {
        name: bins_of(block.factors[name]) if _is_continuous(block.factors[name]) else codes[name]
        for name in codes
    }
    losses = permutations(block.losses, NUM_PERMUTATIONS, generator)
    order = np.concatenate([block.losses[None], losses])
    yield from _rows(
        facts | {"method": PED}, top_divergences(order, {**levels, DUMMY: bins_of(noise)})
    )
    mains = {
        name: polynomials(block.factors[name])
        if _is_continuous(block.factors[name])
        else contrasts(codes[name])
        for name in codes
    }
    bases = {**with_pairs(mains), DUMMY: polynomials(noise)}
    found = surrogate_shares(together, bases)
    fit = float(found.fit[0])
    rows = list(_rows(facts | {"method": SURROGATE, "fit": fit}, found.shares))
    if fit < MIN_FIT:
        rows = [{**rows[0], "effect": "all", "withheld": True}]
        rows[0] |= dict.fromkeys(("value", "null", "p"), float("nan"))
    yield from rows


def _rows(facts: dict[str, Any], shares: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """The effects, the larger first; the first outcome is the real one."""
    found = {name: against_chance(values[0], values[1:]) for name, values in shares.items()}
    for name in sorted(found, key=lambda effect: -found[effect].value):
        yield {**facts, "effect": name, **found[name]._asdict()}


def _screened(study: Study) -> Iterator[Block]:
    """Each context of a screen at its first rung; arms with factors of their own once more."""
    for context in study.contexts:
        cells = study.cells[(study.cells["context"] == context) & study.cells["trains"]]
        cells = cells[cells["phase"] == "screen"]
        rung = compared_rung(study, context, "first")
        if cells.empty or rung is None:
            continue
        trials = values_at(study, cells, rung, fates_of(study, cells)).reset_index(drop=True)
        trials = trials[trials["loss"].notna() | trials["lost"]]
        keys = shared_keys(cells)
        is_searched = any(is_adaptive(s.plan) for s in study.sweeps if context_has(cells, s.name))
        own = {k for v in trials["factors"] for k in v} - {*keys, "arm", *SEEDS}
        labels = [_with_own(a, f, sorted(own)) for a, f in zip_columns(trials, "arm", "factors")]
        yield _block(context, "all arms", trials, keys, labels, is_searched)
        for key in sorted(own):
            mine = trials[[key in values for values in trials["factors"]]]
            others = sorted(own - {key})
            arms = [_with_own(a, f, others) for a, f in zip_columns(mine, "arm", "factors")]
            yield _block(context, f"arms with {key}", mine, [*keys, key], arms, is_searched)


def _block(
    context: str, name: str, trials: pd.DataFrame, keys: list[str], arms: list[str], searched: bool
) -> Block:
    factors: dict[str, list[Any]] = {"arm": arms}
    factors |= {short(k): [v.get(k) for v in trials["factors"]] for k in keys}
    factors["seed"] = [
        (seed, *(values.get(key) for key in SEEDS))
        for seed, values in zip_columns(trials, "seed", "factors")
    ]
    losses = trials["loss"].where(~trials["lost"], np.inf).to_numpy(float)
    varying = {name: values for name, values in factors.items() if len(set(map(repr, values))) > 1}
    outcome = "dev loss at the first rung"
    return Block(context, name, outcome, losses, varying, searched)


def _confirmed(study: Study) -> Iterator[Block]:
    """Confirmed trials at their end, with task and seed as factors."""
    cells = study.cells[(study.cells["phase"] == "confirm") & study.cells["trains"]]
    ended = cells[cells["status"].isin(["finished", "diverged"])]
    last = ended.merge(study.last_rows, on=["sweep", "trial_id"], how="left")
    for key, mine in last.groupby(GROUP, sort=False):
        lost = mine["diverged"].eq(True) | (mine["status"] == "diverged")
        trials = mine.assign(loss=mine["dev_loss"], lost=lost)
        trials = trials[trials["loss"].notna() | trials["lost"]]
        keys = sorted({k for v in trials["factors"] for k in v} - {"arm", "task", *SEEDS, "tuning"})
        labels = [_with_own(a, f, keys) for a, f in zip_columns(trials, "arm", "factors")]
        block = _block(" · ".join(map(str, key)), "confirmed", trials, [], labels, False)
        if trials["task"].nunique() > 1:
            block.factors["task"] = list(trials["task"])
        yield dataclasses.replace(block, outcome="final dev loss")


def context_has(cells: pd.DataFrame, sweep: str) -> bool:
    """Whether some cells are of a sweep."""
    return any(label == sweep or label.startswith(f"{sweep} (") for label in set(cells["sweep"]))


def zip_columns(frame: pd.DataFrame, first: str, second: str) -> Iterator[tuple[Any, Any]]:
    """Two columns, row by row."""
    return zip(frame[first], frame[second], strict=True)


def short(key: str) -> str:
    """A swept key as a reader knows it: learning_rate."""
    return key.removeprefix("training.")


def _with_own(arm: str, values: dict[str, Any], own: list[str]) -> str:
    """An arm's name with the factors that only some arms have."""
    return ", ".join([arm, *(f"{short(key)} {values[key]}" for key in own if key in values)])


def _encode(values: list[Any]) -> Integers:
    names = {name: place for place, name in enumerate(dict.fromkeys(map(repr, values)))}
    return np.array([names[repr(value)] for value in values], dtype=np.int64)


def _is_continuous(values: list[Any]) -> bool:
    is_numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return is_numeric and len(set(values)) > MAX_CATEGORIES
