"""Models loaded in half precision, on a CPU, under each precision policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from kerzoo.models import LoadedModel, ModelSource, TinyOpt, TinyRoberta
from kerzoo.models.folder import quiet_transformers, read_folder
from kerzoo.noise import Gaussian
from kerzoo.optimizer import KerZOO
from kerzoo.weights import MasterWeights, Precision, flatten

HALF = ("bfloat16", "float16")
NUM_STEPS = 3


@pytest.fixture(params=[TinyOpt, TinyRoberta])
def stand_in(request: pytest.FixtureRequest) -> type[ModelSource]:
    cls: type[ModelSource] = request.param
    return cls


def load(cls: type[ModelSource], dtype: str) -> LoadedModel:
    return cls(
        name="tiny",
        dtype=dtype,
        num_parameters=1,
        num_layers=2,
        hidden_size=16,
        num_heads=2,
        num_positions=32,
        init_std=0.2,
        seed=0,
    ).load("cpu")


def loss_of(loaded: LoadedModel) -> Callable[[], torch.Tensor]:
    """Cross-entropy of one token after a prompt, or at its mask."""
    tokenizer = loaded.tokenizer
    text = "the film It was" if loaded.is_causal else "the film It was <mask>."
    tokens = tokenizer(text, return_tensors="pt")["input_ids"]
    position = -1 if loaded.is_causal else int((tokens[0] == tokenizer.mask_token_id).nonzero())
    (answer,) = tokenizer(" great", add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def loss() -> torch.Tensor:
        logits = loaded.model(input_ids=tokens).logits[0, position]
        return F.cross_entropy(logits.float(), torch.tensor(answer))

    return loss


@pytest.mark.parametrize("dtype", HALF)
def test_a_half_precision_stand_in_loses_about_as_much_as_in_full_precision(
    stand_in: type[ModelSource], dtype: str
) -> None:
    full, half = (loss_of(load(stand_in, name))() for name in ("float32", dtype))
    assert math.isfinite(half)
    assert float(half) == pytest.approx(float(full), rel=0.05)


@pytest.mark.parametrize("dtype", HALF)
def test_a_folder_is_read_in_the_dtype_asked_for_whatever_it_was_saved_in(
    stand_in: type[ModelSource], dtype: str, tmp_path: Path
) -> None:
    loaded = load(stand_in, "float32")
    with quiet_transformers():
        loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    model, _ = read_folder(tmp_path, dtype)
    assert {str(p.dtype) for p in model.parameters()} == {f"torch.{dtype}"}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("precision", ["master", "inplace_half"])
def test_steps_have_finite_losses_and_move_the_weights(
    stand_in: type[ModelSource], dtype: str, precision: Precision
) -> None:
    loaded = load(stand_in, dtype)
    parameters = list(loaded.model.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = KerZOO(parameters, lr=1e-3, perturbation_scale=1e-2, precision=precision)
    loss = loss_of(loaded)
    assert all(math.isfinite(optimizer.step(loss)) for _ in range(NUM_STEPS))
    assert math.isfinite(loss())
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert any(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


@pytest.mark.parametrize("dtype", HALF)
def test_a_master_copy_takes_steps_too_small_for_the_models_own_dtype(
    stand_in: type[ModelSource], dtype: str
) -> None:
    weights = flatten(load(stand_in, dtype).model.parameters(), Gaussian(), "master")
    assert isinstance(weights, MasterWeights)
    theta, working = weights.theta.clone(), weights.working.clone()
    weights.move_(key=1, factors=(1e-7,))
    weights.restore_()
    assert weights.theta.dtype is torch.float32
    moved = (weights.theta != theta).float().mean()
    published = (weights.working != working).float().mean()
    assert moved > 0.5
    assert published < 0.1
