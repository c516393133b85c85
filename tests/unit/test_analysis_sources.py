"""Records from elsewhere, and damaged ones: a report or a clear message, never a traceback."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import wandb
from records_factory import SimulatedSweep

from analysis.load import Study, load_study
from analysis.sources import ResultsError, read_source
from analysis.sources.wandb_online import collect_runs, read_wandb_project

Values = dict[str, Any]


def flatten(node: Any, prefix: str = "") -> Values:
    if not isinstance(node, dict):
        return {prefix: node}
    flat: Values = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def mirrored_runs(folder: Path) -> list[Values]:
    """Each trial of a results folder as the arguments, rows and status of its W&B run."""
    plan = json.loads((folder / "plan.json").read_text())
    runs = []
    for path in sorted((folder / "trials").glob("*/trial.json")):
        trial = json.loads(path.read_text())
        lines = (path.parent / "records.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        told = {key: trial[key] for key in ("arm", "phase", "choices", "rungs", "command")}
        cells = [c for c in plan["cells"] if c["trial_id"] == trial["trial_id"]]
        labels = {k: v for k, v in rows[0].items() if not isinstance(v, int | float)}
        config = {
            **trial["config"],
            "trial": told,
            "plan": {"name": plan["name"], "baseline": plan["baseline"], "cells": cells},
            "row": labels,
        }
        numbers = [
            {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
            for row in rows
        ]
        runs.append(
            {
                "id": trial["trial_id"],
                "config": flatten(config),
                "steps": [row["step"] for row in rows],
                "rows": numbers,
                "status": trial["status"],
            }
        )
    return runs


def write_offline_runs(folder: Path, out: Path) -> None:
    for run in mirrored_runs(folder):
        mirrored = wandb.init(
            id=run["id"],
            group=folder.name,
            job_type="screen",
            project="p",
            dir=str(out),
            mode="offline",
            config=run["config"],
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        for step, row in zip(run["steps"], run["rows"], strict=True):
            mirrored.log(row, step=step)
        mirrored.summary["status"] = run["status"]
        mirrored.finish()


def assert_same_analysis(found: Study, expected: Study) -> None:
    columns = ["arm", "learning_rate", "perturbation_scale", "seed", "status", "rung", "step"]
    columns += ["forward_passes", "dev_loss", "dev_loss_change", "score", "dev_auc", "diverged"]
    columns += ["model", "task", "tuning", "phase", "kernel", "order", "device_time_s"]
    order = ["trial_id", "step"]
    pd.testing.assert_frame_equal(
        found.evaluations.sort_values(order)[columns].reset_index(drop=True),
        expected.evaluations.sort_values(order)[columns].reset_index(drop=True),
        check_dtype=False,
    )
    assert found.baselines == expected.baselines
    assert found.score_name == expected.score_name


@pytest.mark.slow
def test_offline_wandb_files_alone_give_the_same_analysis(tmp_path: Path) -> None:
    folder = SimulatedSweep(epsilons=(0.01,), learning_rates=(0.01,)).write(tmp_path)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    write_offline_runs(folder, mirror)
    assert_same_analysis(load_study([mirror]), load_study([folder]))
    files = sorted(mirror.glob("**/run-*.wandb"))
    files[0].write_bytes(files[0].read_bytes()[:-700])  # as after a crash
    study = load_study([mirror])
    assert len(study.trials) == 2
    files[1].write_bytes(b"something else")
    assert "does not begin with :W&B" in load_study([mirror]).warnings[0]


def test_runs_from_the_server_give_the_same_analysis(tmp_path: Path) -> None:
    folder = SimulatedSweep(halving=2).write(tmp_path)
    runs = [
        SimpleNamespace(
            id=run["id"],
            group=folder.name,
            job_type="screen",
            name=run["id"],
            state="finished",
            config=run["config"],
            summary={"status": run["status"]},
            scan_history=lambda run=run: [
                {**row, "_step": step} for step, row in zip(run["steps"], run["rows"], strict=True)
            ],
        )
        for run in mirrored_runs(folder)
    ]
    (results,) = collect_runs("p", runs)
    expected = load_study([folder])
    assert {t: v["status"] for t, v in results.trials.items()} == dict(
        zip(expected.trials["trial_id"], expected.trials["status"], strict=True)
    )
    assert len(results.rows) == sum(len(run["rows"]) for run in mirrored_runs(folder))


@pytest.mark.parametrize("path", ["", "entity", "entity/"])
def test_a_project_that_is_not_named_in_full_is_refused(path: str) -> None:
    with pytest.raises(ResultsError, match="ENTITY/PROJECT"):
        read_wandb_project(path)


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_ray_tune_experiment_from_elsewhere_is_read(tmp_path: Path, kind: str) -> None:
    for method in ("mezo", "kernel"):
        for lr in (1e-3, 1e-2):
            folder = tmp_path / "elsewhere" / f"trial_{method}_{lr}"
            folder.mkdir(parents=True)
            (folder / "params.json").write_text(json.dumps({"method": method, "lr": lr}))
            rows = [
                {"training_iteration": i, "loss": 1 - i * lr, "time_total_s": 2.0 * i}
                for i in (1, 2)
            ]
            if kind == "json":
                (folder / "result.json").write_text("".join(json.dumps(r) + "\n" for r in rows))
            else:
                pd.DataFrame(rows).to_csv(folder / "progress.csv", index=False)
    study = load_study([tmp_path / "elsewhere"])
    assert study.arms == ["kernel", "mezo"]
    assert sorted(study.cells["learning_rate"].unique()) == [1e-3, 1e-2]
    assert study.evaluations["dev_loss"].min() == pytest.approx(0.98)
    assert set(study.trials["status"]) == {"finished"}


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ResultsError, match=r"no plan\.json.*run-\*\.wandb.*result\.json"):
        read_source(tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_files_give_a_study_or_a_clear_message(tmp_path: Path, seed: int) -> None:
    """Each file is, by lot, cut short, emptied, filled with noise or with another's JSON."""
    lot = random.Random(seed)
    folder = SimulatedSweep(halving=2).write(tmp_path)
    (folder / "trials" / "notes").mkdir()
    (folder / "trials" / "stray.txt").write_text("x")
    files = [*folder.glob("trials/*/*"), *([folder / "plan.json"] if seed % 4 == 0 else [])]
    for path in lot.sample(files, lot.randint(1, len(files))):
        whole = path.read_bytes()
        damaged = [
            whole[: lot.randint(0, len(whole))],
            b"",
            lot.randbytes(200) + b"\n",
            b'[1, 2]\n"text"\n{"step": "x"}\n{"step": 3, "dev_loss": "abc", "rung": null}\n',
            b'{"config": [], "rungs": "x", "choices": 3, "status": "finished", "failure": 1}',
        ]
        path.write_bytes(lot.choice(damaged))
    with contextlib.suppress(ResultsError):
        assert len(load_study([folder]).trials)


def test_reading_local_results_loads_no_wandb(tmp_path: Path, project_root: Path) -> None:
    folder = SimulatedSweep().write(tmp_path)
    code = (
        "import sys, pathlib; from analysis.sources import read_source\n"
        f"read_source(pathlib.Path({str(folder)!r}))\n"
        "assert not {'wandb', 'ray', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project_root, check=True)
