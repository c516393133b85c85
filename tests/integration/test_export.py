"""`python -m kerzoo.export`: folders that transformers and PEFT load, of the recorded dev loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peft import AutoPeftModelForCausalLM, PeftModel
from recorded_trials import best_row, recorded
from tiny_trials import (
    FULL,
    FULL_LAST,
    LORA,
    LORA_LAST,
    MODEL,
    label_word_loss,
    trial_config,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from kerzoo.build import build
from kerzoo.evaluation import Metrics, evaluate
from kerzoo.export import KINDS, export, find_checkpoint
from kerzoo.models import LoadedModel
from kerzoo.options import TrialOptions
from kerzoo.records import TrialFolder
from kerzoo.tasks import LabelWordSplit

ROOT = Path(__file__).resolve().parents[2]
ROUNDING = 2e-6
"""In nats. A folder is evaluated without cached layers, and merged adapters round W + B·A once."""

BF16 = MODEL | {"dtype": "bfloat16"}
CLIPPING = {"_target_": "kerzoo.clipping.TensorNormClipping", "bound": 5.0}
FULL_RATE = {"learning_rate": 1e-3}
CASES: dict[str, dict[str, Any]] = {
    "full": {"tuning": FULL} | FULL_RATE,
    "full_last2": {"tuning": FULL_LAST} | FULL_RATE,
    "lora": {"tuning": LORA, "learning_rate": 0.1},
    "lora_last2": {"tuning": LORA_LAST, "learning_rate": 0.1},
    "full_bf16": {"tuning": FULL, "model": BF16} | FULL_RATE,
    "full_inplace": {"tuning": FULL, "precision": "inplace"} | FULL_RATE,
    "lora_code": {"num_directions": 3, "r_scope": "tensor", "clipping": CLIPPING},
    "lora_points": {"points_per_forward": 3, "num_directions": 2, "learning_rate": 0.1},
    "lora_points_inplace": {
        "points_per_forward": 2,
        "precision": "inplace",
        "learning_rate": 0.1,
    },
    "lora_bf16": {"tuning": LORA, "model": BF16, "learning_rate": 0.1},
}

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT asks
]


def metrics_of(model: Any, out: Path, trial: TrialFolder) -> Metrics:
    """Dev metrics of a model with the tokenizer of a folder."""
    options = TrialOptions.from_config(trial.read()["config"])
    tokenizer = AutoTokenizer.from_pretrained(out)
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    loaded = LoadedModel(whole.train(False), tokenizer, "")
    split = options.task.encode(tokenizer, "dev")
    assert isinstance(split, LabelWordSplit)
    return evaluate(label_word_loss(loaded, split), binary=True)


@pytest.fixture(scope="module")
def results(sst2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished LoRA trials; the second has seed 1."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERZOO_CACHE", str(folder / "cache"))
        for seed in (0, 1):
            recorded(trial_config(sst2, learning_rate=0.1, seed=seed), folder)
    return folder


def trials_of(results: Path) -> list[TrialFolder]:
    return [TrialFolder(path.parent) for path in sorted(results.glob("trials/*/trial.json"))]


@pytest.mark.parametrize("case", sorted(CASES))
def test_an_exported_checkpoint_has_the_recorded_dev_loss(
    sst2: Path, tmp_path: Path, case: str
) -> None:
    trial = recorded(trial_config(sst2, **CASES[case]), tmp_path)
    checkpoint = find_checkpoint(tmp_path)
    assert checkpoint.row == best_row(trial)
    first = trial.rows()[0]["dev_loss"]
    assert abs(checkpoint.row["dev_loss"] - first) > 100 * ROUNDING
    out = tmp_path / "out"
    kind = export(checkpoint, out)
    if case.startswith("full"):
        assert kind == "model"
        model: Any = AutoModelForCausalLM.from_pretrained(out)
    else:
        assert kind == "adapters without base"
        about = json.loads((out / "kerzoo.json").read_text())
        base = build(about["config"]["model"], "model").load("cpu").model
        model = PeftModel.from_pretrained(base, out)
    found = metrics_of(model, out, trial)
    assert found.loss == pytest.approx(checkpoint.row["dev_loss"], abs=ROUNDING)
    assert found.accuracy == checkpoint.row["dev_accuracy"]


@pytest.mark.parametrize(("case", "tolerance"), [("lora_last2", ROUNDING), ("lora_bf16", 2e-2)])
def test_merged_adapters_make_a_whole_model_with_the_recorded_dev_loss(
    sst2: Path, tmp_path: Path, case: str, tolerance: float
) -> None:
    """In bf16 the sum W + B·A is rounded to 8 bits, which the run itself never does."""
    trial = recorded(trial_config(sst2, **CASES[case]), tmp_path)
    out = tmp_path / "merged"
    checkpoint = find_checkpoint(tmp_path)
    assert export(checkpoint, out, merge=True) == "model"
    assert not list(out.glob("adapter*"))
    found = metrics_of(AutoModelForCausalLM.from_pretrained(out), out, trial)
    assert found.loss == pytest.approx(checkpoint.row["dev_loss"], abs=tolerance)


def write_base(folder: Path) -> Path:
    """opt-tiny as a folder of its own, in half precision as models often are."""
    loaded = TrialOptions.from_config(trial_config("nowhere", model=BF16)).model.load("cpu")
    loaded.model.config.use_cache = True  # as models on the hub have it
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def hub_model(path: str | None) -> dict[str, Any]:
    sizes = {k: MODEL[k] for k in ("name", "dtype", "num_parameters", "num_layers", "hidden_size")}
    names = {"hub_id": "nobody/nothing", "revision": "0123456789" * 4, "path": path}
    return {"_target_": "kerzoo.models.HubModel"} | sizes | names


@pytest.mark.parametrize("tuning", [LORA, FULL], ids=["lora", "full"])
def test_a_trial_of_a_local_folder_exports_to_what_loads_by_itself(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: dict[str, Any]
) -> None:
    write_base(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    rate = 0.1 if tuning is LORA else 1e-3
    config = trial_config(sst2, model=hub_model("base"), tuning=tuning, learning_rate=rate)
    trial = recorded(config, tmp_path)
    checkpoint = find_checkpoint(tmp_path)
    out = tmp_path / "out"
    kind = export(checkpoint, out)
    monkeypatch.chdir(ROOT)  # the base is found from anywhere on this machine
    loader: Any = AutoPeftModelForCausalLM if tuning is LORA else AutoModelForCausalLM
    assert kind == ("adapters" if tuning is LORA else "model")
    model = loader.from_pretrained(out, **({"dtype": "float32"} if tuning is LORA else {}))
    found = metrics_of(model, out, trial)
    assert found.loss == pytest.approx(checkpoint.row["dev_loss"], abs=ROUNDING)
    assert model.config.use_cache


def test_adapters_of_a_hub_model_name_it_and_its_commit_and_load_by_themselves(
    sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's cache holds opt-tiny under another name."""
    model = hub_model(None)
    repository = tmp_path / "hub" / "models--nobody--nothing"
    write_base(repository / "snapshots" / model["revision"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    trial = recorded(trial_config(sst2, model=model, learning_rate=0.1), tmp_path)
    checkpoint = find_checkpoint(tmp_path)
    out = tmp_path / "out"
    assert export(checkpoint, out) == "adapters"
    written = json.loads((out / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "nobody/nothing"
    assert written["revision"] == model["revision"]
    assert "base_model: nobody/nothing" in (out / "README.md").read_text()
    adapted = AutoPeftModelForCausalLM.from_pretrained(out, dtype="float32")
    found = metrics_of(adapted, out, trial)
    assert found.loss == pytest.approx(checkpoint.row["dev_loss"], abs=ROUNDING)


def test_the_best_of_all_trials_is_taken_or_the_one_that_is_named(results: Path) -> None:
    trials = trials_of(results)
    rows = [best_row(trial) for trial in trials]
    least = min(rows, key=lambda row: row["dev_loss"])
    assert find_checkpoint(results).row == least
    for trial, row in zip(trials, rows, strict=True):
        found = find_checkpoint(results, trial.path.name)
        assert (found.folder.path, found.row) == (trial.path, row)


def test_any_evaluated_step_can_be_exported(results: Path, tmp_path: Path) -> None:
    trial = trials_of(results)[0]
    for row in trial.rows():
        checkpoint = find_checkpoint(results, trial.path.name, row["step"])
        assert checkpoint.row == row
        out = tmp_path / str(row["step"])
        export(checkpoint, out, merge=True)
        found = metrics_of(AutoModelForCausalLM.from_pretrained(out), out, trial)
        assert found.loss == pytest.approx(row["dev_loss"], abs=ROUNDING)


@pytest.mark.parametrize("status", ["running", "stopped", "interrupted"])
def test_a_trial_that_did_not_finish_is_exported_as_far_as_it_came(
    sst2: Path, tmp_path: Path, status: str
) -> None:
    trial = recorded(trial_config(sst2, learning_rate=0.1), tmp_path, num_rows=3)
    trial.update(status=status)
    with trial.trajectory_path.open("ab") as file:
        file.write(b"\x95\x06")  # a step that was being written
    out = tmp_path / "out"
    checkpoint = find_checkpoint(tmp_path, step=6)
    export(checkpoint, out, merge=True)
    found = metrics_of(AutoModelForCausalLM.from_pretrained(out), out, trial)
    assert found.loss == pytest.approx(checkpoint.row["dev_loss"], abs=ROUNDING)


def test_a_momentum_is_replayed_too(sst2: Path, tmp_path: Path) -> None:
    momentum = {"_target_": "kerzoo.momentum.HeavyBall", "decay": 0.9, "memory": "buffer"}
    trial = recorded(trial_config(sst2, momentum=momentum, learning_rate=0.1), tmp_path)
    checkpoint = find_checkpoint(tmp_path)
    export(checkpoint, tmp_path / "out", merge=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    found = metrics_of(model, tmp_path / "out", trial)
    assert found.loss == pytest.approx(checkpoint.row["dev_loss"], abs=ROUNDING)


def test_the_folder_says_which_trial_and_step_it_is(results: Path, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(results)
    export(checkpoint, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "kerzoo.json").read_text())
    content = checkpoint.folder.read()
    assert about["row"] == checkpoint.row
    assert about["config"] == content["config"]
    assert about["trial_id"] == content["trial_id"]
    assert about["base"].startswith("tiny-opt@sha256:")
    assert about["holds"] == "adapters without base"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing temporary is left


def test_a_full_model_is_written_once_and_not_once_a_tensor(sst2: Path, tmp_path: Path) -> None:
    """The parameters are views of one buffer; tied weights are one tensor."""
    recorded(trial_config(sst2, tuning=FULL, learning_rate=1e-3), tmp_path)
    export(find_checkpoint(tmp_path), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    size = sum(parameter.numel() for parameter in model.parameters()) * 4
    written = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert size <= written < 1.2 * size


@pytest.mark.parametrize("merge", [False, True])
def test_the_card_says_what_was_trained_on_what_how_well_and_how_to_load_it(
    results: Path, tmp_path: Path, merge: bool
) -> None:
    checkpoint = find_checkpoint(results)
    kind = export(checkpoint, tmp_path / "out", merge)
    card = (tmp_path / "out" / "README.md").read_text()
    content, row = checkpoint.folder.read(), checkpoint.row
    before = checkpoint.folder.rows()[0]["dev_loss"]
    for part in (
        f"library_name: {'transformers' if merge else 'peft'}",
        f"| arm | {content['arm']} |",
        f"| task | {content['config']['task']['name']} |",
        f"| dev loss | {row['dev_loss']:.4f}, {before:.4f} without training |",
        KINDS[kind].replace("DTYPE", "float32"),
        content["command"],
    ):
        assert part in card, card
    assert "More Information Needed" not in card
    assert "base_model" not in card  # it was made from a config
