"""The table of the papers on simulated records: which scores it takes, and how it shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from records_factory import LEARNING_RATE, SEED, SimulatedSweep, Values
from scipy import stats

from analysis.differences import differences_by_task
from analysis.load import load_study
from analysis.paper import QUOTED
from analysis.registry import Table
from analysis.scores import scores_by_task
from analysis.writers import to_csv, to_latex, to_markdown

Score = Callable[[Mapping[str, Any]], float]
SEEDS = (0, 10, 20)


class ConfirmedSweep(SimulatedSweep):
    """Several tasks; the last row of a trial has the test score that a function gives."""

    test_score: Score = staticmethod(lambda values: 0.9)  # type: ignore[assignment]
    shots: int | None = None

    def _spec(self, cell: Values) -> Values:
        spec = super()._spec(cell)
        task = str(cell["values"]["task"])
        spec["choices"]["task"] = task
        spec["config"]["task"] = {"name": task, "shots": self.shots}
        return {**spec, "phase": "confirm"}

    def _run(self, cell: Values, last_rung: int) -> tuple[Values, list[Values]]:
        trial, rows = super()._run(cell, last_rung)
        for row in rows:
            row |= {"phase": "confirm", "test_accuracy": None, "test_step": None}
        if trial["status"] == "finished":
            rows[-1] |= {"test_accuracy": self.test_score(cell["values"]), "test_step": 72}
        return trial, rows


def table_of(
    folder: Path,
    score: Score,
    tasks: Sequence[str] = ("sst2", "rte"),
    shots: int | None = None,
    **options: Any,
) -> Table:
    settings = {"seeds": SEEDS, "extra": {"task": tasks}, "epsilons": (0.01,), **options}
    sweep = ConfirmedSweep(**settings)
    sweep.test_score, sweep.shots = score, shots  # type: ignore[method-assign]
    table = scores_by_task(load_study([sweep.write(folder)]))
    assert table is not None
    return table


def by_arm_and_seed(values: Mapping[str, Any]) -> float:
    """The better learning rate on test is the one that is worse on dev."""
    base = 0.80 if values["arm"] == "mezo" else 0.85
    lucky = 0.10 if values[LEARNING_RATE] == 0.003 else 0.0
    return base + 0.001 * int(values[SEED]) + lucky


def test_scores_are_means_and_deviations_of_test_at_the_cell_that_dev_chose(
    tmp_path: Path,
) -> None:
    frame = table_of(tmp_path, by_arm_and_seed).frame.set_index("arm")
    assert frame.loc["mezo", "sst2"] == pytest.approx(81.0)
    assert frame.loc["mezo", "sst2_sd"] == pytest.approx(1.0)
    assert frame.loc["kerzoo_paper", "rte"] == pytest.approx(86.0)
    assert set(frame["seeds"]) == {"3"}
    assert set(frame["split"]) == {"test"}


def test_the_best_of_a_column_is_bold_in_markdown_and_latex(tmp_path: Path) -> None:
    table = table_of(tmp_path, by_arm_and_seed)
    markdown = to_markdown(table, "Scores")
    assert "| Method | Tuning | sst2 | rte | Seeds | Split |" in markdown
    assert r"| mezo | lora\_last6 | 81.0 (1.0) | 81.0 (1.0) | 3 | test |" in markdown
    assert "| **86.0 (1.0)** | **86.0 (1.0)** | 3 | test |" in markdown
    latex = to_latex(table, "scores", "Scores")
    assert r"kerzoo\_paper & lora\_last6 & \textbf{86.0 (1.0)} & \textbf{86.0 (1.0)}" in latex
    header, *lines = to_csv(table).splitlines()
    assert header == "arm,tuning,sst2,sst2_sd,rte,rte_sd,seeds,split"
    assert "mezo,lora_last6,81,1,81,1,3,test" in lines


def test_data_seeds_are_seeds(tmp_path: Path) -> None:
    table = table_of(
        tmp_path,
        lambda values: 0.5 + 0.01 * (values["task.data_seed"] == 13),
        seeds=(0,),
        extra={"task": ["sst2"], "task.data_seed": [13, 21]},
    )
    assert set(table.frame["seeds"]) == {"2"}
    assert table.frame["sst2"].tolist() == pytest.approx([50.5, 50.5])


def test_a_seed_that_diverged_is_in_no_mean_and_is_counted(tmp_path: Path) -> None:
    table = table_of(
        tmp_path,
        by_arm_and_seed,
        learning_rates=(0.01,),
        fate=lambda v: "diverged" if (v["arm"], v[SEED]) == ("mezo", 20) else None,
    )
    frame = table.frame.set_index("arm")
    assert frame.loc["mezo", "sst2"] == pytest.approx(80.5)
    assert frame.loc["mezo", "seeds"] == "2"
    assert "2 planned seeds" in table.note


def test_without_test_scores_dev_is_shown_and_said_so(tmp_path: Path) -> None:
    sweep = ConfirmedSweep(seeds=SEEDS, extra={"task": ["sst2", "rte"]}, epsilons=(0.01,))
    sweep.test_score = lambda values: None  # type: ignore[method-assign,assignment,return-value]
    table = scores_by_task(load_study([sweep.write(tmp_path)]))
    assert table is not None
    assert set(table.frame["split"]) == {"dev"}
    assert table.frame.set_index("arm").loc["mezo", "sst2"] == pytest.approx(61.0)


def test_a_screen_of_one_task_has_no_such_table(tmp_path: Path) -> None:
    assert scores_by_task(load_study([SimulatedSweep().write(tmp_path)])) is None


def test_published_numbers_stand_beside_that_very_model_alone(tmp_path: Path) -> None:
    small = table_of(tmp_path / "small", by_arm_and_seed)
    assert "source" not in {column.name for column in small.columns}
    large = table_of(tmp_path / "large", by_arm_and_seed, model="opt-13b")
    quoted = large.frame[large.frame["source"] != ""]
    assert quoted["source"].str.startswith("quoted, unverified: ").all()
    assert set(quoted["arm"]) >= {"MeZO", "zero-shot", "Adam"}
    mezo = quoted[(quoted["arm"] == "MeZO") & (quoted["tuning"] == "lora")]
    assert mezo[["sst2", "rte"]].iloc[0].tolist() == [89.6, 67.9]
    assert not any(c.is_bold(r) for c in large.columns for r in quoted.to_dict("records"))
    assert "not verified here" in large.note


def test_few_shot_numbers_stand_beside_as_many_shots_alone(tmp_path: Path) -> None:
    for shots, expected in ((16, 5), (512, 0)):
        table = table_of(
            tmp_path / str(shots),
            by_arm_and_seed,
            ["roberta_sst2"],
            shots=shots,
            model="roberta-large",
        )
        assert int((table.frame["source"] != "").sum()) == expected


def test_quoted_rows_say_where_they_are_from() -> None:
    assert {quoted.model for quoted in QUOTED} == {"opt-13b", "roberta-large", "opt-2.7b"}
    for quoted in QUOTED:
        assert quoted.source
        assert all(0 < score < 100 for score, _ in quoted.scores.values())


class BesideUntrained(ConfirmedSweep):
    """Two tunings, and an arm that moves nothing: one trial of it beside both."""

    @staticmethod
    def trial_id(values: Mapping[str, Any]) -> str:
        kept = {k: v for k, v in values.items() if k != "tuning" or values["arm"] != "zero_shot"}
        return SimulatedSweep.trial_id(kept)

    def _spec(self, cell: Values) -> Values:
        spec = super()._spec(cell)
        spec["choices"]["tuning"] = cell["values"].get("tuning", "lora")
        return spec

    def _row(self, cell: Values, rung: int) -> Values:
        row = super()._row(cell, rung)
        return {**row, "tuning": None} if cell["arm"] == "zero_shot" else row


@pytest.mark.parametrize("tunings", [["lora"], ["lora", "full"]])
def test_what_moves_no_parameter_has_no_tuning_and_one_row(
    tmp_path: Path, tunings: list[str]
) -> None:
    sweep = BesideUntrained(
        arms=("mezo", "zero_shot"),
        learning_rates=(0.01,),
        epsilons=(0.01,),
        extra={"task": ["sst2", "rte"]} | ({"tuning": tunings} if len(tunings) > 1 else {}),
    )
    study = load_study([sweep.write(tmp_path)])
    table = scores_by_task(study)
    assert table is not None
    rows = list(zip(table.frame["arm"], table.frame["tuning"], strict=True))
    assert sorted(rows) == sorted([("mezo", t) for t in tunings] + [("zero_shot", "none")])
    assert len(study.contexts) == 2 * len(tunings)
    assert all(set(c["arm"]) == {"mezo", "zero_shot"} for _, c in study.cells.groupby("context"))


def noisy(values: Mapping[str, Any]) -> float:
    """On sst2 the arms are told apart, on rte they are not; kerzoo_paper is higher on both."""
    is_better, seed = values["arm"] == "kerzoo_paper", int(values[SEED])
    noise = (seed * 7 % 11) / 1000 if is_better else 0.0
    effect = 0.05 if values["task"] == "sst2" else -0.003
    return 0.8 + 0.01 * (seed % 3) + is_better * effect + noise


def test_rows_that_the_test_does_not_tell_apart_are_bold_together(tmp_path: Path) -> None:
    seeds = (0, 1, 2, 3, 4)
    table = table_of(tmp_path, noisy, seeds=seeds, learning_rates=(0.01,))
    d = {
        task: [
            noisy({"arm": "kerzoo_paper", "task": task, SEED: seed})
            - noisy({"arm": "mezo", "task": task, SEED: seed})
            for seed in seeds
        ]
        for task in ("sst2", "rte")
    }
    assert stats.ttest_1samp(d["sst2"], 0).pvalue < 0.05 < stats.ttest_1samp(d["rte"], 0).pvalue
    rows = table.frame.set_index("arm")
    assert list(rows["sst2_best"]) == [False, True]
    assert list(rows["rte_best"]) == [True, True]


def test_differences_have_the_interval_of_a_paired_test(tmp_path: Path) -> None:
    seeds = (0, 1, 2, 3, 4)
    sweep = ConfirmedSweep(
        seeds=seeds, extra={"task": ("sst2", "rte")}, epsilons=(0.01,), learning_rates=(0.01,)
    )
    sweep.test_score = noisy  # type: ignore[method-assign]
    table = differences_by_task(load_study([sweep.write(tmp_path)]))
    assert table is not None
    (row,) = table.frame.to_dict("records")
    d = [
        100
        * (
            noisy({"arm": "kerzoo_paper", "task": "sst2", SEED: seed})
            - noisy({"arm": "mezo", "task": "sst2", SEED: seed})
        )
        for seed in seeds
    ]
    found = stats.ttest_1samp(d, 0)
    low, high = found.confidence_interval(0.95)
    assert row["sst2"] == pytest.approx(sum(d) / 5)
    assert row["sst2_p"] == pytest.approx(found.pvalue)
    assert row["sst2_interval"] == f"[{low:.1f}, {high:.1f}]"
    assert row["average"] == pytest.approx((row["sst2"] + row["rte"]) / 2)
    text = to_latex(table, "differences", "Differences")
    assert rf"\textbf{{+{row['sst2']:.1f} [{low:.1f}, {high:.1f}]}}" in text


def test_without_a_baseline_there_are_no_differences(tmp_path: Path) -> None:
    sweep = ConfirmedSweep(arms=("mezo",), extra={"task": ("sst2", "rte")}, seeds=SEEDS)
    assert differences_by_task(load_study([sweep.write(tmp_path)])) is None


def test_published_differences_stand_below_and_are_marked_as_quoted(tmp_path: Path) -> None:
    options: dict[str, Any] = {"extra": {"task": ("wsc", "rte")}, "seeds": SEEDS}
    sweep = ConfirmedSweep(model="opt-2.7b", **options)
    table = differences_by_task(load_study([sweep.write(tmp_path / "a")]))
    assert table is not None
    quoted = table.frame.iloc[-1]
    assert (quoted["arm"], quoted["wsc"]) == ("KerZOO", 2.9)
    assert quoted["source"].startswith("quoted, unverified: Mi et al. 2025")
    assert "+2.9" in to_markdown(table, "Differences")
    other = differences_by_task(load_study([ConfirmedSweep(**options).write(tmp_path / "b")]))
    assert other is not None
    assert set(other.frame["source"]) == {""}
