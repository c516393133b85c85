"""MeZO beside all baselines in one sweep, from the command line to the report."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pytest
from sweep_process import read_plan, run_sweep, settings, trials_of

from kerzoo.records import TrialFolder, choose_checkpoint

pytestmark = pytest.mark.slow

SPACE = (
    "space=[{arm:[mezo,adamw,sgd,zero_shot,linear_probe],"
    "training.perturbation_scale:[1e-2,3e-2],training.learning_rate:[1e-3,1e-2]},"
    "{arm:[in_context],method.num_demonstrations:[2,4]}]"
)


def run_named(results: Path, name: str, *own: str) -> Path:
    """Run a sweep of its own space to its end; its results folder."""
    overrides = [o for o in settings(results) if not o.startswith(("+sweep=", "space="))]
    named = (f"name={name}", "tuning=lora", *own)
    code, output = run_sweep(results / f"{name}.log", [*overrides, *named])
    assert code == 0, output
    return results / name


def test_a_sweep_of_mezo_and_all_baselines_ends_with_a_report(results: Path) -> None:
    folder = run_named(results, "baselines", "task.max_length=128", SPACE)
    plan = read_plan(folder)
    assert len(plan["cells"]) == 22
    arms = Counter(trial["arm"] for trial in plan["trials"])
    assert arms == {
        "mezo": 4,
        "adamw": 2,
        "sgd": 2,
        "zero_shot": 1,
        "linear_probe": 1,
        "in_context": 2,
    }
    for trial in plan["trials"]:
        records = TrialFolder(folder / "trials" / trial["trial_id"])
        assert records.status in ("finished", "stopped"), trial["arm"]
        if trial["arm"] in ("zero_shot", "in_context"):
            assert [row["forward_passes"] for row in records.rows()] == [0]
    assert len(trials_of(folder)) == 12
    assert (folder / "report" / "report.html").exists()
    table = (folder / "report" / "tables" / "best_at_final_rung.csv").read_text()
    named = {row["arm"] for row in csv.DictReader(io.StringIO(table))}
    assert named == set(arms)


def test_a_confirming_sweep_reads_test_once_at_the_checkpoint_that_dev_chose(results: Path) -> None:
    folder = run_named(
        results,
        "confirmed",
        "phase=confirm",
        "scheduler=fifo",
        "training.forward_passes=60",
        "space=[{arm:[mezo,adamw],training.seed:[0,1]},{arm:[zero_shot,linear_probe]}]",
    )
    trials = trials_of(folder)
    assert len(trials) == 6
    for trial in trials.values():
        assert trial.status == "finished"
        rows = trial.rows()
        assert [row["test_accuracy"] is not None for row in rows] == [False] * (len(rows) - 1) + [
            True
        ]
        chosen = choose_checkpoint(rows)["step"] if len(rows) > 1 else 0
        assert rows[-1]["test_step"] == chosen
    table = (folder / "report" / "tables" / "scores_by_task.csv").read_text()
    scores = {row["arm"]: row for row in csv.DictReader(io.StringIO(table))}
    assert {arm: (row["tuning"], row["split"]) for arm, row in scores.items()} == {
        **dict.fromkeys(("mezo", "adamw"), ("lora", "test")),
        **dict.fromkeys(("zero_shot", "linear_probe"), ("none", "test")),
    }
