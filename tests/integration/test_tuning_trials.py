"""Trials in every tuning mode: they resume bit for bit, and are exported to what they computed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_trials import LORA, created, numbers, trial_config, trial_spec
from transformers import AutoModelForCausalLM

from kerzoo.attempt import run_trial
from kerzoo.export import export, find_checkpoint
from kerzoo.identity import trial_id
from kerzoo.options import TrialOptions
from kerzoo.records import TrialFolder, TrialSpec
from kerzoo.tasks import LabelWordSplit
from kerzoo.workspace import Workspace, weights_checksum

PREFIX = {
    "_target_": "kerzoo.tuning.PrefixTuning",
    "num_tokens": 5,
    "initialisation": "activations",
    "last_layers": None,
}
PROMPT = {"_target_": "kerzoo.tuning.PromptTuning", "num_tokens": 5, "last_layers": None}
SCALES = {
    "_target_": "kerzoo.tuning.IA3",
    "target_modules": None,
    "feedforward_modules": None,
    "last_layers": 2,
}
HEAD = {"_target_": "kerzoo.tuning.HeadTuning", "last_layers": 0}
MODES = {
    "prefix": PREFIX,
    "prompt": PROMPT,
    "ia3": SCALES,
    "head": HEAD,
    "head, uncached": HEAD | {"last_layers": None},
    "lora": LORA | {"target_modules": None},
}

pytestmark = pytest.mark.usefixtures("own_cache")
each_mode = pytest.mark.parametrize("mode", sorted(MODES))


def spec_of(config: dict[str, Any]) -> TrialSpec:
    options = TrialOptions.from_config(config)
    model, data = options.model.fingerprint(), options.task.fingerprint()
    return trial_spec(config, trial_id(config, options.kernel, model, data))


def run(config: dict[str, Any], folder: Path, steps: int | None = None) -> TrialFolder:
    """Run a trial to its end, or close it after some steps."""
    spec = spec_of(config)
    trial = created(folder / "trials", spec)
    attempt = run_trial(spec, trial, Workspace())
    for _ in itertools.islice(attempt, steps):
        pass
    attempt.close()
    return trial


@each_mode
def test_a_trial_in_every_mode_resumes_bit_for_bit_and_leaves_the_model_alone(
    sst2: Path, tmp_path: Path, mode: str
) -> None:
    config = trial_config(sst2, tuning=MODES[mode])
    through = run(config, tmp_path / "through")
    run(config, tmp_path / "twice", steps=2)
    resumed = run(config, tmp_path / "twice")
    assert resumed.status == "finished"
    assert numbers(resumed.rows()) == numbers(through.rows())
    losses = [row["dev_loss"] for row in through.rows()]
    assert len(set(losses)) == len(losses)


@each_mode
def test_between_trials_the_model_is_not_loaded_again(sst2: Path, mode: str) -> None:
    options = TrialOptions.from_config(trial_config(sst2, tuning=MODES[mode]))
    workspace = Workspace()
    loaded = workspace.load(options)
    checksum = weights_checksum(loaded.model)
    with workspace.open(options) as bench:
        for parameter in bench.parameters:
            parameter.data.add_(0.1)
    assert workspace.load(options) is loaded
    assert weights_checksum(loaded.model) == checksum


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # asked by PEFT
@each_mode
def test_an_exported_trial_computes_what_the_trial_did(
    sst2: Path, tmp_path: Path, mode: str
) -> None:
    config = trial_config(sst2, tuning=MODES[mode])
    trial = run(config, tmp_path)
    checkpoint = find_checkpoint(tmp_path, step=trial.rows()[-1]["step"])
    kind = export(checkpoint, tmp_path / "out")
    options = TrialOptions.from_config(config)
    if mode.startswith("head"):
        assert kind == "model"
        model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out")).eval()
    else:
        assert kind == "adapters without base"
        base = options.model.load("cpu").model
        model = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    split = options.task.encode(options.model.load("cpu").tokenizer, "dev")
    assert isinstance(split, LabelWordSplit)
    tokens = split.sequences
    losses = []
    for index in range(40):
        start, stop = int(tokens.offsets[index]), int(tokens.offsets[index + 1])
        ids = torch.as_tensor(tokens.tokens[start:stop]).long()[None]
        with torch.no_grad():
            scores = model(input_ids=ids).logits[0, -1][torch.as_tensor(split.label_token_ids)]
        label = torch.as_tensor(split.labels[index]).long()
        losses.append(float(torch.nn.functional.cross_entropy(scores, label)))
    assert sum(losses) / 40 == pytest.approx(checkpoint.row["dev_loss"], abs=1e-4)


@pytest.mark.parametrize("mode", ["prefix", "prompt"])
def test_virtual_tokens_cannot_be_merged(sst2: Path, tmp_path: Path, mode: str) -> None:
    run(trial_config(sst2, tuning=MODES[mode]), tmp_path)
    with pytest.raises(ValueError, match=r"puts virtual tokens in front .* leave --merge out"):
        export(find_checkpoint(tmp_path), tmp_path / "out", merge=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["ia3", "lora"])
def test_merged_adapters_are_a_whole_model(sst2: Path, tmp_path: Path, mode: str) -> None:
    run(trial_config(sst2, tuning=MODES[mode]), tmp_path)
    assert export(find_checkpoint(tmp_path), tmp_path / "out", merge=True) == "model"
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    assert type(model).__name__ == "OPTForCausalLM"
