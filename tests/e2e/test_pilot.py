"""A pilot on a user's own two columns, from the command line to the report's first screen."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from sweep_process import read_plan, run_sweep, trials_of
from tiny_trials import write_sst2

pytestmark = pytest.mark.slow


def write_two_columns(folder: Path) -> Path:
    """Write `train.csv` with the columns text and label."""
    lines = (write_sst2(folder / "sst2") / "stsa.binary.train").read_text().splitlines()
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for line in lines:
            label, _, text = line.partition(" ")
            writer.writerow([text, ("bad", "good")[int(label)]])
    return folder


def test_a_pilot_on_two_columns_says_that_no_method_learned_and_what_would_follow(
    tmp_path: Path,
) -> None:
    code, output = run_sweep(
        tmp_path / "pilot.log",
        [
            "+sweep=pilot",
            "model=opt-tiny",
            "task=csv",
            f"task.data_dir={write_two_columns(tmp_path / 'own')}",
            "task.source.labels=[bad,good]",
            "task.num_train=40",
            "task.num_dev=20",
            "task.num_test=10",
            "task.max_length=32",
            "training.batch_size=2",
            "training.forward_passes=24",
            "training.rungs=[0.5,1.0]",
            "training.learning_rate=3e-3",
            "seeds=1",
            "budget.wall_time_s=300",
            "cluster.num_cpus=2",
            "tracking=none",
            f"results_dir={tmp_path}",
        ],
    )
    assert code == 0, output
    folder = tmp_path / "pilot"
    assert {t.status for t in trials_of(folder).values()} <= {"finished", "stopped"}
    told = json.loads((folder / "report" / "report.json").read_text())
    (decision,), (stage,) = told["decisions"], told["next"]
    arms = {s["arm"]: s for s in decision["standings"]}
    assert set(arms) == {"mezo", "legendre2", "discrete4", "adamw", "zero_shot"}
    assert all(s["memory_gib"] > 0 for s in arms.values())
    assert (decision["state"], decision["arm"]) == ("untrained", "")
    start = arms["zero_shot"]["dev_loss"]
    assert all(s["start_loss"] == pytest.approx(start) for s in arms.values())
    assert {"mezo", "legendre2", "discrete4"} <= set(decision["failing"])
    assert (stage["kind"], stage["command"]) == ("retune", "")
    follower = read_plan(folder)["afterwards"]
    assert stage["then"]["command"] == follower["command"]
    assert "+sweep=pilot_full" in follower["command"]
    assert "task.source.labels=[bad,good]" in follower["command"]
    assert "budget" not in follower["command"]
    assert stage["then"]["seconds"] > 0
    html = (folder / "report" / "report.html").read_text()
    screen = html[html.index('class="headline"') : html.index('id="cautions"')]
    assert f"beat the untrained model (dev loss {start:.4f})" in screen
    assert "Train with it" not in screen
    assert "Peak memory" in screen
    assert screen.count("Estimated cost: ") == 1
    assert screen.index("nothing worth confirming") < screen.index("After that") < len(screen)
