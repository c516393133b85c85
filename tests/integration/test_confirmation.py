"""Confirming trials: the test split is read once, at the checkpoint that dev chose."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tiny_trials import FULL, LORA, LORA_LAST, created, numbers, trial_config
from tiny_trials import trial_spec as spec_of

from kerzoo import confirmation
from kerzoo.attempt import run_trial
from kerzoo.confirmation import figures_of_test
from kerzoo.evaluation import Metrics, evaluate
from kerzoo.export import export, find_checkpoint
from kerzoo.identity import trial_id
from kerzoo.options import TrialOptions
from kerzoo.records import Row, TrialFolder, choose_checkpoint
from kerzoo.training import prepare
from kerzoo.workspace import Workspace

TEST_OF_CLASSES = ("test_step", "test_loss", "test_accuracy", "test_auc")
RUNGS = [0.25, 0.5, 0.75, 1.0]


@pytest.fixture
def workspace(own_cache: Path) -> Workspace:
    return Workspace()


def config_of(sst2: Path, tuning: dict[str, Any], rate: float = 0.01) -> dict[str, Any]:
    return trial_config(
        sst2, tuning=tuning, learning_rate=rate, forward_passes=32, rungs=RUNGS, batch_size=4
    )


def run(
    config: dict[str, Any], folder: Path, workspace: Workspace, phase: str = "confirm"
) -> TrialFolder:
    options = TrialOptions.from_config(config)
    identity = trial_id(
        config, options.kernel, options.model.fingerprint(), options.task.fingerprint()
    )
    spec = dataclasses.replace(spec_of(config, identity, phase), rungs=options.rungs)
    trial = created(folder / "trials", spec)
    list(run_trial(spec, trial, workspace))
    return trial


def count_readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the splits that the end of a confirming trial evaluates."""
    sizes: list[int] = []

    def counting(loss: Any, binary: bool) -> Metrics:
        sizes.append(len(loss.split))
        return evaluate(loss, binary)

    monkeypatch.setattr(confirmation, "evaluate", counting)
    return sizes


@pytest.mark.parametrize("tuning", [LORA, LORA_LAST, FULL], ids=["lora", "lora_last", "full"])
def test_a_confirming_trial_reads_test_once_and_is_else_the_screening_trial(
    sst2: Path,
    tmp_path: Path,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    tuning: dict[str, Any],
) -> None:
    config = config_of(sst2, tuning)
    screened = run(config, tmp_path / "screen", workspace, "screen")
    readings = count_readings(monkeypatch)
    confirmed = run(config, tmp_path / "confirm", workspace)
    assert readings == [20]
    assert confirmed.status == "finished"
    *earlier, last = numbers(confirmed.rows())
    assert all(row[name] is None for row in earlier for name in TEST_OF_CLASSES)
    assert all(last[name] is not None for name in TEST_OF_CLASSES)
    assert {row["phase"] for row in (*earlier, last)} == {"confirm"}
    for row in (*earlier, last):
        for name in TEST_OF_CLASSES:
            del row[name]
        row["phase"] = "screen"
    assert [*earlier, last] == numbers(screened.rows())
    assert screened.path.name == confirmed.path.name


def find_rate_with_an_early_best(sst2: Path, folder: Path, workspace: Workspace) -> float:
    for rate in (0.002, 0.005, 0.01, 0.02, 0.05):
        rows = run(config_of(sst2, FULL, rate), folder / str(rate), workspace, "screen").rows()
        if not rows[-1]["diverged"] and 4 <= choose_checkpoint(rows)["step"] < rows[-1]["step"]:
            return rate
    raise AssertionError("no rate has its best checkpoint in the middle; choose other rates")


def test_test_is_read_at_the_best_checkpoint_in_the_middle_and_not_at_the_end(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    """The weights of `kerzoo.export`, loaded from its folder, have the same figures."""
    rate = find_rate_with_an_early_best(sst2, tmp_path / "screen", workspace)
    config = config_of(sst2, FULL, rate)
    trial = run(config, tmp_path, workspace)
    rows = trial.rows()
    chosen = min(rows[1:], key=lambda row: row["dev_loss"])
    last = rows[-1]
    assert 0 < last["test_step"] == chosen["step"] < last["step"]

    checkpoint = find_checkpoint(tmp_path)
    assert checkpoint.row["step"] == last["test_step"]
    export(checkpoint, tmp_path / "model")
    exported = {
        **{k: v for k, v in config["model"].items() if k in ("dtype", "num_parameters")},
        **{k: v for k, v in config["model"].items() if k in ("num_layers", "hidden_size")},
        "_target_": "kerzoo.models.HubModel",
        "name": "exported",
        "hub_id": "nobody/nothing",
        "revision": "0" * 40,
        "path": str(tmp_path / "model"),
    }
    options = TrialOptions.from_config({**config, "model": exported})
    with workspace.open_test(options) as (_, loss):
        metrics = evaluate(loss, binary=True)
    assert (last["test_loss"], last["test_accuracy"], last["test_auc"]) == (
        metrics.loss,
        metrics.accuracy,
        metrics.auc,
    )
    with workspace.open(options) as bench:
        assert evaluate(bench.dev, binary=True).loss == chosen["dev_loss"]


@pytest.mark.parametrize("tuning", [LORA, FULL], ids=["lora", "full"])
def test_a_trial_that_was_ended_while_test_was_read_gives_the_same_row(
    sst2: Path,
    tmp_path: Path,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    tuning: dict[str, Any],
) -> None:
    config = config_of(sst2, tuning)
    whole = numbers(run(config, tmp_path / "whole", workspace).rows())

    def end(loss: Any, binary: bool) -> Metrics:
        raise KeyboardInterrupt

    monkeypatch.setattr(confirmation, "evaluate", end)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "resumed", workspace)
    (path,) = (tmp_path / "resumed" / "trials").iterdir()
    assert len(TrialFolder(path).rows()) == len(whole) - 1
    readings = count_readings(monkeypatch)
    resumed = run(config, tmp_path / "resumed", workspace)
    assert readings == [20]
    assert numbers(resumed.rows()) == whole
    assert resumed.status == "finished"


