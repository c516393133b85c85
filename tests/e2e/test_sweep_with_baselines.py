"""MeZO beside all baselines in one sweep, from the command line to the report."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pytest
from sweep_process import read_plan, run_sweep, settings, trials_of

from kerzoo.records import TrialFolder

pytestmark = pytest.mark.slow

SPACE = (
    "space=[{arm:[mezo,adamw,sgd,zero_shot,linear_probe],"
    "training.perturbation_scale:[1e-2,3e-2],training.learning_rate:[1e-3,1e-2]},"
    "{arm:[in_context],method.num_demonstrations:[2,4]}]"
)


def test_a_sweep_of_mezo_and_all_baselines_ends_with_a_report(results: Path) -> None:
    own = ("name=baselines", "task.max_length=128", "tuning=lora", SPACE)
    overrides = [o for o in settings(results) if not o.startswith(("+sweep=", "space="))]
    code, output = run_sweep(results / "baselines.log", [*overrides, *own])
    assert code == 0, output
    folder = results / "baselines"
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
