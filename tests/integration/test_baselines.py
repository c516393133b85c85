"""Baselines as arms: first order, no training, linear probe, with the records of every trial."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_trials import planned
from tiny_trials import FULL, FULL_LAST, LORA, LORA_LAST, created, numbers, trial_config

from kerzoo.attempt import run_trial
from kerzoo.evaluation import evaluate
from kerzoo.export import Checkpoint, export, find_checkpoint
from kerzoo.losses import LabelWordLoss, SequenceRunner
from kerzoo.methods.linear_probe import fit_probe, label_states
from kerzoo.options import TrialOptions
from kerzoo.records import ROW_COLUMNS, TEST_COLUMNS, TrialFolder
from kerzoo.tasks import LabelWordSplit
from kerzoo.training import prepare
from kerzoo.trajectory import read_trajectory
from kerzoo.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_cache")

ADAMW = {"_target_": "kerzoo.methods.FirstOrder", "optimizer": "adamw", "weight_decay": 0.01}
SGD = {"_target_": "kerzoo.methods.FirstOrder", "optimizer": "sgd", "momentum": 0.9}
ZERO_SHOT = {"_target_": "kerzoo.methods.NoTraining"}
IN_CONTEXT = {"_target_": "kerzoo.methods.NoTraining", "num_demonstrations": 2}
PROBE = {"_target_": "kerzoo.methods.LinearProbe", "penalty": 0.1}


def config_of(data: Path, method: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """36 forward passes: 12 first-order steps."""
    budget = {"forward_passes": 36, "learning_rate": 1e-3}
    return trial_config(data, **{"method": method, **budget, **changes})


def roomy(config: dict[str, Any], max_length: int = 60) -> dict[str, Any]:
    config["task"]["max_length"] = max_length
    return config


def run(
    config: dict[str, Any], folder: Path, workspace: Workspace, stop_after: int | None = None
) -> TrialFolder:
    """Run a trial to its end, or until some steps were made in all."""
    spec = planned(config)
    trial = created(folder / "trials", spec)

    class Interrupted(BaseException):
        pass

    def progress(what: str, done: int, total: int) -> None:
        if what == "training" and done == stop_after:
            raise Interrupted

    try:
        for _ in run_trial(spec, trial, workspace, progress):
            if stop_after == 0:
                break
    except Interrupted:
        pass
    return trial


@pytest.fixture
def workspace() -> Workspace:
    return Workspace()


@pytest.mark.parametrize(
    ("method", "tuning", "rate"),
    [
        (ADAMW, LORA, 1e-2),
        (ADAMW, FULL, 1e-2),
        (ADAMW, LORA_LAST, 1e-2),
        (SGD, FULL_LAST, 1e-1),
        (SGD, LORA, 1e-1),
        (ADAMW | {"gradient_checkpointing": True}, FULL, 1e-2),
    ],
)
def test_first_order_lowers_the_loss(
    sst2: Path, tmp_path: Path, workspace: Workspace, method: Any, tuning: Any, rate: float
) -> None:
    config = config_of(sst2, method, tuning=tuning, learning_rate=rate, forward_passes=72)
    trial = run(config, tmp_path, workspace)
    rows = trial.rows()
    assert rows[-1]["dev_loss"] < rows[0]["dev_loss"] - 0.05
    assert trial.status == "finished"


def test_first_order_rows_have_the_columns_of_all_and_null_where_nothing_is_meant(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    trial = run(config_of(sst2, ADAMW), tmp_path, workspace)
    rows = trial.rows()
    columns = tuple(c for c in ROW_COLUMNS if c not in ("dev_f1", *TEST_COLUMNS))
    assert all(tuple(row) == columns for row in rows)
    assert [row["forward_passes"] for row in rows] == [0, 9, 18, 36]
    assert [row["step"] for row in rows] == [0, 3, 6, 12]
    assert [row["examples_seen"] for row in rows] == [0, 24, 48, 96]
    steps = read_trajectory(trial.trajectory_path)
    assert [len(step.losses) for step in steps] == [1] * 12
    assert rows[-1]["tokens_processed"] == 3 * sum(step.tokens for step in steps)
    for name in ("kernel", "order", "half_width", "perturbation_scale", "num_directions"):
        assert rows[-1][name] is None
    assert (rows[-1]["learning_rate"], rows[-1]["learning_rate_factor"]) == (1e-3, 1.0)
    assert rows[-1]["tuning"] == "tuning"


@pytest.mark.parametrize("tuning", [LORA, FULL, FULL_LAST], ids=["lora", "full", "full_last2"])
@pytest.mark.parametrize("method", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_a_first_order_trial_that_was_stopped_resumes_bit_for_bit(
    sst2: Path, tmp_path: Path, workspace: Workspace, method: Any, tuning: Any
) -> None:
    config = config_of(sst2, method, tuning=tuning)
    through = run(config, tmp_path / "through", workspace)
    for stop in (0, 2, 3, 5, 6, 11, 12):
        run(config, tmp_path / "resumed", workspace, stop_after=stop)
    resumed = run(config, tmp_path / "resumed", Workspace())
    assert numbers(resumed.rows()) == numbers(through.rows())
    losses = [[s.losses for s in read_trajectory(t.trajectory_path)] for t in (through, resumed)]
    assert losses[0] == losses[1]
    assert resumed.status == "finished"
    assert resumed.read()["attempts"] == 8


@pytest.mark.parametrize("lost", ["rows", "steps", "state"])
def test_a_first_order_trial_that_lost_records_makes_them_again(
    sst2: Path, tmp_path: Path, workspace: Workspace, lost: str
) -> None:
    config = config_of(sst2, ADAMW)
    through = run(config, tmp_path / "through", workspace)
    trial = run(config, tmp_path / "torn", workspace, stop_after=8)
    if lost == "rows":
        lines = trial.records_path.read_bytes().splitlines(keepends=True)
        trial.records_path.write_bytes(lines[0])
    elif lost == "steps":
        trial.trajectory_path.write_bytes(trial.trajectory_path.read_bytes()[:100])
    else:
        (trial.path / "optimizer.pt").unlink()
    trial = run(config, tmp_path / "torn", workspace)
    assert numbers(trial.rows()) == numbers(through.rows())


def test_gradient_checkpointing_and_stored_activations_give_the_same_steps(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    plain = run(config_of(sst2, ADAMW, tuning=FULL), tmp_path / "a", workspace)
    other = ADAMW | {"gradient_checkpointing": True}
    again = run(config_of(sst2, other, tuning=FULL), tmp_path / "b", workspace)
    for one, two in zip(plain.rows(), again.rows(), strict=True):
        assert one["dev_loss"] == pytest.approx(two["dev_loss"], abs=1e-6)


def test_a_first_order_trial_in_bfloat16_learns_through_its_masters(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    config = config_of(sst2, ADAMW, tuning=FULL, forward_passes=72, learning_rate=1e-2)
    config["model"]["dtype"] = "bfloat16"
    rows = run(config, tmp_path, workspace).rows()
    assert rows[-1]["dev_loss"] < rows[0]["dev_loss"] - 0.05


def test_what_a_first_order_trial_exports_is_the_model_that_was_evaluated(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    from transformers import AutoModelForCausalLM

    config = config_of(sst2, ADAMW, tuning=FULL)
    trial = run(config, tmp_path, workspace)
    row = trial.rows()[2]
    export(Checkpoint(trial, row), tmp_path / "out")
    with workspace.open(TrialOptions.from_config(config)) as bench:
        loaded = bench.dev.runner.loaded
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="float32").eval()
        runner = SequenceRunner(dataclasses.replace(loaded, model=model), bench.dev.split.sequences)
        assert isinstance(bench.dev.split, LabelWordSplit)
        metrics = evaluate(LabelWordLoss(runner, bench.dev.split, "cross_entropy"), True)
    assert metrics.loss == pytest.approx(row["dev_loss"], abs=1e-5)


@pytest.mark.parametrize("method", [ZERO_SHOT, PROBE])
def test_a_trial_without_a_model_of_its_own_is_not_exported(
    sst2: Path, tmp_path: Path, workspace: Workspace, method: Any
) -> None:
    trial = run(config_of(sst2, method), tmp_path, workspace)
    with pytest.raises(ValueError, match="nothing was evaluated after an update"):
        find_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="changes no weights"):
        export(Checkpoint(trial, trial.rows()[-1]), tmp_path / "out")


def test_zero_shot_is_one_evaluation_of_the_untouched_model(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    config = config_of(sst2, ZERO_SHOT)
    trial = run(config, tmp_path, workspace)
    (row,) = trial.rows()
    assert (row["step"], row["rung"], row["forward_passes"]) == (0, 0, 0)
    assert trial.status == "finished"
    options = TrialOptions.from_config(config)
    loaded = options.model.load("cpu")
    split = options.task.encode(loaded.tokenizer, "dev")
    assert isinstance(split, LabelWordSplit)
    loss = LabelWordLoss(SequenceRunner(loaded, split.sequences), split, "cross_entropy")
    metrics = evaluate(loss, binary=True)
    assert row["dev_loss"] == metrics.loss
    assert (row["dev_accuracy"], row["dev_auc"]) == (metrics.accuracy, metrics.auc)
    for name in ("kernel", "learning_rate", "perturbation_scale", "seed", "tuning"):
        assert row[name] is None


def test_zero_shot_needs_no_training_examples(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    config = config_of(sst2, ZERO_SHOT, batch_size=1000)
    config["task"]["num_train"] = 0
    assert run(config, tmp_path, workspace).status == "finished"


def test_a_prompt_in_context_is_the_demonstrations_and_the_prompt_with_empty_lines_between(
    sst2: Path, workspace: Workspace
) -> None:
    config = roomy(config_of(sst2, IN_CONTEXT))
    options = TrialOptions.from_config(config)
    first, second = options.task.examples("train")[:2]
    example = options.task.examples("dev")[0]
    words = (" terrible", " great")
    expected = (
        f"{first.fields['text']} It was{words[first.label]}\n\n"
        f"{second.fields['text']} It was{words[second.label]}\n\n"
        f"{example.fields['text']} It was"
    )
    with workspace.open(options) as bench:
        sequences = bench.dev.split.sequences
        tokenizer = bench.dev.runner.loaded.tokenizer
        ids = sequences.tokens[: int(sequences.offsets[1])]
        assert tokenizer.decode(ids) == f"</s>{expected}"
        assert bench.notes == {}


def test_demonstrations_change_the_figures_and_cost_nothing(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    (alone,) = run(roomy(config_of(sst2, ZERO_SHOT)), tmp_path, workspace).rows()
    (shown,) = run(roomy(config_of(sst2, IN_CONTEXT)), tmp_path, workspace).rows()
    assert alone["dev_loss"] != shown["dev_loss"]
    assert shown["forward_passes"] == shown["tokens_processed"] == 0


def test_demonstrations_that_do_not_fit_are_refused_with_the_numbers(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    config = config_of(sst2, IN_CONTEXT | {"num_demonstrations": 8})
    spec = planned(config)
    with pytest.raises(ValueError, match=r"8 of them 40 of 40 examples do not fit the 32 tokens"):
        list(run_trial(spec, created(tmp_path, spec), workspace))
    long = roomy(config, 64)  # the model's positions
    with pytest.raises(ValueError, match="do not fit the 64 tokens"):
        prepare([planned(long)], workspace)


def test_with_fit_cut_whole_demonstrations_are_left_out_and_counted(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    config = roomy(config_of(sst2, IN_CONTEXT | {"num_demonstrations": 12, "fit": "cut"}))
    trial = run(config, tmp_path, workspace)
    assert (
        "of 480 left out, for want of room in 60 tokens" in trial.read()["notes"]["demonstrations"]
    )
    with workspace.open(TrialOptions.from_config(config)) as bench:
        sequences = bench.dev.split.sequences
        tokenizer = bench.dev.runner.loaded.tokenizer
        assert sequences.num_truncated == 0
        texts = {
            tokenizer.decode(sequences.tokens[a:b]).removeprefix("</s>")
            for a, b in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
        }
    task = TrialOptions.from_config(config).task
    shown = [task.verbalise(example) for example in task.examples("train")[:12]]
    for text in texts:
        *before, _ = text.split("\n\n")
        assert 0 < len(before) < 12
        assert before == shown[-len(before) :]


def test_a_probe_on_separable_states_is_right_and_the_same_each_time() -> None:
    """Accuracy 1 on 40 of two classes whose means differ by 4 standard deviations."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    states = torch.randn(80, 6, generator=generator, dtype=torch.float64)
    states[:, 0] += 6.0 * labels
    probes = [fit_probe(states[:40], labels[:40], 2, 0.01) for _ in range(2)]
    assert float((probes[0].scores(states[40:]).argmax(1) == labels[40:]).double().mean()) > 0.9
    assert torch.equal(probes[0].weight, probes[1].weight)


