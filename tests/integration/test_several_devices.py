"""Models on several devices: pretended ones that refuse to mix, and a CPU that plays two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_model
from tiny_trials import (
    FULL,
    FULL_LAST,
    LORA_LAST,
    ZEROTH_ORDER,
    created,
    numbers,
    trial_config,
    trial_spec,
)
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from kerzoo.attempt import run_trial
from kerzoo.frozen import frozen_layers_replaced
from kerzoo.losses.heads import before_output_layer, output_layer, scores_of_tokens
from kerzoo.models import LoadedModel
from kerzoo.models.linear import compute_by_onednn
from kerzoo.models.placement import num_gpus_of, places_on, spread
from kerzoo.models.tiny import TinyModel
from kerzoo.records import Row
from kerzoo.training import gpus_of_plan
from kerzoo.tuning import (
    IA3,
    FullTuning,
    LoRA,
    PrefixTuning,
    PromptTuning,
    Tuning,
    decoder_layers,
)
from kerzoo.weights import ShardedWeights, flatten
from kerzoo.workspace import Workspace

DEVICES = ["lazy:0", "lazy:1"]
"""Devices that torch lets any machine pretend to have, by tensors without values."""
FIRST, SECOND = map(torch.device, DEVICES)

TUNINGS: dict[str, Tuning] = {
    "full": FullTuning(),
    "full_last2": FullTuning(2),
    "lora": LoRA(),
    "ia3": IA3(),
    "prefix": PrefixTuning(),
    "prompt": PromptTuning(),
}
MODELS = ["opt", "llama", "roberta"]

# Operations on tensors of two pretended devices raise, as they would on real ones.


def pretend(model: Any, mode: FakeTensorMode, **others: str) -> None:
    """Spread a model over `DEVICES`: with the hooks of real ones, and without values.

    Args:
        model: On the CPU.
        mode: Makes the tensors.
        others: Modules, by the ends of their names, that are elsewhere than `spread` puts them.
    """
    places = places_on(model, DEVICES)
    ends = {name: name.rpartition(".")[2] for name in places}
    places |= {name: others[end] for name, end in ends.items() if end in others}
    spread(model, ["cpu", "cpu"])
    fakes: dict[int, Any] = {}
    for path, module in model.named_modules():
        owners = [name for name in places if path == name or path.startswith(f"{name}.")]
        device = places[max(owners, key=len)] if owners else DEVICES[0]
        if hasattr(module, "_hf_hook"):
            module._hf_hook.execution_device = torch.device(device)
        for tensors in (module._parameters, module._buffers):
            for name, tensor in [(n, t) for n, t in tensors.items() if t is not None]:
                if id(tensor) not in fakes:  # tied weights stay tied
                    fake: Any = mode.from_tensor(tensor.detach()).to(device)
                    is_weight = isinstance(tensor, nn.Parameter)
                    fakes[id(tensor)] = nn.Parameter(fake, False) if is_weight else fake
                tensors[name] = fakes[id(tensor)]


def move(module: nn.Module, *where: Any, **options: Any) -> nn.Module:
    """`nn.Module.to`, which does not take tensors without values."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in [(n, t) for n, t in tensors.items() if t is not None]:
                moved: Any = tensor.detach().to(*where, **options)
                is_weight = isinstance(tensor, nn.Parameter)
                tensors[name] = nn.Parameter(moved, tensor.requires_grad) if is_weight else moved
    return module


