"""Whole sweeps from the command line: what they leave, and what running them again does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from decisions import read_events
from sweep_process import (
    ROOT,
    RUNGS,
    numbers_of,
    read_plan,
    run_sweep,
    settings,
    statuses,
    trials_of,
)

from kerzoo.records import ROW_COLUMNS, TEST_COLUMNS
from sweeps.plan import make_plan

pytestmark = pytest.mark.slow

IN_ONE_PROCESS = """
import contextlib, io, json, sys, time
import sweep
ended = {}
for name, arguments in json.load(sys.stdin).items():
    out, err, start = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = sweep.main(arguments)
    ended[name] = {"code": code, "out": out.getvalue(), "err": err.getvalue(),
                   "ray": "ray" in sys.modules, "seconds": time.monotonic() - start}
print(json.dumps(ended))
"""


def run_commands(commands: dict[str, list[str]], **environment: str) -> dict[str, dict[str, Any]]:
    """Several command lines in one process, because importing takes seconds."""
    ended = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        input=json.dumps(commands),
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    results: dict[str, dict[str, Any]] = json.loads(ended.stdout.splitlines()[-1])
    return results


def test_a_sweep_ends_with_everything_that_it_promises(undisturbed: tuple[Path, str]) -> None:
    folder, output = undisturbed
    plan = read_plan(folder)
    assert len(plan["trials"]) == 4
    assert set(statuses(folder).values()) == {"finished"}
    assert set(statuses(folder)) == {trial["trial_id"] for trial in plan["trials"]}
    assert plan["preparation"]["forward_pass_s"] > 0
    assert read_events(folder) == []  # fifo decides nothing
    assert (folder / "report" / "report.html").stat().st_size > 10_000
    assert list((folder / "report" / "tables").glob("*.csv"))
    assert f"Report: {os.path.relpath(folder / 'report' / 'report.html', ROOT)}" in output
    assert "4/4 trials ended, 4 finished" in output
    assert not (folder / ".ray").exists()


def test_every_trial_has_a_row_at_step_0_and_at_each_rung(undisturbed: tuple[Path, str]) -> None:
    folder, _ = undisturbed
    for trial, where in trials_of(folder).items():
        rows = where.rows()
        assert [row["rung"] for row in rows] == [0, *RUNGS]
        assert [row["step"] for row in rows] == [0, *(rung // 2 for rung in RUNGS)]
        assert [row["forward_passes"] for row in rows] == [0, *RUNGS]
        assert all(set(row) == set(ROW_COLUMNS) - {"dev_f1", *TEST_COLUMNS} for row in rows)
        assert {row["trial_id"] for row in rows} == {trial}
        assert where.read()["attempts"] == 1


def test_every_trial_has_one_offline_run_named_by_its_id(undisturbed: tuple[Path, str]) -> None:
    folder, _ = undisturbed
    files = sorted(path.name for path in (folder / "wandb").glob("offline-run-*/run-*.wandb"))
    assert files == sorted(f"run-{trial}.wandb" for trial in trials_of(folder))


def test_the_same_command_again_runs_nothing_and_starts_no_ray(
    results: Path, undisturbed: tuple[Path, str]
) -> None:
    folder, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*/records.jsonl")}
    command = settings(results, "name=undisturbed", "scheduler=fifo")
    again = run_commands({"again": command})["again"]
    assert again["code"] == 0, again
    assert not again["ray"]
    assert "All 4 trials have ended already." in again["out"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*/records.jsonl")} == before


def test_more_cells_run_alone_and_a_trial_that_fails_is_listed_and_gives_exit_code_1(
    results: Path, undisturbed: tuple[Path, str]
) -> None:
    """Two of the plan's four trials are new; one of them diverges, which is no failure."""
    shutil.copytree(undisturbed[0], results / "extended")
    before = numbers_of(results / "extended")
    command = settings(
        results,
        "name=extended",
        "scheduler=fifo",
        "space={training.perturbation_scale:[1e-2],training.learning_rate:[1e-2,1e20]}",
    )
    plan = make_plan(command, "test")
    new = {spec.arm: spec.trial_id for spec in plan.specs if spec.trial_id not in before}
    assert set(new) == {"mezo", "legendre2"}
    broken = results / "extended" / "trials" / new["legendre2"]
    (broken / "trajectory.msgpack").mkdir(parents=True)  # a file that cannot be written

    code, output = run_sweep(results / "extended.log", command)
    ended = statuses(results / "extended")
    assert code == 1, output
    assert ended[new["mezo"]] == "diverged"
    assert ended[new["legendre2"]] == "failed"
    failure = trials_of(results / "extended")[new["legendre2"]].read()["failure"]
    assert failure["kind"] == "IsADirectoryError"
    assert "IsADirectoryError" in output
    after = numbers_of(results / "extended")
    assert {trial: after[trial] for trial in before} == before
    assert len(ended) == 6  # the two cells outside the new plan are kept
    assert len(read_plan(results / "extended")["trials"]) == 4
    last = after[new["mezo"]][-1]
    assert last["diverged"]
    assert last["dev_loss"] is None

    again = run_commands({"again": command})["again"]
    assert again["code"] == 1, again
    assert "IsADirectoryError" in again["out"]
    assert not again["ray"]


