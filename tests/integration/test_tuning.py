"""Which parameters move, where they start, and a model that is afterwards as it was."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import sizes_of
from tiny_trials import FULL, FULL_LAST, LORA, LORA_LAST, TUNINGS, label_word_loss

from kerzoo.build import build
from kerzoo.models import LoadedModel
from kerzoo.tasks import LabelWordSplit
from kerzoo.tuning import FullTuning, LoRA, Tuning, decoder_layers
from kerzoo.workspace import weights_checksum

HIDDEN, LAYERS = 32, 4


@pytest.fixture(params=sorted(TUNINGS))
def tuning(request: pytest.FixtureRequest) -> Tuning:
    built: Tuning = build(TUNINGS[request.param])
    return built


def structure(loaded: LoadedModel) -> list[tuple[str, str]]:
    return [(name, type(module).__name__) for name, module in loaded.model.named_modules()]


def number_of(parameters: dict[str, Any]) -> int:
    return sum(p.numel() for p in parameters.values())


def estimated(tuning: Tuning, loaded: LoadedModel) -> int:
    return tuning.count_parameters(sizes_of(loaded.model))


def test_full_tuning_moves_every_parameter_once(loaded: LoadedModel) -> None:
    tuning = build(FULL)
    with tuning.attach(loaded.model, 0) as attached:
        parameters = attached.parameters
        assert list(parameters) == [name for name, _ in loaded.model.named_parameters()]
        assert number_of(parameters) == estimated(tuning, loaded)


def test_full_tuning_of_the_last_layers_moves_exactly_those(loaded: LoadedModel) -> None:
    tuning = build(FULL_LAST)
    with tuning.attach(loaded.model, 0) as attached:
        parameters = attached.parameters
        layers = decoder_layers(loaded.model)
        expected = {id(p) for layer in layers[-2:] for p in layer.parameters()}
        assert {id(p) for p in parameters.values()} == expected
        assert number_of(parameters) == estimated(tuning, loaded)


@pytest.mark.parametrize(("node", "adapted"), [(LORA, {0, 1, 2, 3}), (LORA_LAST, {2, 3})])
def test_lora_moves_the_adapters_of_its_layers_alone(
    loaded: LoadedModel, node: dict[str, Any], adapted: set[int]
) -> None:
    tuning = build(node)
    count = estimated(tuning, loaded)
    with tuning.attach(loaded.model, 0) as attached:
        parameters = attached.parameters
        assert all(".lora_A." in name or ".lora_B." in name for name in parameters)
        layers = {int(name.split(".layers.")[1].split(".")[0]) for name in parameters}
        assert layers == adapted
        assert {n.split(".lora_")[0].split(".")[-1] for n in parameters} == {"q_proj", "v_proj"}
        assert number_of(parameters) == count


def test_the_order_of_parameters_is_the_same_at_every_attachment(
    loaded: LoadedModel, tuning: Tuning
) -> None:
    orders = []
    for seed in (0, 1):
        with tuning.attach(loaded.model, seed) as attached:
            parameters = attached.parameters
            orders.append(list(parameters))
    assert orders[0] == orders[1]


def test_at_step_0_the_model_is_exactly_the_base_model(
    loaded: LoadedModel, split: LabelWordSplit, tuning: Tuning
) -> None:
    loss = label_word_loss(loaded, split)
    before = loss.scores(list(range(16)))
    with tuning.attach(loaded.model, 3):
        assert torch.equal(loss.scores(list(range(16))), before)


def values_of_a(loaded: LoadedModel, seed: int, node: dict[str, Any] = LORA) -> torch.Tensor:
    with build(node).attach(loaded.model, seed) as attached:
        parameters = attached.parameters
        assert all(not p.any() for name, p in parameters.items() if ".lora_B." in name)
        a = [p.detach().flatten() for name, p in parameters.items() if ".lora_A." in name]
        return torch.cat(a).clone()


def test_adapters_start_from_the_seed_and_not_from_the_global_generator(
    loaded: LoadedModel,
) -> None:
    first = values_of_a(loaded, 0)
    torch.randn(5)
    assert torch.equal(values_of_a(loaded, 0), first)
    assert not torch.equal(values_of_a(loaded, 1), first)


def test_adapters_start_different_in_every_module_and_kaiming_uniform(loaded: LoadedModel) -> None:
    """U[−1/√h, 1/√h]: 512 values; the mean within 5 standard errors, the range never left."""
    modules = values_of_a(loaded, 0).reshape(8, -1)
    assert len({tuple(m.tolist()) for m in modules}) == 8
    bound = HIDDEN**-0.5
    assert modules.abs().max() <= bound
    assert modules.abs().max() > 0.9 * bound
    assert abs(modules.mean()) < 5 * bound / 3**0.5 / modules.numel() ** 0.5


def test_attaching_leaves_all_global_generators_untouched(
    loaded: LoadedModel, tuning: Tuning
) -> None:
    states = (torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate())
    with tuning.attach(loaded.model, 7):
        pass
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tobytes() == states[1]
    assert random.getstate() == states[2]


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("node", [LORA, LORA_LAST])
def test_taking_lora_out_restores_the_base_model_bit_for_bit(
    loaded: LoadedModel, split: LabelWordSplit, node: dict[str, Any], raises: bool
) -> None:
    checksum, before = weights_checksum(loaded.model), structure(loaded)
    scores = label_word_loss(loaded, split).scores([0, 1, 2])

    def train() -> None:
        with build(node).attach(loaded.model, 0) as attached:
            parameters = attached.parameters
            for parameter in parameters.values():
                parameter.data.fill_(0.1)
            assert not torch.equal(label_word_loss(loaded, split).scores([0, 1, 2]), scores)
            if raises:
                raise RuntimeError("out of memory")

    if raises:
        with pytest.raises(RuntimeError, match="out of memory"):
            train()
    else:
        train()
    assert weights_checksum(loaded.model) == checksum
    assert structure(loaded) == before
    assert torch.equal(label_word_loss(loaded, split).scores([0, 1, 2]), scores)


def test_the_checksum_sees_one_bit_of_one_weight(loaded: LoadedModel) -> None:
    before = weights_checksum(loaded.model)
    weight = next(loaded.model.parameters()).data.view(-1)
    weight.view(torch.int32)[5] ^= 1
    assert weights_checksum(loaded.model) != before


def attach(loaded: LoadedModel, tuning: Tuning) -> None:
    with tuning.attach(loaded.model, 0):
        raise AssertionError("was not refused")


def test_an_unknown_target_module_is_refused_with_the_alternatives(loaded: LoadedModel) -> None:
    with pytest.raises(
        ValueError,
        match=r"tuning\.target_modules: 'query' is no module of OPTForCausalLM; its layers have: "
        r"fc1, fc2, k_proj, out_proj, q_proj, v_proj$",
    ):
        attach(loaded, LoRA(target_modules=("q_proj", "query")))


def test_a_target_below_the_cached_layers_is_refused_with_the_reason(loaded: LoadedModel) -> None:
    before = structure(loaded)
    with pytest.raises(
        ValueError,
        match=r"'embed_tokens' lies below layer 2 and changes the input of every layer, so the "
        r"outputs of the frozen layers cannot be cached; set tuning\.last_layers=null or leave",
    ):
        attach(loaded, LoRA(target_modules=("q_proj", "embed_tokens"), last_layers=2))
    assert structure(loaded) == before


def test_an_adapter_on_the_output_layer_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match=r"tuning\.target_modules: 'lm_head' is the output layer"):
        attach(loaded, LoRA(target_modules=("q_proj", "lm_head")))


@pytest.mark.parametrize("tuning", [FullTuning(last_layers=5), LoRA(last_layers=5)])
def test_more_layers_than_the_model_has_are_refused(loaded: LoadedModel, tuning: Tuning) -> None:
    with pytest.raises(ValueError, match="last_layers must not exceed the model's 4 layers, got 5"):
        attach(loaded, tuning)


def test_all_layers_may_be_the_last_ones(loaded: LoadedModel) -> None:
    with FullTuning(last_layers=LAYERS).attach(loaded.model, 0) as attached:
        parameters = attached.parameters
        names = {name.split(".layers.")[-1].split(".")[0] for name in parameters}
    assert names == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"alpha": 0}, "alpha must be > 0, got 0"),
        ({"target_modules": ()}, "target_modules must name at least one module"),
        ({"last_layers": 0}, "last_layers must be at least 1 or null, got 0"),
    ],
)
def test_values_outside_their_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRA(**arguments)
