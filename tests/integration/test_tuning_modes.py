"""The contract of every tuning mode, on models that differ in names, heads and direction."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_models import HIDDEN, LAYERS, PADDING, VOCABULARY, make_model, sizes_of

from kerzoo.frozen import frozen_layers_replaced
from kerzoo.optimizer import KerZOO
from kerzoo.tuning import (
    IA3,
    FullTuning,
    HeadTuning,
    LoRA,
    PrefixTuning,
    PromptTuning,
    Tuning,
    first_trainable_layer,
)
from kerzoo.workspace import weights_checksum

MODES: dict[str, Tuning] = {
    "full": FullTuning(),
    "full, last 2": FullTuning(last_layers=2),
    "lora": LoRA(rank=2, alpha=4),
    "lora, last 2": LoRA(rank=2, alpha=4, last_layers=2),
    "prefix": PrefixTuning(num_tokens=5),
    "random prefix": PrefixTuning(num_tokens=4, initialisation="random"),
    "prompt": PromptTuning(num_tokens=5),
    "ia3": IA3(),
    "ia3, last 2": IA3(last_layers=2),
    "head": HeadTuning(),
}
MODELS = ("opt", "llama", "roberta")
ADAPTERS = [name for name in MODES if name not in ("full", "full, last 2", "head")]
DRAWN = ["lora", "prefix", "random prefix", "prompt"]
TOKENS = torch.tensor([[9, 20, 31, 42, 53, 64], [8, 16, 24, 32, 40, 48]])


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param)


@pytest.fixture(params=sorted(MODES))
def tuning(request: pytest.FixtureRequest) -> Tuning:
    return MODES[request.param]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def traces(model: Any) -> dict[str, Any]:
    """All that an attachment could leave behind."""
    modules = list(model.named_modules())
    return {
        "modules": [(name, type(m), id(m), sorted(vars(m)), m.training) for name, m in modules],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for _, m in modules],
        "parameters": [(n, id(p), p.requires_grad) for n, p in model.named_parameters()],
        "config": copy.deepcopy(model.config.to_dict()),
        "tied": dict(model.all_tied_weights_keys),
        "checksum": weights_checksum(model),
    }


def values_of(model: Any, tuning: Tuning, seed: int) -> list[torch.Tensor]:
    with tuning.attach(model, seed) as attached:
        return [p.detach().clone() for p in attached.parameters.values()]


def scramble(parameters: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    for p in parameters:
        noise = torch.randn(p.shape, generator=generator)
        p.data = (p.data.float() + 0.3 * noise).to(p.dtype)


def test_parameters_are_counted_exactly_from_the_models_sizes(model: Any, tuning: Tuning) -> None:
    expected = tuning.count_parameters(sizes_of(model))
    with tuning.attach(model, 0) as attached:
        assert sum(p.numel() for p in attached.parameters.values()) == expected


def test_the_order_of_parameters_is_the_same_in_every_copy_of_a_model(tuning: Tuning) -> None:
    orders = []
    for seed in (0, 1):
        with tuning.attach(make_model("llama"), seed) as attached:
            orders.append([(n, tuple(p.shape)) for n, p in attached.parameters.items()])
    assert orders[0] == orders[1]
    assert orders[0]


def disturb(model: Any, tuning: Tuning, logits: torch.Tensor, raises: bool) -> None:
    with tuning.attach(model, 3) as attached:
        if not tuning.changes_base_model:
            scramble(attached.parameters.values())
            assert not torch.equal(model(TOKENS).logits, logits)
        if raises:
            raise RuntimeError("out of memory")


def test_afterwards_the_model_is_as_it_was(model: Any, tuning: Tuning) -> None:
    before, logits = traces(model), model(TOKENS).logits
    disturb(model, tuning, logits, raises=False)
    assert traces(model) == before
    with pytest.raises(RuntimeError, match="out of memory"):
        disturb(model, tuning, logits, raises=True)
    assert traces(model) == before
    assert torch.equal(model(TOKENS).logits, logits)


@pytest.mark.parametrize("mode", ["lora", "ia3", "full", "head"])
def test_where_no_tokens_are_added_step_0_is_exactly_the_base_model(model: Any, mode: str) -> None:
    logits = model(TOKENS).logits
    with MODES[mode].attach(model, 3):
        assert torch.equal(model(TOKENS).logits, logits)


@pytest.mark.parametrize("mode", DRAWN)
def test_initial_values_come_from_the_seed_and_not_from_a_global_generator(
    model: Any, mode: str
) -> None:
    tuning = MODES[mode]
    first = values_of(model, tuning, 0)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    again = values_of(model, tuning, 0)
    torch.set_rng_state(state)
    other = values_of(model, tuning, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("opt", {"q_proj", "v_proj"}),
        ("llama", {"q_proj", "v_proj"}),
        ("roberta", {"query", "value"}),
    ],
)
def test_lora_adapts_queries_and_values_under_the_models_own_names(
    name: str, modules: set[str]
) -> None:
    with LoRA().attach(make_model(name), 0) as attached:
        assert {n.split(".lora_")[0].split(".")[-1] for n in attached.parameters} == modules


@pytest.mark.parametrize(
    ("name", "endings"),
    [
        ("opt", {"self_attn.k_proj", "self_attn.v_proj", "fc2"}),
        ("llama", {"self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj"}),
        ("roberta", {"attention.self.key", "attention.self.value", "output.dense"}),
    ],
)
@pytest.mark.parametrize("last_layers", [None, 2])
def test_ia3_scales_keys_values_and_the_feed_forward_output_of_its_layers(
    name: str, endings: set[str], last_layers: int | None
) -> None:
    with IA3(last_layers=last_layers).attach(make_model(name), 0) as attached:
        paths = [n.split(".ia3_l.")[0].partition(".layer")[2] for n in attached.parameters]
    found = {tuple(path.lstrip("s.").split(".", 1)) for path in paths}
    layers = range(LAYERS - (last_layers or LAYERS), LAYERS)
    assert found == {(str(layer), ending) for layer in layers for ending in endings}
    assert len(paths) == len(found)


def test_a_model_without_projections_of_these_names_is_refused_with_those_it_has() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=9))
    with (
        pytest.raises(
            ValueError,
            match=r"tuning\.target_modules: null looks for q_proj or query, and GPT2LMHeadModel "
            r"has none; its layers have: c_attn, c_fc, c_proj; name the ones to adapt",
        ),
        LoRA().attach(gpt2, 0),
    ):
        pass


@pytest.mark.parametrize("kind", [PrefixTuning, PromptTuning])
def test_virtual_tokens_in_the_last_layers_alone_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"last_layers must be null: a p.* changes the input of"):
        kind(last_layers=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PrefixTuning(num_tokens=0), "num_tokens must be at least 1, got 0"),
        (lambda: PromptTuning(num_tokens=-1), "num_tokens must be at least 1, got -1"),
        (
            lambda: PrefixTuning(initialisation="zero"),  # type: ignore[arg-type]
            "initialisation must be one of activations, random, got 'zero'",
        ),
        (lambda: HeadTuning(last_layers=1), "last_layers must be 0 or null: no layer moves, got 1"),
        (lambda: IA3((), ()), "target_modules or feedforward_modules must name at least one"),
        (lambda: IA3(last_layers=0), "last_layers must be at least 1 or null, got 0"),
    ],
)
def test_values_outside_their_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # asked by PEFT
@pytest.mark.parametrize("mode", ADAPTERS)
def test_a_saved_adapter_loads_through_peft_to_the_same_logits(
    model: Any, mode: str, tmp_path: Path
) -> None:
    mask = torch.ones_like(TOKENS)
    with MODES[mode].attach(model, 0) as attached:
        scramble(attached.parameters.values())
        logits = model(TOKENS, attention_mask=mask).logits
        attached.model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    loaded = PeftModel.from_pretrained(model, str(tmp_path)).eval()
    again = loaded(input_ids=TOKENS, attention_mask=mask).logits[:, -TOKENS.shape[1] :]
    torch.testing.assert_close(again, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["opt", "llama", "roberta", "opt with narrow embeddings"])
def test_a_tuned_head_is_the_models_and_loads_back_beside_its_embeddings(
    name: str, tmp_path: Path
) -> None:
    model = make_model(name)
    embeddings = model.get_input_embeddings().weight.clone()
    with HeadTuning().attach(model, 0) as attached:
        ours = {id(p) for p in attached.parameters.values()}
        assert ours == {id(p) for p in model.get_output_embeddings().parameters()}
        scramble(attached.parameters.values())
        assert torch.equal(model.get_input_embeddings().weight, embeddings)
        logits = model(TOKENS).logits
        attached.model.save_pretrained(str(tmp_path))
    again = type(model).from_pretrained(str(tmp_path)).eval()
    assert torch.equal(again(TOKENS).logits, logits)
    assert torch.equal(again.get_input_embeddings().weight, embeddings)


@pytest.mark.parametrize("name", MODELS)
def test_below_a_head_all_layers_can_be_replaced_by_their_outputs(name: str) -> None:
    model = make_model(name)
    first = first_trainable_layer(model, HeadTuning().last_layers)
    assert first == LAYERS
    before: list[torch.Tensor] = []
    layer = model.get_submodule("roberta.encoder.layer.2" if name == "roberta" else _last(name))
    handle = layer.register_forward_hook(lambda _, __, output: before.append(output))
    logits = model(TOKENS).logits
    handle.remove()
    with HeadTuning().attach(model, 0), frozen_layers_replaced(model, first) as entry:
        entry.outputs = before[0]
        assert torch.equal(model(TOKENS).logits, logits)


def _last(name: str) -> str:
    return "model.decoder.layers.2" if name == "opt" else "model.layers.2"


def loss_of(model: Any) -> float:
    """Whether one of two tokens comes next, or stands at the last place, as a mean over rows."""
    states = model.base_model(input_ids=TOKENS).last_hidden_state[:, -1]
    head = model.get_output_embeddings()
    scores = states.float() @ head.weight[[7, 11]].float().T
    return float(torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1])))


def test_a_few_zeroth_order_steps_lower_a_loss_in_every_mode(model: Any, tuning: Tuning) -> None:
    rate = 0.3 if tuning.changes_base_model else 3.0
    with tuning.attach(model, 0) as attached:
        before = loss_of(model)
        count = sum(p.numel() for p in attached.parameters.values())
        optimizer = KerZOO(attached.parameters.values(), lr=rate / count, num_directions=4)
        for _ in range(24):
            optimizer.step(lambda: loss_of(model))
        assert loss_of(model) < before - 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_model_runs_and_every_parameter_matters(
    tuning: Tuning, dtype: torch.dtype
) -> None:
    model = make_model("llama", dtype)
    with tuning.attach(model, 0) as attached:
        kinds = {p.dtype for p in attached.parameters.values()}
        assert kinds == {dtype if isinstance(tuning, FullTuning | HeadTuning) else torch.float32}
        before = model(TOKENS).logits
        scramble(attached.parameters.values())
        after = model(TOKENS).logits
        assert after.dtype == dtype
        assert after.isfinite().all()
        assert not torch.equal(after, before)
        width = before.element_size()
        added = sum(p.numel() * p.element_size() for p in attached.parameters.values())
    if not tuning.changes_base_model:
        assert tuning.added_bytes(sizes_of(model), width) == added


def test_the_tiny_models_are_what_the_tests_take_them_for() -> None:
    assert make_model("llama").config.num_key_value_heads == 2
    assert TOKENS.max() < VOCABULARY
    assert PADDING not in TOKENS
    assert make_model("opt with narrow embeddings").get_input_embeddings().embedding_dim < HIDDEN
