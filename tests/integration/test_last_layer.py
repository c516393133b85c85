"""The last layer at some positions alone: the states of the whole layer, for less work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import transformers
from tiny_models import HIDDEN, LAYERS, MODELS, VOCABULARY, make_model
from torch import nn

from kerzoo.frozen import frozen_layers_replaced
from kerzoo.losses import LastLayer, SequenceRunner, can_be_computed_at_rows
from kerzoo.models import LoadedModel
from kerzoo.models.vocabulary import make_opt_tokenizer
from kerzoo.tasks import Sequences
from kerzoo.tuning import (
    IA3,
    FullTuning,
    HeadTuning,
    LoRA,
    PrefixTuning,
    PromptTuning,
    Tuning,
    decoder_layers,
)

ROUNDING = 1e-5
LENGTHS = (9, 4, 12, 7)
POSITIONS = ([8], [1, 3], [0, 5, 10], [])
NUM_ASKED = sum(map(len, POSITIONS))
NUM_ROWS = len(LENGTHS) * max(LENGTHS)
MODES: dict[str, Tuning] = {
    "full": FullTuning(),
    "lora": LoRA(rank=2, alpha=4),
    "prefix": PrefixTuning(num_tokens=5),
    "prompt": PromptTuning(num_tokens=5),
    "ia3": IA3(),
    "head": HeadTuning(last_layers=None),
}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": None,
}
KINDS: dict[str, dict[str, Any]] = {
    "Mistral": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "Olmo2": {},
    "Phi3": {},  # one module for what goes into the feed-forward, by another name
    "GPTNeoX": {},  # no module by any known name
    "Mixtral": {"num_local_experts": 4},
    "Qwen2Moe": {
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "decoder_sparse_step": 1,
    },
}


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def runner_of(model: Any, **options: Any) -> SequenceRunner:
    generator = torch.Generator().manual_seed(0)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    tokens = torch.randint(3, VOCABULARY, (int(offsets[-1]),), generator=generator)
    sequences = Sequences(tokens, offsets, max_length=max(LENGTHS), num_truncated=0)
    loaded = LoadedModel(model, make_opt_tokenizer(), "")
    return SequenceRunner(loaded, sequences, last_layer=LastLayer(model), **options)


def states_of(runner: SequenceRunner) -> torch.Tensor:
    return runner.states(range(len(LENGTHS)), POSITIONS)


def whole(runner: SequenceRunner) -> torch.Tensor:
    with mock.patch.object(runner, "last_layer", None):
        return states_of(runner)


@contextlib.contextmanager
def rows_counted(layer: nn.Module) -> Iterator[dict[str, int]]:
    """Of the layer's linear modules without adapters, the rows that each computed last."""
    linear = nn.functional.linear
    names = {
        id(module.weight): name.removesuffix(".base_layer")
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and "lora" not in name
    }
    found: dict[str, int] = {}

    def count(states: torch.Tensor, weight: torch.Tensor, *bias: Any) -> torch.Tensor:
        if id(weight) in names:
            found[names[id(weight)]] = states.numel() // states.shape[-1]
        return linear(states, weight, *bias)

    with mock.patch.object(nn.functional, "linear", count):
        yield found


def make_kind(kind: str) -> Any:
    config = getattr(transformers, f"{kind}Config")(**SIZES | KINDS[kind])
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    return model.train(False).requires_grad_(False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_the_states_are_those_of_the_whole_layer_in_every_model_and_tuning_mode(
    name: str, mode: str
) -> None:
    with torch.inference_mode(False):
        model = make_model(name)
    with contextlib.ExitStack() as stack:
        with torch.inference_mode(False):
            attached = stack.enter_context(MODES[mode].attach(model, 0))
        generator = torch.Generator().manual_seed(1)
        for parameter in attached.parameters.values():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        runner = runner_of(model)
        expected = whole(runner)
        with rows_counted(decoder_layers(model)[-1]) as rows:
            found = states_of(runner)
        assert found.shape == (NUM_ASKED, expected.shape[-1])
        torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)
        if mode == "prompt":  # its tokens are rows too
            assert min(rows.values()) > NUM_ROWS
        else:
            attended = [key for key in rows if key.endswith(("k_proj", "v_proj", "key", "value"))]
            assert len(attended) == 2
            assert all(n == (NUM_ROWS if k in attended else NUM_ASKED) for k, n in rows.items())


