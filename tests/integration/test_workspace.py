"""What a workspace asks of a model before a trial begins."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_trials import FULL, LORA, MODEL, created, numbers, trial_config, trial_spec

from kerzoo.attempt import run_trial
from kerzoo.models import HubModel, LoadedModel, TinyOpt
from kerzoo.options import TrialOptions
from kerzoo.progress import no_progress
from kerzoo.workspace import Workspace, weights_checksum

FIRST_ORDER = {"_target_": "kerzoo.methods.FirstOrder", "optimizer": "adamw"}


@pytest.fixture
def folder(loaded: LoadedModel, tmp_path: Path) -> Path:
    """Where a copy of the tiny model lies, whose weights any trial may move."""
    folder = tmp_path / "model"
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def config_in(folder: Path, sst2: Path, **changes: Any) -> dict[str, Any]:
    sizes = {k: MODEL[k] for k in ("dtype", "num_parameters", "num_layers", "hidden_size")}
    names = {"name": "mine", "hub_id": "nobody/nothing", "revision": "0123456789" * 4}
    model = {"_target_": "kerzoo.models.HubModel", **sizes, **names, "path": str(folder)}
    return trial_config(sst2, model=model, **{"tuning": FULL} | changes)


def train(workspace: Workspace, options: TrialOptions) -> LoadedModel:
    """Move all weights as a trial does, and leave gradients as one that was interrupted does."""
    with workspace.open(options) as bench:
        options.optimizer(bench.parameters).weights.perturb_(1, (0.1,))
        for parameter in bench.parameters:
            parameter.requires_grad_(True).grad = torch.zeros_like(parameter)
    del bench, parameter
    return workspace.load(options)


def test_prompts_longer_than_the_models_positions_are_refused(
    sst2: Path,
) -> None:
    config = trial_config(sst2)
    config["task"]["max_length"] = 65
    refused = r"task\.max_length must not exceed the 64 positions of opt-tiny, got 65"
    options = TrialOptions.from_config(config)
    with pytest.raises(ValueError, match=refused), Workspace().open(options):
        pass


def test_a_workspace_spreads_models_for_gpus_alone(
    sst2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    load = TinyOpt.load

    def pretend(
        self: TinyOpt, device: str, progress: Any = no_progress, num_devices: int = 1
    ) -> Any:
        asked.append((device, num_devices))
        return load(self, "cpu")

    monkeypatch.setattr(TinyOpt, "load", pretend)
    workspace = Workspace(num_devices=2)
    for device in ("cpu", "cuda"):
        workspace.load(TrialOptions.from_config(trial_config(sst2, device=device)))
    assert asked == [("cpu", 1), ("cuda", 2)]


def test_a_trained_model_is_given_its_weights_again_and_not_loaded(
    folder: Path, sst2: Path
) -> None:
    options, workspace = TrialOptions.from_config(config_in(folder, sst2)), Workspace()
    first = workspace.load(options)
    expected = weights_checksum(first.model)
    for _ in range(3):
        assert train(workspace, options) is first
        assert weights_checksum(first.model) == expected
        assert not any(p.requires_grad for p in first.model.parameters())
        assert all(p.grad is None for p in first.model.parameters())
        assert all(p.data_ptr() % 64 == 0 for p in first.model.parameters())


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    start = file.read_bytes()[:100]
    file.unlink()  # a model may still be mapped from what is on the disk
    file.write_bytes(start)


def rename(file: Path) -> None:
    weights = {n.removeprefix("model."): w.clone() for n, w in load_file(file).items()}
    file.unlink()
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize("damage", [remove, cut])
def test_a_trained_model_whose_folder_was_damaged_is_not_used_again(
    folder: Path, sst2: Path, damage: Callable[[Path], None]
) -> None:
    options, workspace = TrialOptions.from_config(config_in(folder, sst2)), Workspace()
    expected = weights_checksum(workspace.load(options).model)
    file, kept = folder / "model.safetensors", folder / "kept"
    shutil.copy2(file, kept)
    damage(file)
    with pytest.raises(ValueError, match=str(folder)):
        train(workspace, options)
    file.unlink(missing_ok=True)
    shutil.copy2(kept, file)
    assert weights_checksum(workspace.load(options).model) == expected


def test_a_model_whose_folder_has_other_names_is_loaded_as_a_whole_once_the_old_one_is_gone(
    folder: Path, sst2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename(folder / "model.safetensors")
    options, workspace = TrialOptions.from_config(config_in(folder, sst2)), Workspace()
    first = workspace.load(options)
    expected = weights_checksum(first.model)
    old, load = weakref.ref(first.model), HubModel.load
    alive: list[bool] = []

    def watched(self: HubModel, *arguments: Any, **options: Any) -> LoadedModel:
        gc.collect()
        alive.append(old() is not None)
        return load(self, *arguments, **options)

    monkeypatch.setattr(HubModel, "load", watched)
    del first
    assert weights_checksum(train(workspace, options).model) == expected
    assert alive == [False]


def test_a_folder_that_changed_between_two_trials_is_refused(folder: Path, sst2: Path) -> None:
    options, workspace = TrialOptions.from_config(config_in(folder, sst2)), Workspace()
    workspace.load(options)
    file = folder / "model.safetensors"
    weights = {name: tensor + 1 for name, tensor in load_file(file).items()}
    file.unlink()
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match="the files of mine changed while its trials run"):
        train(workspace, options)


def test_trials_in_turn_have_the_rows_of_each_in_a_process_of_its_own(
    folder: Path, sst2: Path, tmp_path: Path
) -> None:
    kinds = {
        "full": {},
        "first order": {"method": FIRST_ORDER},
        "lora": {"tuning": LORA},
        "full again": {"seed": 1},
    }
    workspace = Workspace()
    for name, changes in kinds.items():
        spec = trial_spec(config_in(folder, sst2, **changes))
        together = list(run_trial(spec, created(tmp_path / "one" / name, spec), workspace))
        alone = list(run_trial(spec, created(tmp_path / "own" / name, spec), Workspace()))
        assert numbers(together) == numbers(alone)