def test_a_trial_that_was_ended_after_its_last_row_does_not_read_test_again(
    sst2: Path, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = run(config_of(sst2, LORA), tmp_path, workspace)
    rows = trial.rows()
    trial.update(status="interrupted")
    readings = count_readings(monkeypatch)
    run(config_of(sst2, LORA), tmp_path, workspace)
    assert readings == []
    assert trial.rows() == rows
    assert trial.status == "finished"


def test_a_confirming_trial_that_diverges_reads_no_test(
    sst2: Path, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = count_readings(monkeypatch)
    trial = run(config_of(sst2, FULL, rate=1e20), tmp_path, workspace)
    assert trial.status == "diverged"
    assert readings == []
    assert all(row[name] is None for row in trial.rows() for name in TEST_OF_CLASSES)


def test_preparing_a_confirmation_reads_the_test_examples(sst2: Path, workspace: Workspace) -> None:
    config = config_of(sst2, LORA)
    config["task"]["num_test"] = 1000
    assert prepare([spec_of(config)], workspace)["forward_pass_s"] > 0
    with pytest.raises(ValueError, match=r"task\.num_test must not exceed"):
        prepare([spec_of(config, phase="confirm")], workspace)


def test_dev_chooses_after_step_0_and_the_earlier_of_equal_rows() -> None:
    losses: list[float | None] = [0.1, 0.5, 0.4, 0.4, None]
    rows: list[Row] = [
        {"step": step, "dev_loss": loss, "diverged": loss is None, "test_loss": -step}
        for step, loss in enumerate(losses)
    ]
    assert choose_checkpoint(rows)["step"] == 2
    assert choose_checkpoint(reversed(rows))["step"] == 2
    with pytest.raises(ValueError, match="nothing was evaluated"):
        choose_checkpoint(rows[:1])


def test_test_columns_are_those_of_the_tasks_metric(sst2: Path) -> None:
    task = TrialOptions.from_config(trial_config(sst2)).task
    assert tuple(figures_of_test(task, None, None)) == TEST_OF_CLASSES


def first_order(optimizer: str) -> dict[str, Any]:
    return {
        "_target_": "kerzoo.methods.FirstOrder",
        "optimizer": optimizer,
        "weight_decay": 0.0,
        "betas": [0.9, 0.999],
        "momentum": 0.0,
        "gradient_checkpointing": False,
    }


def no_training(num_demonstrations: int) -> dict[str, Any]:
    return {
        "_target_": "kerzoo.methods.NoTraining",
        "num_demonstrations": num_demonstrations,
        "fit": "cut",
    }


BASELINES = {
    "adamw": first_order("adamw"),
    "sgd": first_order("sgd"),
    "zero_shot": no_training(0),
    "in_context": no_training(2),
    "linear_probe": {"_target_": "kerzoo.methods.LinearProbe", "penalty": 0.1},
}


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_reads_test_once_at_the_checkpoint_that_dev_chose(
    sst2: Path,
    tmp_path: Path,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    config = {**config_of(sst2, LORA), "method": BASELINES[name]}
    readings = count_readings(monkeypatch)
    trial = run(config, tmp_path, workspace)
    assert readings == [20]
    assert trial.status == "finished"
    *earlier, last = trial.rows()
    assert all(row[column] is None for row in earlier for column in TEST_OF_CLASSES)
    assert all(last[column] is not None for column in TEST_OF_CLASSES)
    chosen = choose_checkpoint([*earlier, last])["step"] if earlier else 0
    assert last["test_step"] == chosen


def test_the_probe_that_is_kept_is_the_one_that_dev_judged(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    config = {**config_of(sst2, LORA), "method": BASELINES["linear_probe"]}
    trial = run(config, tmp_path, workspace)
    options = TrialOptions.from_config(config)
    with workspace.open(options) as bench:
        judged = options.method.judge(bench.dev, trial, 1)
        assert evaluate(judged, binary=True).loss == trial.rows()[-1]["dev_loss"]
    (trial.path / "probe.safetensors").unlink()
    with pytest.raises(ValueError, match="is missing, so the probe cannot be had"):
        options.method.judge(bench.dev, trial, 1)


@pytest.mark.parametrize("rate", [0.001, 0.05], ids=["falling", "rising"])
def test_a_first_order_trial_keeps_the_weights_that_dev_would_choose_and_the_newest(
    sst2: Path, tmp_path: Path, workspace: Workspace, rate: float
) -> None:
    config = {**config_of(sst2, LORA, rate), "method": BASELINES["adamw"]}
    trial = run(config, tmp_path, workspace)
    rows = trial.rows()
    kept = {int(path.stem.rpartition("-")[2]) for path in trial.path.glob("weights-*")}
    assert len(rows) == 5
    assert len(kept) <= 2
    assert {choose_checkpoint(rows)["step"], rows[-1]["step"]} <= kept
