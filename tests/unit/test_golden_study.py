"""Every number of the statistics' tables of a small study, by slow and plain arithmetic.

The study is read from its files with json alone; means, standard deviations and counts are loops,
Student's quantiles and tails come from scipy's distribution, nothing from the analysis.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from records_factory import LEARNING_RATE, RUNGS, SEED, SimulatedSweep
from scipy import stats

from analysis.comparison import confirmed_comparison, divergence_rates
from analysis.load import Study, load_study
from analysis.sensitivity.effects_shown import effects, rank_correlation
from analysis.sensitivity.importance_shown import importance
from analysis.sensitivity.landscapes import responses
from analysis.sensitivity.robustness_shown import gaps_between_splits, robustness_of_arms
from analysis.tables import rungs as rung_table

ARMS, SEEDS = ("mezo", "kerzoo_paper", "legendre6"), (0, 1, 2, 3, 4)
RATES, EPSILONS = (0.003, 0.01), (0.003, 0.01)
Rows = dict[str, dict[int, dict[str, Any]]]


def gain(values: Mapping[str, Any]) -> float:
    """Noise of its own for every cell and seed, from its name."""
    noise = random.Random(repr(sorted(values.items(), key=str))).gauss(0, 0.02)
    return 0.15 + {"mezo": 0, "kerzoo_paper": 0.03, "legendre6": -0.02}[values["arm"]] + noise


def lost(values: Mapping[str, Any]) -> str | None:
    is_lost = (values["arm"], values[SEED], values[LEARNING_RATE]) == ("legendre6", 2, 0.01)
    return "diverged" if is_lost else None


def write(root: Path, **changes: Any) -> Path:
    """A screen of two seeds, or a confirmation of five at one setting."""
    folder = SimulatedSweep(arms=ARMS, gain=gain, fate=lost, **changes).write(root)
    for number, path in enumerate(sorted(folder.glob("trials/*/records.jsonl"))):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for place, row in enumerate(rows[1:]):
            if row["train_loss"] is not None:
                row["train_loss"] -= 0.001 * ((number + place) % 7)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def screen(tmp_path: Path) -> Path:
    seeds = (1, 2)
    return write(tmp_path, seeds=seeds, learning_rates=RATES, epsilons=EPSILONS)


@pytest.fixture
def confirmation(tmp_path: Path) -> Path:
    folder = write(tmp_path, seeds=SEEDS, learning_rates=(0.01,), epsilons=(0.01,))
    for path in folder.glob("trials/*/trial.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"phase": "confirm"}))
    return folder


def read(folder: Path) -> Rows:
    return {
        path.parent.name: {r["rung"]: r for r in map(json.loads, path.read_text().splitlines())}
        for path in folder.glob("trials/*/records.jsonl")
    }


def mean(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def sd(values: list[float]) -> float:
    return math.sqrt(sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1))


def student(values: list[float]) -> tuple[float, float, float, float]:
    """Mean, both ends of the 95 % interval, two-sided p."""
    n, error = len(values), sd(values) / math.sqrt(len(values))
    reach = float(stats.t(n - 1).ppf(0.975)) * error
    p = 2 * float(stats.t(n - 1).sf(abs(mean(values)) / error))
    return mean(values), mean(values) - reach, mean(values) + reach, p


def wilson(count: int, total: int) -> tuple[float, float]:
    z = float(stats.norm.ppf(0.975))
    rate, scale = count / total, 1 + z * z / total
    centre = (rate + z * z / (2 * total)) / scale
    reach = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total)) / scale
    return max(0.0, centre - reach), min(1.0, centre + reach)


def records(table: Any, *keys: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    assert table is not None
    return {tuple(row[key] for key in keys): row for row in table.frame.to_dict("records")}


def cell_losses(rows: Rows, arm: str, rung: int) -> dict[tuple[float, float], dict[int, Any]]:
    """(ε, learning rate) → seed → loss; None where it diverged."""
    found: dict[tuple[float, float], dict[int, Any]] = {}
    for trial in rows.values():
        first = trial[0]
        if first["arm"] == arm:
            cell = found.setdefault((first["perturbation_scale"], first["learning_rate"]), {})
            cell[first["seed"]] = trial[rung]["dev_loss"] if rung in trial else None
    return found


def test_the_confirmed_comparison(confirmation: Path) -> None:
    rows, study = read(confirmation), load_study([confirmation])
    shown = records(confirmed_comparison(study), "question", "outcome", "arm")
    ends = {
        arm: {t[0]["seed"]: max(t.items())[1] for t in rows.values() if t[0]["arm"] == arm}
        for arm in ARMS
    }
    p_values = {}
    for arm in ARMS[1:]:
        whole = [s for s in SEEDS if not ends[arm][s]["diverged"]]
        d = [ends[arm][s]["dev_loss"] - ends["mezo"][s]["dev_loss"] for s in whole]
        row = shown["own cells", "dev loss", arm]
        value, low, high, p = student(d)
        p_values[arm] = p
        assert (row["difference"], row["low"], row["high"], row["p"]) == pytest.approx(
            (value, low, high, p)
        )
        signs = itertools.product((1, -1), repeat=len(d))
        sums = [abs(sum(s * x for s, x in zip(flips, d, strict=True))) for flips in signs]
        extreme = [s >= abs(sum(d)) - 1e-12 for s in sums]
        assert row["p_sign_flip"] == pytest.approx(sum(extreme) / len(extreme))
        error, law = sd(d) / math.sqrt(len(d)), stats.t(len(d) - 1)
        both = law.sf((value + 0.01) / error), law.cdf((value - 0.01) / error)
        assert row["p_equivalence"] == pytest.approx(float(max(both)))
        assert (row["pairs"], row["broken_pairs"]) == (len(whole), len(SEEDS) - len(whole))
        hours = [
            math.log(
                (ends[arm][s]["device_time_s"] + ends[arm][s]["eval_time_s"])
                / (ends["mezo"][s]["device_time_s"] + ends["mezo"][s]["eval_time_s"])
            )
            for s in whole
        ]
        ratio = shown["own cells", "device hours", arm]["difference"]
        assert ratio == pytest.approx(math.exp(mean(hours)))
    smaller, larger = sorted(p_values, key=lambda arm: p_values[arm])
    first = min(1.0, 2 * p_values[smaller])
    assert shown["own cells", "dev loss", smaller]["p_holm"] == pytest.approx(first)
    second = max(first, p_values[larger])
    assert shown["own cells", "dev loss", larger]["p_holm"] == pytest.approx(second)
    rates = records(divergence_rates(study), "arm")["legendre6",]
    assert (rates["diverged"], rates["ended"], rates["rate"]) == (1, 5, 0.2)
    assert (rates["low"], rates["high"]) == pytest.approx(wilson(1, 5))


def test_effects_at_every_rung_and_ranks(screen: Path) -> None:
    rows, study = read(screen), load_study([screen])
    shown = records(effects(study), "rung", "arm")
    for rung, arm in itertools.product(RUNGS, ARMS[1:]):
        ours, theirs = cell_losses(rows, arm, rung), cell_losses(rows, "mezo", rung)
        d = []
        broken = 0
        for cell in theirs:
            pairs = [
                ours[cell][s] - theirs[cell][s] for s in theirs[cell] if ours[cell][s] is not None
            ]
            broken += len(theirs[cell]) - len(pairs)
            d += [mean(pairs)] if pairs else []
        row = shown[rung, arm]
        assert (row["difference"], row["low"], row["high"], row["p"]) == pytest.approx(student(d))
        assert (row["pairs"], row["broken_pairs"], row["sample"]) == (len(d), broken, "all")
    ended = [t for t in rows.values() if RUNGS[-1] in t]
    for rung in RUNGS[:-1]:
        x, y = ([t[at]["dev_loss"] for t in ended] for at in (rung, RUNGS[-1]))
        agree = sum(
            math.copysign(1, (x[i] - x[j]) * (y[i] - y[j]))
            for i, j in itertools.combinations(range(len(x)), 2)
        )
        row = records(rank_correlation(study), "rung")[rung,]
        assert row["kendall"] == pytest.approx(agree / math.comb(len(x), 2))
        places = [[sorted(v).index(value) for value in v] for v in (x, y)]
        squares = sum((a - b) ** 2 for a, b in zip(*places, strict=True))
        n = len(x)
        assert row["spearman"] == pytest.approx(1 - 6 * squares / (n * (n * n - 1)))
        assert row["trials"] == n == len(rows) - 2


def test_robustness_and_responses(screen: Path) -> None:
    rows, study = read(screen), load_study([screen])
    shown, levels = records(robustness_of_arms(study), "arm"), responses(study)
    by_level = records(levels, "factor", "level", "arm")
    for arm in ARMS:
        cells = cell_losses(rows, arm, RUNGS[0])
        means = {c: mean([x for x in v.values() if x is not None]) for c, v in cells.items()}
        whole = {c: m for c, m in means.items() if None not in cells[c].values()}
        near = [m for m in whole.values() if m <= min(whole.values()) + 0.01]
        row = shown[arm,]
        assert (row["best"], row["share"]) == pytest.approx((min(whole.values()), len(near) / 4))
        assert (row["low"], row["high"]) == pytest.approx(wilson(len(near), 4))
        middle = sorted(means.values())[1:3]
        assert row["iqm"] == pytest.approx(mean(middle))
        clipped = [min(max(m, middle[0]), middle[1]) for m in means.values()]
        reach = float(stats.t(1).ppf(0.975)) * sd(clipped) * math.sqrt(4) / 2
        assert row["iqm_high"] == pytest.approx(mean(middle) + reach)
        for place, (name, values) in enumerate(
            (("perturbation_scale", EPSILONS), ("learning_rate", RATES))
        ):
            for value in values:
                here = [c for c in cells if c[place] == value]
                row = by_level[name, f"{value:g}", arm]
                expected = student([means[c] for c in here])[:3]
                assert (row["loss"], row["low"], row["high"]) == pytest.approx(expected)
                count = sum(x is None for c in here for x in cells[c].values())
                assert (row["diverged"], row["trials"]) == (count, 4)
                assert (row["rate_low"], row["rate_high"]) == pytest.approx(wilson(count, 4))


def test_gaps_and_counts(screen: Path) -> None:
    rows, study = read(screen), load_study([screen])
    shown, counts = (
        records(gaps_between_splits(study), "arm"),
        records(rung_table(study), "rung", "arm"),
    )
    for arm in ARMS:
        trials = [t for t in rows.values() if t[0]["arm"] == arm]
        ends = [t[RUNGS[-1]] for t in trials if RUNGS[-1] in t]
        expected = student([row["dev_loss"] - row["train_loss"] for row in ends])[:3]
        row = shown[arm,]
        found = row["dev_train"], row["dev_train_low"], row["dev_train_high"]
        assert found == pytest.approx(expected)
        for rung in RUNGS:
            losses = [t[rung]["dev_loss"] for t in trials if rung in t]
            losses = sorted(x for x in losses if x is not None)
            row = counts[rung, arm]
            assert (row["arrived"], row["best"]) == (len(losses), pytest.approx(losses[0]))
            half = len(losses) // 2
            middle = losses[half] if len(losses) % 2 else (losses[half - 1] + losses[half]) / 2
            assert row["median"] == pytest.approx(middle)


def test_importance_is_the_analysis_of_variance(tmp_path: Path) -> None:
    folder = SimulatedSweep(arms=ARMS, gain=gain, seeds=(1, 2)).write(tmp_path)
    study: Study = load_study([folder])
    names = ("arm", "perturbation_scale", "learning_rate", "seed")
    at_first = [t[RUNGS[0]] for t in read(folder).values()]
    grand = mean([row["dev_loss"] for row in at_first])
    total = sum((row["dev_loss"] - grand) ** 2 for row in at_first)

    def mean_like(row: dict[str, Any], *keys: str) -> float:
        return mean([r["dev_loss"] for r in at_first if all(r[k] == row[k] for k in keys)])

    shown = records(importance(study), "effect")
    for name in names:
        square = sum((mean_like(row, name) - grand) ** 2 for row in at_first)
        assert shown[name,]["value"] == pytest.approx(square / total)
    for a, b in itertools.combinations(names, 2):
        square = sum(
            (mean_like(row, a, b) - mean_like(row, a) - mean_like(row, b) + grand) ** 2
            for row in at_first
        )
        found = shown.get((f"{a} × {b}",)) or shown[f"{b} × {a}",]
        assert found["value"] == pytest.approx(square / total)