@pytest.mark.parametrize("kind", KINDS)
def test_relatives_and_strangers_give_their_own_states(kind: str) -> None:
    model = make_kind(kind)
    runner = runner_of(model)
    torch.testing.assert_close(states_of(runner), whole(runner), rtol=ROUNDING, atol=ROUNDING)
    with rows_counted(decoder_layers(model)[-1]) as rows:
        states_of(runner)
    assert (NUM_ASKED in rows.values()) == (kind != "GPTNeoX")


def test_a_pass_leaves_the_model_as_it_was_also_when_it_fails() -> None:
    with torch.inference_mode(False):
        model = make_model("llama")
    before = [(name, sorted(vars(module))) for name, module in model.named_modules()]
    runner = runner_of(model)
    states_of(runner)
    down = decoder_layers(model)[-1].mlp.down_proj
    handle = down.register_forward_pre_hook(mock.Mock(side_effect=torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        states_of(runner)
    handle.remove()
    assert [(name, sorted(vars(module))) for name, module in model.named_modules()] == before
    torch.testing.assert_close(states_of(runner), whole(runner), rtol=ROUNDING, atol=ROUNDING)


def test_where_gradients_are_asked_the_layer_is_computed_whole() -> None:
    with torch.inference_mode(False), torch.enable_grad():
        model = make_model("opt")
        runner = runner_of(model)
        with rows_counted(decoder_layers(model)[-1]) as rows:
            states_of(runner)
    assert set(rows.values()) == {NUM_ROWS}


def test_a_model_whose_layers_are_all_cached_has_nothing_to_compute() -> None:
    with torch.inference_mode(False):
        model = make_model("opt")
    with frozen_layers_replaced(model, LAYERS) as entry:
        stored = mock.Mock()
        stored.batch.return_value = torch.randn(len(LENGTHS), max(LENGTHS), HIDDEN)
        runner = runner_of(model, frozen=stored, entry=entry)
        assert torch.equal(states_of(runner), whole(runner))


@pytest.mark.parametrize(
    ("positions", "has_rows"), [(POSITIONS, False), (([8], [1], [0], [6]), True)]
)
def test_recorded_passes_have_a_shape_for_each_batch_and_not_for_each_number_of_positions(
    positions: tuple[list[int], ...], has_rows: bool
) -> None:
    with torch.inference_mode(False):
        model = make_model("opt")
    given: list[dict[str, Any]] = []

    def graphs(forward: Any, inputs: dict[str, Any]) -> torch.Tensor:
        given.append(inputs)
        states: torch.Tensor = forward(inputs)
        return states

    indices = range(len(LENGTHS))
    found = runner_of(model, graphs=graphs).states(indices, positions)
    torch.testing.assert_close(
        found, runner_of(model).states(indices, positions), rtol=ROUNDING, atol=ROUNDING
    )
    assert [("rows" in inputs) for inputs in given] == [has_rows]


def make_afmoe() -> Any:
    """Its attention has a module of a name that the feed-forward of others has."""
    sizes = {k: v for k, v in SIZES.items() if k != "pad_token_id"}
    config = transformers.AfmoeConfig(
        **sizes, head_dim=8, num_dense_layers=1, moe_intermediate_size=16, num_experts=16
    )
    return transformers.AfmoeForCausalLM(config).train(False).requires_grad_(False)


def make_mixing() -> Any:
    """Its queries come from neighbouring positions too."""
    model = make_model("llama")
    query = decoder_layers(model)[-1].self_attn
    project = query.q_proj
    query.q_proj = nn.Sequential(project, _Shifted())
    query.q_proj.weight = project.weight
    return model


class _Shifted(nn.Module):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states + states.roll(1, dims=-2)


@pytest.mark.parametrize("name", [*MODELS, *KINDS, "Afmoe", "mixing"])
def test_it_is_seen_beforehand_where_rows_alone_are_not_enough(name: str) -> None:
    special = {"Afmoe": make_afmoe, "mixing": make_mixing}
    with torch.inference_mode(False):
        if name in special:
            model = special[name]()
        else:
            model = make_model(name) if name in MODELS else make_kind(name)
    loaded = LoadedModel(model, make_opt_tokenizer(), "")
    assert can_be_computed_at_rows(loaded) == (name not in special)