def loss_of(model: Any) -> torch.Tensor:
    """From token ids on the first device to the sum of some scores."""
    tokens = torch.zeros(2, 5, dtype=torch.int64, device=FIRST)
    inputs = {"input_ids": tokens, "use_cache": False}
    if not LoadedModel(model, None, "").is_causal:  # type: ignore[arg-type]
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    hidden = model.base_model(**inputs).last_hidden_state
    states = before_output_layer(model, hidden[[0, 1], [2, 3]])
    return scores_of_tokens(output_layer(model), states, torch.tensor([1, 2])).sum()


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("name", MODELS)
def test_forward_backward_and_perturbing_mix_no_devices(
    name: str, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(name)
    monkeypatch.setattr("kerzoo.weights.flat.noise_engine", _WithoutNoise)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.enable_grad():
        pretend(model, mode)
        monkeypatch.setattr(nn.Module, "to", move)
        assert LoadedModel(model, None, "").is_spread  # type: ignore[arg-type]
        assert model.device == FIRST
        with TUNINGS[tuning].attach(model, 0) as attached:
            parameters = list(attached.parameters.values())
            devices = {parameter.device for parameter in parameters}
            assert devices == ({FIRST} if tuning in ("prefix", "prompt") else {FIRST, SECOND})
            for parameter in parameters:
                parameter.requires_grad_(True)
            loss = loss_of(model)
            assert loss.device == output_layer(model).weight.device
            loss.backward()
            assert all(p.grad is None or p.grad.device == p.device for p in parameters)
            for parameter in parameters:
                parameter.requires_grad_(False)
            weights = flatten(parameters, None)  # type: ignore[arg-type]
            assert isinstance(weights, ShardedWeights) == (len(devices) > 1)
            for key in (1, 2):
                weights.perturb_(key, (0.5,))
                loss_of(model)
            weights.restore_()


@pytest.mark.parametrize("elsewhere", ["norm", "lm_head"])
def test_an_output_layer_may_lie_elsewhere_than_the_last_states(elsewhere: str) -> None:
    model = make_model("llama")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        pretend(model, mode, **{elsewhere: DEVICES[1]})
        states = model.base_model(input_ids=torch.zeros(2, 5, dtype=torch.int64, device=FIRST))
        assert states.last_hidden_state.device == (SECOND if elsewhere == "norm" else FIRST)
        assert loss_of(model).device == (SECOND if elsewhere == "lm_head" else FIRST)


class _WithoutNoise:
    """Stands for an engine, which `tests/unit/test_sharded_weights.py` has on such devices."""

    def __init__(self, *arguments: Any) -> None:
        self.part = arguments[-1]

    def add(self, key: int, stretches: Any, source: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(source)

    def share_scales(self, other: _WithoutNoise) -> None:
        pass


@pytest.mark.parametrize("name", MODELS)
def test_stored_outputs_of_frozen_layers_go_to_the_layer_behind_them(name: str) -> None:
    model = make_model(name)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        pretend(model, mode)
        last = decoder_layers(model)[2]
        assert next(last.parameters()).device == SECOND
        with frozen_layers_replaced(model, 2) as entry:
            entry.outputs = torch.zeros(2, 5, model.config.hidden_size, device=FIRST)
            assert loss_of(model).device == FIRST


# Two devices that are both the CPU: hooks and shards as on two GPUs, and values to compare.


TRIALS: dict[str, dict[str, Any]] = {
    "full": {"tuning": FULL},
    "full, last layers": {"tuning": FULL_LAST, "r_scope": "tensor"},
    "lora, last layers": {"tuning": LORA_LAST},
    "prefix": {"tuning": {"_target_": "kerzoo.tuning.PrefixTuning", "num_tokens": 3}},
    "adamw": {
        "tuning": FULL,
        "method": {"_target_": "kerzoo.methods.FirstOrder", "gradient_checkpointing": True},
    },
}


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_with_hooks_and_shards_has_the_rows_of_one_without(
    name: str, sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trial_config(sst2, **({"method": ZEROTH_ORDER} | TRIALS[name]))

    def run(folder: str) -> list[Row]:
        spec = trial_spec(config, phase="confirm")
        return numbers(list(run_trial(spec, created(tmp_path / folder, spec), Workspace())))

    plain = run("plain")
    spread_models: list[Any] = []
    make = TinyModel.load_source

    def load(self: TinyModel, *arguments: Any) -> Any:
        model, tokenizer = make(self, *arguments)
        compute_by_onednn(model)  # before hooks take hold of each module's forward
        spread(model, ["cpu", "cpu"])
        spread_models.append(model)
        return model, tokenizer

    monkeypatch.setattr(TinyModel, "load_source", load)
    monkeypatch.setattr(
        "kerzoo.weights.precision.runs_by_device",
        lambda parameters: [run for run in (parameters[:5], parameters[5:]) if run],
    )
    assert run("spread") == plain
    assert all("forward" in vars(decoder_layers(model)[0]) for model in spread_models)  # hooks
    assert len({row["dev_loss"] for row in plain}) > 1


@pytest.mark.parametrize(
    ("planned", "visible", "number"),
    [(1, 8, 1), (2, 8, 2), (4, 2, 2), (0.25, 8, 1), ("auto", 8, 1), (2, 0, 1)],
)
def test_a_plan_outside_ray_uses_as_many_gpus_as_it_says_and_as_there_are(
    planned: Any, visible: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"config": {"cluster": {"gpus_per_trial": planned}}}))
    assert gpus_of_plan(plan) == number
    assert gpus_of_plan(tmp_path / "none.json") == 1
    assert num_gpus_of(planned) <= max(number, 4)
