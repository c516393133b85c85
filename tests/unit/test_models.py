"""Models: the contract over every option, the stand-in, local folders, and the hub without net."""

from __future__ import annotations

import dataclasses
import json
import logging as standard_logging
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_models import sizes_of
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from kerzoo.build import build
from kerzoo.models import HubModel, LoadedModel, ModelSource, PackagedSmolLM2, TinyOpt
from kerzoo.models.folder import quiet_transformers

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
OPTIONS = sorted(path.name.removesuffix(".yaml") for path in CONF.glob("*.yaml"))
COMMIT = "27dcfa74d334bc871f3234de431e71c6eeba5dd6"
SENTENCE = "the film was great and the actor unbelievable"


def source_of(option: str) -> Any:
    return build(yaml.safe_load((CONF / f"{option}.yaml").read_text()), "model")


@pytest.fixture(scope="module")
def tiny() -> TinyOpt:
    return TinyOpt(
        name="opt-tiny",
        dtype="float32",
        num_parameters=1,
        num_layers=2,
        hidden_size=16,
        num_heads=2,
        num_positions=64,
        init_std=0.1,
        seed=0,
    )


@pytest.fixture(scope="module")
def loaded(tiny: TinyOpt) -> LoadedModel:
    return tiny.load("cpu")


@pytest.fixture
def folder(loaded: LoadedModel, tmp_path: Path) -> Path:
    with quiet_transformers():
        loaded.model.save_pretrained(tmp_path / "model")
    loaded.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def hub_model(**changes: Any) -> HubModel:
    fields: dict[str, Any] = {
        "name": "opt-125m",
        "hub_id": "facebook/opt-125m",
        "revision": COMMIT,
        "dtype": "float32",
        "num_parameters": 1,
        "num_layers": 2,
        "hidden_size": 16,
    }
    return HubModel(**fields | changes)


def logits(model: LoadedModel) -> torch.Tensor:
    with torch.inference_mode():
        tokens = model.tokenizer(SENTENCE, return_tensors="pt")["input_ids"]
        output: torch.Tensor = model.model(tokens).logits
    return output


# Every option.


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_builds_a_source_of_its_name_that_reads_no_folder(option: str) -> None:
    source = source_of(option)
    assert isinstance(source, ModelSource)
    assert source.name == option
    assert source.path is None


def test_no_two_options_are_the_same_weights() -> None:
    assert len({source_of(option).fingerprint() for option in OPTIONS}) == len(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_fingerprint_depends_on_neither_label_nor_dtype(option: str) -> None:
    source = source_of(option)
    other = dataclasses.replace(source, name="other", dtype="float16")
    assert other.fingerprint() == source.fingerprint()


def test_building_every_option_and_asking_for_its_fingerprint_imports_no_torch() -> None:
    program = (
        "import pathlib, sys, yaml\n"
        "from kerzoo.build import build\n"
        f"for path in pathlib.Path({str(CONF)!r}).glob('*.yaml'):\n"
        "    build(yaml.safe_load(path.read_text()), 'model').fingerprint()\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
    )
    root = CONF.parents[1]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float64"}, "dtype must be one of float32, bfloat16, float16, got 'float64'"),
        ({"num_layers": 0}, "num_layers must be an integer ≥ 1, got 0"),
        ({"hidden_size": 1.5}, "hidden_size must be an integer ≥ 1, got 1.5"),
        ({"revision": "main"}, "revision must be a full commit .*got 'main'"),
    ],
)
def test_a_wrong_value_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hub_model(**change)