def test_a_probe_is_where_the_gradient_vanishes() -> None:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (50,), generator=generator)
    probe = fit_probe(states, labels, 3, 0.1)
    z = (states - probe.mean) / probe.scale
    error = probe.scores(states).softmax(1) - torch.nn.functional.one_hot(labels, 3)
    assert float((error.T @ z / 50 + 0.1 * probe.weight).abs().max()) < 1e-6
    assert float(error.mean(0).abs().max()) < 1e-6


def test_a_linear_probe_beats_chance_and_counts_its_passes(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    config = config_of(sst2, PROBE | {"penalty": 0.01})
    trial = run(config, tmp_path / "one", workspace)
    before, after = trial.rows()
    assert after["dev_accuracy"] > 0.7
    assert (after["rung"], after["step"], after["forward_passes"]) == (36, 1, 8)
    assert after["examples_seen"] == 60
    assert after["train_loss"] < 0.69
    (zero_shot,) = run(config_of(sst2, ZERO_SHOT), tmp_path, workspace).rows()
    assert before["dev_loss"] == zero_shot["dev_loss"]
    again = run(config, tmp_path / "two", workspace, stop_after=0)
    again = run(config, tmp_path / "two", Workspace(), stop_after=1)
    again = run(config, tmp_path / "two", Workspace())
    assert numbers(again.rows()) == numbers(trial.rows())


@pytest.mark.parametrize("words", [[" terrible", " great"], [" quite terrible", " great"]])
def test_the_states_of_a_probe_are_those_at_the_end_of_the_prompt(
    sst2: Path, workspace: Workspace, words: list[str]
) -> None:
    config = config_of(sst2, PROBE)
    config["task"]["label_words"] = words
    options = TrialOptions.from_config(config)
    with workspace.open(options) as bench:
        found = label_states(bench.dev, [3, 1])
        loaded = bench.dev.runner.loaded
        for index, state in zip([3, 1], found, strict=True):
            text = f"{options.task.examples('dev')[index].fields['text']} It was"
            with torch.inference_mode():
                ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
                hidden = loaded.model.base_model(input_ids=ids).last_hidden_state[0, -1]
            assert torch.allclose(state, hidden.double(), atol=1e-5)


def test_preparing_measures_every_method_and_changes_no_bit(
    sst2: Path, tmp_path: Path, workspace: Workspace
) -> None:
    methods = (ADAMW, SGD, ZERO_SHOT, PROBE)
    configs = [config_of(sst2, method, tuning=FULL) for method in methods]
    assert prepare([planned(c) for c in configs], workspace)["forward_pass_s"] > 0
    for config in configs:
        prepared = run(config, tmp_path / "prepared", workspace)
        alone = run(config, tmp_path / "alone", Workspace())
        assert numbers(prepared.rows()) == numbers(alone.rows())
