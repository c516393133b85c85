"""How a trial ends: diverged, failed, killed; and the command that runs a plan without Ray."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trials import LORA_LAST, MEZO, created, numbers, trial_config, trial_spec

from kerzoo.losses import LabelWordLoss
from kerzoo.records import TrialFolder, TrialSpec, write_json
from kerzoo.training import main, run_trial, run_trials
from kerzoo.trajectory import read_trajectory
from kerzoo.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
LOSSES = ("train_loss", "dev_loss", "dev_accuracy", "dev_auc")

pytestmark = pytest.mark.usefixtures("own_cache")


def run(config: dict[str, Any], folder: Path) -> TrialFolder:
    spec = trial_spec(config)
    trial = created(folder, spec)
    list(run_trial(spec, trial, Workspace()))
    return trial


def test_a_trial_whose_training_loss_is_not_finite_ends_with_one_diverged_row(
    sst2: Path, tmp_path: Path
) -> None:
    trial = run(trial_config(sst2, learning_rate=1e30), tmp_path)
    *rows, last = trial.rows()
    assert [row["diverged"] for row in rows] == [False]
    assert last["diverged"] is True
    assert all(last[name] is None for name in LOSSES)
    steps = len(read_trajectory(trial.trajectory_path))
    assert last["step"] == steps + 1
    assert last["forward_passes"] == 2 * (steps + 1)
    assert last["examples_seen"] == 8 * (steps + 1)
    assert last["rung"] == 6
    assert trial.status == "diverged"
    assert trial.read()["ended"] is not None


@pytest.mark.parametrize("status", ["diverged", "running"])
def test_resuming_a_diverged_trial_adds_nothing(sst2: Path, tmp_path: Path, status: str) -> None:
    """Also where the process died between the row and the status."""
    config = trial_config(sst2, learning_rate=1e30)
    trial = run(config, tmp_path)
    before = trial.records_path.read_bytes(), trial.trajectory_path.read_bytes()
    trial.update(status=status)
    rows = list(run_trial(trial_spec(config), trial, Workspace()))
    assert [row["diverged"] for row in rows] == [True]
    assert (trial.records_path.read_bytes(), trial.trajectory_path.read_bytes()) == before
    assert trial.status == "diverged"


def test_a_trial_whose_dev_loss_is_not_finite_diverges_at_that_rung(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LabelWordLoss.scores

    def scores(self: LabelWordLoss, indices: list[int]) -> torch.Tensor:
        values = original(self, indices)
        changed = len(indices) == 32 and len(read_trajectory(trajectory)) == 6
        return values * math.nan if changed else values

    trajectory = tmp_path / "trial0" / "trajectory.msgpack"
    monkeypatch.setattr(LabelWordLoss, "scores", scores)
    config = trial_config(sst2)
    trial = created(tmp_path, trial_spec(config))
    yielded = list(run_trial(trial_spec(config), trial, Workspace()))
    assert yielded == trial.rows()
    assert [row["step"] for row in yielded] == [0, 3, 6]
    assert [row["diverged"] for row in yielded] == [False, False, True]
    assert all(yielded[-1][name] is None for name in LOSSES)
    assert trial.status == "diverged"


def fail_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = LabelWordLoss.loss
    calls = 0

    def loss(self: LabelWordLoss, indices: list[int]) -> float:
        nonlocal calls
        calls += 1
        if calls == call:
            raise RuntimeError("out of memory on purpose")
        return original(self, indices)

    monkeypatch.setattr(LabelWordLoss, "loss", loss)


@pytest.mark.parametrize("keeps_trajectory", [True, False])
def test_a_finished_trial_that_lost_rows_is_completed_bit_for_bit(
    sst2: Path, tmp_path: Path, keeps_trajectory: bool
) -> None:
    spec = trial_spec(trial_config(sst2, tuning=LORA_LAST))
    assert run_trials([spec], tmp_path) == 0
    trial = TrialFolder(tmp_path / "trials" / spec.trial_id)
    whole = numbers(trial.rows())
    made = trial.trajectory_path.read_bytes()
    os.truncate(trial.records_path, 1500)
    if not keeps_trajectory:
        trial.trajectory_path.unlink()
    assert run_trials([spec], tmp_path) == 0
    assert (trial.status, numbers(trial.rows())) == ("finished", whole)
    assert (trial.trajectory_path.read_bytes() == made) == keeps_trajectory


@pytest.mark.parametrize("call", [1, 2, 8])
def test_a_trial_that_raises_is_recorded_as_failed_with_its_traceback(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    config = trial_config(sst2, tuning=LORA_LAST)
    through = run(config, tmp_path / "through")
    fail_at(call, monkeypatch)
    with pytest.raises(RuntimeError, match="on purpose"):
        run(config, tmp_path / "failed")
    trial = TrialFolder(tmp_path / "failed" / "trial0")
    failure = trial.read()["failure"]
    assert trial.status == "failed"
    assert failure["kind"] == "RuntimeError"
    assert failure["message"] == "out of memory on purpose"
    assert "Traceback" in failure["traceback"]
    assert "kerzoo/estimator.py" in failure["traceback"]
    monkeypatch.undo()
    resumed = run(config, tmp_path / "failed")  # a failure can be repaired and the trial continued
    assert numbers(resumed.rows()) == numbers(through.rows())
    assert resumed.read()["failure"] is None


def test_a_failure_does_not_harm_the_next_trial_of_the_process(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KERZOO_CACHE")
    monkeypatch.setenv("KERZOO_CACHE", str(tmp_path / "cache"))
    config = trial_config(sst2, tuning=LORA_LAST)
    alone = run(config, tmp_path / "alone")
    fail_at(5, monkeypatch)
    specs = [trial_spec(config, name) for name in ("first", "second")]
    assert run_trials(specs, tmp_path) == 1
    first, second = (TrialFolder(tmp_path / "trials" / name) for name in ("first", "second"))
    assert (first.status, second.status) == ("failed", "finished")
    assert "failed: RuntimeError: out of memory on purpose" in capsys.readouterr().out
    labels = {"trial_id"}
    assert [{k: v for k, v in r.items() if k not in labels} for r in numbers(second.rows())] == [
        {k: v for k, v in r.items() if k not in labels} for r in numbers(alone.rows())
    ]


def test_an_interrupted_run_is_recorded_as_such_and_continues(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trial_config(sst2)
    original = LabelWordLoss.loss
    calls = 0

    def loss(self: LabelWordLoss, indices: list[int]) -> float:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise KeyboardInterrupt
        return original(self, indices)

    monkeypatch.setattr(LabelWordLoss, "loss", loss)
    plan = write_plan(tmp_path, [trial_spec(config)])
    assert main([str(plan)]) == 130
    trial = TrialFolder(tmp_path / "trials" / "trial0")
    assert trial.status == "interrupted"
    assert main([str(plan)]) == 0
    assert trial.status == "finished"
    assert numbers(trial.rows()) == numbers(run(config, tmp_path / "through").rows())


def write_plan(folder: Path, specs: list[TrialSpec]) -> Path:
    path = folder / "plan.json"
    write_json(path, {"trials": [vars(spec) for spec in specs]})
    return path


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "{}", "[]", '{"trials": 3}', '{"trials": [{}]}', '{"trials": [3]}'],
)
def test_a_wrong_plan_ends_with_2_and_says_why(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    assert main([str(path)]) == 2
    assert f"error: {path}: not a plan: " in capsys.readouterr().err


def test_a_wrong_configuration_or_trial_ends_with_2_and_starts_nothing(
    sst2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = trial_config(sst2)
    wrong["training"]["learning_rate"] = -1
    plan = write_plan(tmp_path, [trial_spec(trial_config(sst2), "a"), trial_spec(wrong, "b")])
    assert main([str(plan)]) == 2
    assert "training.learning_rate must be a number > 0, got -1" in capsys.readouterr().err
    assert main([str(plan), "--trial", "c"]) == 2
    assert f"error: --trial c: no such trial in {plan}" in capsys.readouterr().err
    assert not (tmp_path / "trials").exists()


def call(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kerzoo.training", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.mark.slow  # three processes import transformers
def test_the_command_runs_a_plan_end_to_end(sst2: Path, tmp_path: Path) -> None:
    config = trial_config(sst2, tuning=LORA_LAST)
    nowhere = trial_config(tmp_path / "nowhere")
    plan = write_plan(tmp_path, [trial_spec(config, "good"), trial_spec(nowhere, "bad")])
    one = call(plan, "--trial", "good")
    assert one.returncode == 0, one.stderr
    assert "[1/1] good mezo" in one.stdout
    assert "24 forward passes" in one.stdout
    assert [path.name for path in (tmp_path / "trials").iterdir()] == ["good"]
    both = call(plan)
    assert both.returncode == 1, both.stderr
    assert "good mezo: finished already" in both.stdout
    assert "failed: ValueError: task.data_dir: no stsa.binary.train" in both.stdout
    good = TrialFolder(tmp_path / "trials" / "good")
    here = run(config, tmp_path / "here")
    assert [r | {"trial_id": ""} for r in numbers(good.rows())] == [
        r | {"trial_id": ""} for r in numbers(here.rows())
    ]
    prepared = call(plan, "--trial", "good", "--prepare")
    assert set(json.loads(prepared.stdout)) == {"model_s", "cache_s", "forward_pass_s", "data"}


@pytest.mark.slow  # a process imports torch
def test_help_says_what_the_command_does_and_its_exit_codes() -> None:
    answer = call("--help")
    assert answer.returncode == 0
    assert "Exit codes: 0 done; 1 some trials failed; 2 the plan is wrong; 130" in answer.stdout
    assert "--trial ID" in answer.stdout


@pytest.mark.slow  # a process imports transformers
def test_a_trial_imports_neither_ray_nor_hydra_nor_what_only_reports_need(
    sst2: Path, tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, [trial_spec(trial_config(sst2))])
    program = (
        "import sys; from kerzoo.training import main\n"
        "code = main(sys.argv[1:])\n"
        "print(code, sorted({'ray', 'hydra', 'omegaconf', 'wandb', 'pandas', 'matplotlib'}"
        " & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(plan)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert answer.stdout.splitlines()[-1] == "0 []"


@pytest.mark.slow  # a process imports transformers and is killed
def test_a_trial_whose_process_was_killed_resumes_bit_for_bit(sst2: Path, tmp_path: Path) -> None:
    config = trial_config(sst2, kernel=MEZO, forward_passes=4000, rungs=[0.01, 0.02, 0.05, 1.0])
    plan = write_plan(tmp_path, [trial_spec(config)])
    trial = TrialFolder(tmp_path / "trials" / "trial0")
    with subprocess.Popen(
        [sys.executable, "-m", "kerzoo.training", str(plan)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 200
        while len(trial.rows()) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    made = len(read_trajectory(trial.trajectory_path))
    assert 40 <= made < 2000
    assert trial.status == "running"
    spec = trial_spec(config)
    spec = TrialSpec(**vars(spec) | {"rungs": sorted({*spec.rungs[:3], 2 * made + 40})})
    through = created(tmp_path / "through", spec)
    list(run_trial(spec, through, Workspace()))
    list(run_trial(spec, trial, Workspace()))
    assert numbers(trial.rows()) == numbers(through.rows())
    kept = [r.losses for r in read_trajectory(trial.trajectory_path)]
    again = [r.losses for r in read_trajectory(through.trajectory_path)]
    assert kept == again
    assert trial.read()["attempts"] == 2