@pytest.mark.parametrize("name", ["layer_parameters", "head_parameters", "key_value_size"])
def test_a_size_that_may_be_left_out_is_positive_where_it_is_given(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be an integer ≥ 1 or null, got 0"):
        hub_model(**{name: 0})


OPT: dict[str, Any] = {"model_type": "opt", "vocab_size": 50272}
LLAMA: dict[str, Any] = {"model_type": "llama", "tie_word_embeddings": True}
PUBLISHED: dict[str, dict[str, Any]] = {
    "opt-125m": OPT | {"num_attention_heads": 12},
    "opt-350m": OPT
    | {"num_attention_heads": 16, "word_embed_proj_dim": 512, "do_layer_norm_before": False},
    "opt-1.3b": OPT | {"num_attention_heads": 32},
    "opt-2.7b": OPT | {"num_attention_heads": 32},
    "opt-6.7b": OPT | {"num_attention_heads": 32},
    "opt-13b": OPT | {"num_attention_heads": 40},
    "llama-3.2-1b": LLAMA
    | {"num_attention_heads": 32, "num_key_value_heads": 8}
    | {"intermediate_size": 8192, "vocab_size": 128256},
    "smollm2-135m": LLAMA
    | {"num_attention_heads": 9, "num_key_value_heads": 3}
    | {"intermediate_size": 1536, "vocab_size": 49152},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_of_an_option_are_those_of_the_published_architecture(name: str) -> None:
    source = source_of(name)
    config = {"hidden_size": source.hidden_size, "num_hidden_layers": source.num_layers}
    config |= PUBLISHED[name]
    if config["model_type"] == "opt":
        config = {"ffn_dim": 4 * source.hidden_size} | config
        config = {"word_embed_proj_dim": source.hidden_size} | config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    assert sizes_of(model) == source.sizes


# The stand-in.


@pytest.mark.parametrize("option", ["opt-tiny", "roberta-tiny"])
def test_a_stand_in_has_the_size_that_its_option_states(option: str) -> None:
    source = source_of(option)
    model = source.load("cpu").model
    assert sum(p.numel() for p in model.parameters()) == source.num_parameters
    assert sizes_of(model) == source.sizes


def test_a_loaded_model_is_ready_for_evaluation_only(loaded: LoadedModel) -> None:
    assert not any(module.training for module in loaded.model.modules())
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.model.config.use_cache is False
    assert loaded.model.config._attn_implementation == "sdpa"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    tiny: TinyOpt, loaded: LoadedModel
) -> None:
    other = dataclasses.replace(tiny, seed=1)
    assert torch.equal(logits(tiny.load("cpu")), logits(loaded))
    assert not torch.equal(logits(other.load("cpu")), logits(loaded))
    assert other.fingerprint() != tiny.fingerprint()


def test_making_the_stand_in_leaves_the_global_random_state_as_it_was(tiny: TinyOpt) -> None:
    before = torch.random.get_rng_state()
    tiny.load("cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_stand_in_has_the_dtype_asked_for(tiny: TinyOpt) -> None:
    model = dataclasses.replace(tiny, dtype="bfloat16").load("cpu").model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_the_stand_in_reads_like_opt_from_a_beginning_on(loaded: LoadedModel) -> None:
    ids = loaded.tokenizer(SENTENCE)["input_ids"]
    assert ids[0] == loaded.tokenizer.bos_token_id == 2
    assert loaded.tokenizer.decode(ids[1:]) == SENTENCE
    assert loaded.pad_token_id == loaded.tokenizer.pad_token_id == 1


def test_without_a_padding_token_the_end_of_text_pads(loaded: LoadedModel, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    assert dataclasses.replace(loaded, tokenizer=tokenizer).pad_token_id == 2


def test_without_an_end_of_text_either_token_zero_pads(loaded: LoadedModel, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token = None
    assert dataclasses.replace(loaded, tokenizer=tokenizer).pad_token_id == 0


def test_a_padding_token_for_which_the_model_has_no_embedding_does_not_pad(
    loaded: LoadedModel, folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == len(loaded.tokenizer)
    assert dataclasses.replace(loaded, tokenizer=tokenizer).pad_token_id == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "somewhere"}, "path must be null: opt-tiny is made from its config"),
        ({"num_heads": 3}, "num_heads must divide hidden_size 16, got 3"),
        ({"num_positions": 0}, "num_positions must be ≥ 1, got 0"),
        ({"init_std": 0.0}, "init_std must be > 0, got 0.0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    tiny: TinyOpt, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny, **change)


# Local folders.


@pytest.mark.parametrize("option", ["opt-2.7b", "smollm2-135m"])
def test_a_local_folder_is_read_instead_of_the_source(
    option: str, folder: Path, loaded: LoadedModel
) -> None:
    source = dataclasses.replace(source_of(option), path=str(folder), dtype="float32")
    source.check_available()
    model = source.load("cpu")
    assert torch.equal(logits(model), logits(loaded))
    assert model.revision == source.fingerprint() != source_of(option).fingerprint()


def test_a_local_folder_may_lie_in_the_home_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert hub_model(path="~/model").load("cpu").revision.startswith("sha256:")


def test_one_changed_weight_changes_the_fingerprint_and_a_new_place_does_not(
    folder: Path, tmp_path: Path
) -> None:
    before = hub_model(path=str(folder)).fingerprint()
    shutil.copytree(folder, tmp_path / "copy")
    assert hub_model(path=str(tmp_path / "copy")).fingerprint() == before
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert hub_model(path=str(folder)).fingerprint() != before


def test_notes_in_a_folder_do_not_change_the_fingerprint(folder: Path) -> None:
    before = hub_model(path=str(folder)).fingerprint()
    (folder / "README.md").write_text("a note")
    assert hub_model(path=str(folder)).fingerprint() == before


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused_naming_it(folder: Path, file: str) -> None:
    (folder / file).unlink()
    source = hub_model(path=str(folder))
    named = file.replace("model.", r"\*.") if file.startswith("model.") else file
    for ask in (source.check_available, source.fingerprint, lambda: source.load("cpu")):
        with pytest.raises(ValueError, match=rf"model\.path must be .*has no {named}"):
            ask()


def test_a_folder_that_lacks_some_weights_is_refused_rather_than_filled_at_random(
    folder: Path,
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"\d+ weights of OPTForCausalLM are not in it"):
        hub_model(path=str(folder)).load("cpu")


class Intruder:
    """What a forged file would do when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("intruded"),))


def test_a_pickle_that_holds_more_than_tensors_is_refused_and_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Intruder()}, folder / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(ValueError, match="cannot load the model"):
        hub_model(path=str(folder)).load("cpu")
    assert not (tmp_path / "intruded").exists()


def test_tensors_of_the_older_format_are_read(folder: Path, loaded: LoadedModel) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(loaded.model.state_dict(), folder / "pytorch_model.bin")
    assert torch.equal(logits(hub_model(path=str(folder)).load("cpu")), logits(loaded))


def test_the_files_that_opt_publishes_give_a_beginning_of_text(
    folder: Path, loaded: LoadedModel
) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    published = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}
    published |= {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(published))
    tokenizer = hub_model(path=str(folder)).load("cpu").tokenizer
    assert tokenizer(SENTENCE)["input_ids"] == loaded.tokenizer(SENTENCE)["input_ids"]


# The hub, which the tests cannot reach.


def test_a_model_that_is_nowhere_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source = hub_model()
    for ask in (source.check_available, lambda: source.load("cpu")):
        with pytest.raises(ValueError, match=r"facebook/opt-125m at 27dcfa74 is not") as caught:
            ask()
        assert "model.path=DIR" in str(caught.value)
        assert "model=opt-tiny name=rehearsal" in str(caught.value)


def test_a_model_in_the_cache_of_the_hub_is_loaded_without_network(
    folder: Path, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "models--facebook--opt-125m" / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    source = hub_model()
    source.check_available()
    model = source.load("cpu")
    assert torch.equal(logits(model), logits(loaded))
    assert model.revision == f"facebook/opt-125m@{COMMIT}"


def test_the_packaged_model_asks_no_index_once_it_is_converted(
    tmp_path: Path, folder: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("asked an index")

    monkeypatch.setenv("KERZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", refuse)
    shutil.copytree(folder, tmp_path / "models" / "smollm2-135m-bcc81830")
    source = source_of("smollm2-135m")
    assert isinstance(source, PackagedSmolLM2)
    source.check_available()
    assert torch.equal(logits(source.load("cpu")), logits(loaded))


def test_what_transformers_says_is_restored_after_a_quiet_block() -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with quiet_transformers():
        assert logging.get_verbosity() == standard_logging.ERROR
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