WRONG_COMMANDS = {
    "unknown kernel": (["kernel=legendre5"], "kernel: no option 'legendre5'"),
    "odd order": (["arm=legendre2", "kernel.order=3", "baseline=legendre2"], "order must be even"),
    "negative epsilon": (["training.perturbation_scale=-1e-3"], "perturbation_scale"),
    "misspelt key": (["trainning.seed=1"], "did you mean 'training'?"),
    "rung below one step": (["training.forward_passes=4"], "below one step"),
    "empty search space": (["space.arm=[]"], "space.arm"),
    "missing data file": (["task.data_dir=/nowhere"], "task.data_dir"),
    "no GPU": (["training.device=cuda", "name=gpu"], "training.device"),
    "folder that cannot be made": (["results_dir=/proc/version/results"], "results_dir: cannot"),
    "another model": (["model.seed=1"], "fresh=true"),
    "another budget": (["training.forward_passes=480"], "training.forward_passes"),
}


def test_wrong_input_ends_with_2_before_ray_starts_and_leaves_everything_alone(
    results: Path, undisturbed: tuple[Path, str]
) -> None:
    folder, _ = undisturbed
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    command = settings(results, "name=undisturbed", "scheduler=fifo")
    commands = {kind: [*command, *wrong] for kind, (wrong, _) in WRONG_COMMANDS.items()}
    ended = run_commands(commands, CUDA_VISIBLE_DEVICES="")
    for kind, (_, told) in WRONG_COMMANDS.items():
        assert ended[kind]["code"] == 2, (kind, ended[kind])
        assert ended[kind]["err"].startswith("error: "), kind
        assert told in ended[kind]["err"], (kind, ended[kind]["err"])
        assert not ended[kind]["ray"], kind
        assert ended[kind]["seconds"] < 30, kind
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before
    assert not (results / "gpu").exists()


def test_a_corrupted_data_file_ends_with_2_naming_file_and_line(results: Path) -> None:
    command = settings(results, "name=corrupted")
    data = results / "corrupted_data"
    shutil.copytree(results / "data", data)
    with (data / "stsa.binary.train").open("a") as file:
        file.write("maybe a label that is none\n")
    command = [*command, f"task.data_dir={data}"]
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "sweep.py", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 2, ended
    assert "stsa.binary.train, line 101" in ended.stderr
    assert time.monotonic() - start < 120


def test_commands_that_only_tell(tmp_path: Path) -> None:
    """Without a network: the model hub's address leads nowhere."""
    ended = run_commands(
        {
            "list": [],
            "help": ["--help"],
            "plan": ["+sweep=opt2.7b", "plan_only=true"],
            "run": ["+sweep=opt2.7b", f"results_dir={tmp_path / 'results'}"],
        },
        HF_HUB_OFFLINE="0",
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path),
    )
    assert {name: run["code"] for name, run in ended.items()} == {
        "list": 0,
        "help": 0,
        "plan": 0,
        "run": 2,
    }
    assert not any(run["ray"] for run in ended.values())
    assert "opt2.7b" in ended["list"]["out"]
    assert "quickstart" in ended["list"]["out"]
    assert "python sweep.py +sweep=NAME" in ended["list"]["out"]
    assert "Exit codes: 0 done" in ended["help"]["out"]
    for part in ("forward passes", "GiB a trial", "device cuda", "smallest detectable effect"):
        assert part in ended["plan"]["out"]
    assert "model.path" in ended["run"]["err"]
    assert "model=opt-tiny" in ended["run"]["err"]
    assert not (tmp_path / "results").exists()


def test_one_trial_in_the_foreground_leaves_the_rows_of_the_sweep_without_ray(
    results: Path, undisturbed: tuple[Path, str]
) -> None:
    folder, _ = undisturbed
    trial = read_plan(folder)["trials"][0]
    code = (
        "import sys; from sweeps.trial import main; code = main(sys.argv[1:]);"
        "assert 'ray' not in sys.modules; sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *trial["overrides"], f"results_dir={results}", "name=alone"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    alone = numbers_of(results / "alone")
    assert alone == {trial["trial_id"]: numbers_of(folder)[trial["trial_id"]]}
