"""What makes two trials the same: all that decides the numbers, and nothing else."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_trials import FULL, LEGENDRE4, LORA_LAST, MEZO, trial_config

from kerzoo import identity
from kerzoo.build import build
from kerzoo.identity import trial_id

CONFIG = trial_config("no/such/folder")


def changed(changes: dict[str, Any], base: dict[str, Any] = CONFIG) -> dict[str, Any]:
    config = copy.deepcopy(base)
    for key, value in changes.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    return config


def identify(config: dict[str, Any], model: str = "model@1", data: str = "data@1") -> str:
    return trial_id(config, build(config["kernel"]), model, data)


BASE = identify(CONFIG)


def test_an_id_is_short_hexadecimal_text() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", BASE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.learning_rate", 0.02),
        ("training.perturbation_scale", 0.06),
        ("training.forward_passes", 48),
        ("training.batch_size", 9),
        ("training.seed", 1),
        ("training.num_directions", 2),
        ("training.threads", 2),
        ("training.device", "cuda"),
        ("model.dtype", "bfloat16"),
        ("task.prompt", "{text} So it was"),
        ("task.label_words", [" bad", " good"]),
        ("task.num_train", 61),
        ("task.num_dev", 41),
        ("task.data_seed", 1),
        ("task.max_length", 16),
        ("kernel", MEZO),
        ("kernel.order", 6),
        ("bandwidth.half_width", 0.5),
        ("bandwidth.rescale", False),
        ("tuning", FULL),
        ("tuning", LORA_LAST),
        ("tuning.rank", 3),
        ("tuning.target_modules", ["q_proj"]),
    ],
)
def test_whatever_decides_the_numbers_is_in_the_id(key: str, value: Any) -> None:
    assert identify(changed({key: value})) != BASE


def test_points_that_share_a_forward_pass_are_in_the_id_and_one_alone_is_as_it_ever_was() -> None:
    assert identify(changed({"training.points_per_forward": 1})) == BASE
    assert identify(changed({"training.points_per_forward": 2})) != BASE


def test_the_models_and_the_datas_content_are_in_the_id() -> None:
    assert len({BASE, identify(CONFIG, model="model@2"), identify(CONFIG, data="data@2")}) == 3
    assert identify(CONFIG, model="x", data="y") != identify(CONFIG, model="y", data="x")


def test_the_method_version_is_in_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "METHOD_VERSION", identity.METHOD_VERSION + 1)
    assert identify(CONFIG) != BASE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arm", {"name": "other", "description": "another label"}),
        ("training.rungs", [0.5, 1.0]),
        ("model.name", "renamed"),
        ("model.num_parameters", 7),
        ("model.path", "another/place"),
        ("task.name", "renamed"),
        ("task.data_dir", "another/place"),
        ("task.source.revision", "0" * 40),
    ],
)
def test_labels_places_and_rungs_are_not_in_the_id(key: str, value: Any) -> None:
    assert identify(changed({key: value})) == BASE


def test_the_bandwidth_is_not_in_the_id_of_mezo_which_has_none() -> None:
    mezo = changed({"kernel": MEZO})
    assert identify(changed({"bandwidth.half_width": 0.5}, mezo)) == identify(mezo)
    assert identify(changed({"bandwidth.rescale": False}, mezo)) == identify(mezo)


def test_whole_numbers_are_the_same_however_they_are_written() -> None:
    def written(value: float) -> str:
        return identify(changed({"training.learning_rate": value, "bandwidth.half_width": value}))

    assert written(1) == written(1.0)


def test_defaults_that_are_written_out_belong_to_the_id() -> None:
    """The plan resolves every key, so a key that is missing is another configuration."""
    config = copy.deepcopy(CONFIG)
    del config["bandwidth"]["rescale"]
    assert identify(config) != BASE


def shuffled(node: Any, order: random.Random) -> Any:
    if not isinstance(node, dict):
        return node
    keys = list(node)
    order.shuffle(keys)
    return {key: shuffled(node[key], order) for key in keys}


@given(st.integers(0, 10**6))
def test_the_order_of_keys_does_not_matter(seed: int) -> None:
    assert identify(shuffled(CONFIG, random.Random(seed))) == BASE


NUMBERS = st.fixed_dictionaries(
    {
        "training.learning_rate": st.sampled_from([1e-3, 1e-2, 0.1]),
        "training.seed": st.integers(0, 3),
        "training.num_directions": st.integers(1, 2),
        "kernel": st.sampled_from([MEZO, LEGENDRE4]),
        "bandwidth.half_width": st.sampled_from([0.5, 1.0]),
    }
)


@given(NUMBERS, NUMBERS)
def test_ids_are_equal_exactly_where_the_numbers_are(a: dict[str, Any], b: dict[str, Any]) -> None:
    def numbers(values: dict[str, Any]) -> dict[str, Any]:
        return values | ({"bandwidth.half_width": None} if values["kernel"] == MEZO else {})

    assert (identify(changed(a)) == identify(changed(b))) == (numbers(a) == numbers(b))


@given(NUMBERS)
def test_an_id_survives_the_way_through_json(values: dict[str, Any]) -> None:
    config = changed(values)
    assert identify(json.loads(json.dumps(config))) == identify(config)
