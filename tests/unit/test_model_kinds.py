"""Causal and masked models: told apart by their config, on one device or spread over several."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers
import yaml

from kerzoo.build import build
from kerzoo.models import HubModel, LoadedModel, ModelSource, TinyOpt, TinyRoberta
from kerzoo.models.folder import quiet_transformers

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
SIZES: dict[str, Any] = {
    "dtype": "float32",
    "num_parameters": 1,
    "num_layers": 2,
    "hidden_size": 16,
    "num_heads": 2,
    "num_positions": 24,
    "init_std": 0.1,
    "seed": 0,
}
WORDS = """
terrible great good bad okay awful wonderful positive negative yes no true false True False Yes No
Maybe correct incorrect subjective objective Description Entity Expression Abbreviation Human
Location Number
"""


@pytest.fixture(scope="module")
def masked() -> LoadedModel:
    return TinyRoberta(name="roberta-tiny", **SIZES).load("cpu")


@pytest.fixture(scope="module")
def causal() -> LoadedModel:
    return TinyOpt(name="opt-tiny", **SIZES).load("cpu")


@pytest.fixture(params=["masked", "causal"])
def stand_in(request: pytest.FixtureRequest) -> LoadedModel:
    loaded: LoadedModel = request.getfixturevalue(request.param)
    return loaded


def save(loaded: LoadedModel, folder: Path) -> Path:
    with quiet_transformers():
        loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def source_at(folder: Path) -> HubModel:
    sizes = {"num_parameters": 1, "num_layers": 2, "hidden_size": 16}
    commit = "27dcfa74d334bc871f3234de431e71c6eeba5dd6"
    return HubModel(
        name="any", hub_id="a/b", revision=commit, dtype="float32", path=str(folder), **sizes
    )


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def states(loaded: LoadedModel, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = loaded.model.base_model(input_ids=tokens).last_hidden_state
    return output


# Kinds.


def test_a_folder_gives_back_the_kind_of_model_that_was_saved_in_it(
    stand_in: LoadedModel, tmp_path: Path
) -> None:
    source = source_at(save(stand_in, tmp_path))
    source.check_available()
    again = source.load("cpu")
    assert type(again.model) is type(stand_in.model)
    assert again.is_causal == stand_in.is_causal
    tokens = torch.arange(12)[None]
    assert torch.equal(states(again, tokens), states(stand_in, tokens))


def test_a_causal_model_sees_what_stands_before_and_a_masked_model_sees_all(
    stand_in: LoadedModel,
) -> None:
    tokens = torch.arange(4, 12)[None]
    other = tokens.clone()
    other[0, -1] = 50
    first = [states(stand_in, given)[0, 0] for given in (tokens, other)]
    assert torch.equal(*first) == stand_in.is_causal


def test_the_kind_is_that_of_the_config_and_not_of_a_name(
    masked: LoadedModel, tmp_path: Path
) -> None:
    source = source_at(save(masked, tmp_path / "opt-125m-ForCausalLM"))
    assert not dataclasses.replace(source, name="opt-125m").load("cpu").is_causal


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["RobertaForSequenceClassification"]}, "RobertaForSequenceCl"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "T5For"),
        ({"architectures": ["BartForCausalLM"], "is_encoder_decoder": True}, "BartForCausalLM"),
        ({"architectures": ["RobertaModel"]}, "RobertaModel"),
        ({"architectures": None}, "None"),
        ({"architectures": []}, "None"),
    ],
)
def test_another_architecture_is_refused_naming_folder_and_architecture(
    changes: dict[str, Any], named: str, masked: LoadedModel, tmp_path: Path
) -> None:
    change_config(save(masked, tmp_path / "model"), **changes)
    source = source_at(tmp_path / "model")
    for ask in (source.check_available, lambda: source.load("cpu")):
        with pytest.raises(ValueError, match=f"model: .*masked language model.*got {named}"):
            ask()


@pytest.mark.parametrize("text", ["{", "[1]", "7"])
def test_a_config_that_is_none_is_refused(text: str, masked: LoadedModel, tmp_path: Path) -> None:
    (save(masked, tmp_path) / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: not a model's config"):
        source_at(tmp_path).check_available()


def test_a_cached_model_of_another_architecture_is_refused_when_it_is_planned(
    masked: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source = dataclasses.replace(source_at(tmp_path), path=None)
    folder = tmp_path / "models--a--b" / "snapshots" / source.revision
    change_config(save(masked, folder), architectures=["RobertaForQuestionAnswering"])
    with pytest.raises(ValueError, match="got RobertaForQuestionAnswering"):
        source.check_available()


# The stand-ins.


@pytest.mark.parametrize("word", WORDS.split())
def test_a_label_word_with_a_space_in_front_is_one_token_of_each_stand_in(
    stand_in: LoadedModel, word: str
) -> None:
    ids = stand_in.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    assert stand_in.tokenizer.decode(ids) == f" {word}"
    assert len(ids) == 1


@pytest.mark.parametrize("word", ["Yes", "No", "Maybe"])
def test_an_answer_after_a_line_break_is_one_token_of_each_stand_in(
    stand_in: LoadedModel, word: str
) -> None:
    prompt, whole = (
        stand_in.tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("Yes or No?\n", f"Yes or No?\n{word}")
    )
    assert whole[:-1] == prompt
    assert stand_in.tokenizer.decode(whole[-1:]) == word


def test_the_masked_stand_in_reads_like_roberta(masked: LoadedModel) -> None:
    tokenizer = masked.tokenizer
    text = "It was <mask>."
    ids = tokenizer(text)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert pieces[0] == "<s>"
    assert pieces[-4:] == ["Ġwas", "<mask>", ".", "</s>"]  # the mask takes the space before it
    assert (ids[0], ids[-1], tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 2, 1, 3)
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    two = tokenizer.convert_ids_to_tokens(tokenizer("good", "bad")["input_ids"])
    assert two.count("</s>") == 3


@pytest.mark.parametrize("length", [1, 24])
def test_an_input_may_be_as_long_as_there_are_positions(stand_in: LoadedModel, length: int) -> None:
    assert stand_in.num_positions == 24
    tokens = torch.full((1, length), 5)
    assert states(stand_in, tokens).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        states(stand_in, torch.full((1, 25), 5))


def test_the_shipped_stand_ins_have_the_positions_of_their_models() -> None:
    positions = {}
    for name in ("opt-tiny", "roberta-tiny"):
        source: ModelSource = build(yaml.safe_load((CONF / f"{name}.yaml").read_text()), "model")
        positions[name] = source.load("cpu").num_positions
    assert positions == {"opt-tiny": 2048, "roberta-tiny": 512}


def test_two_stand_ins_of_the_same_sizes_are_not_the_same_weights() -> None:
    sources = [cls(name="same", **SIZES) for cls in (TinyOpt, TinyRoberta)]
    assert len({source.fingerprint() for source in sources}) == 2


# Several devices.


@pytest.mark.parametrize("cls", [TinyOpt, TinyRoberta])
def test_a_stand_in_is_spread_over_no_more_gpus_than_there_are(
    cls: type[ModelSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="must not exceed the 1 visible GPUs, got 2"):
        cls(name="any", **SIZES).load("cuda", num_devices=2)


@pytest.mark.parametrize("cls", [TinyOpt, TinyRoberta])
def test_a_stand_in_puts_its_layers_on_gpus_in_order_and_evenly(
    cls: type[ModelSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(accelerate, "dispatch_model", lambda _, places, **__: asked.append(places))
    source = cls(name="any", **SIZES)
    source.load("cuda", num_devices=2)
    ends = {name: name.rpartition(".")[2] for name in asked[0]}
    layers = {int(end): asked[0][name] for name, end in ends.items() if end.isdigit()}
    half = -(-source.num_layers // 2)
    assert layers == {i: f"cuda:{int(i >= half)}" for i in range(source.num_layers)}
    assert {asked[0][name] for name, end in ends.items() if not end.isdigit()} == {"cuda:0"}


@pytest.mark.parametrize(("device", "num_devices"), [("cpu", 2), ("cuda", 0)])
def test_a_number_of_devices_that_makes_no_sense_is_refused(
    device: str, num_devices: int, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"num_devices must be 1, .* got {num_devices} on"):
        source_at(tmp_path).load(device, num_devices=num_devices)


def test_more_devices_than_are_visible_are_refused(
    causal: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="must not exceed the 2 visible GPUs, got 3"):
        source_at(save(causal, tmp_path)).load("cuda", num_devices=3)


def test_a_spread_model_uses_the_first_gpus_alone_and_stays_where_it_was_put(
    causal: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(causal, tmp_path)
    asked: list[dict[str, Any]] = []
    read = transformers.AutoModelForCausalLM.from_pretrained

    def pretend(*arguments: Any, **options: Any) -> Any:
        asked.append({name: options.pop(name) for name in ("device_map", "max_memory")})
        return read(*arguments, **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", pretend)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (1000 + index, 2000))
    loaded = source_at(folder).load("cuda", num_devices=2)
    assert asked == [{"device_map": "balanced", "max_memory": {0: 1000, 1: 1001}}]
    assert loaded.model.device.type == "cpu"  # nothing moved it afterwards
