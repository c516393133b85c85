"""Linear layers by oneDNN: the numbers of torch's own, and gradients where they are asked."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kerzoo.models.linear import OneDnnLinear, compute_by_onednn

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def layer_of(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias)
    compute_by_onednn(layer)
    return layer


@needs_onednn
@given(
    shape=st.lists(st.integers(0, 9), max_size=3),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    bias=st.booleans(),
    strided=st.booleans(),
)
def test_the_result_is_that_of_torchs_own_layer_up_to_rounding(
    shape: list[int], inputs: int, outputs: int, bias: bool, strided: bool
) -> None:
    layer = layer_of(inputs, outputs, bias)
    assert type(layer) is OneDnnLinear
    x = torch.randn(*shape, inputs * 2)[..., ::2] if strided else torch.randn(*shape, inputs)
    with torch.inference_mode():
        found = layer(x)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)


@needs_onednn
def test_gradients_and_other_precisions_are_torchs_own() -> None:
    layer = layer_of(6, 5, bias=True)
    x = torch.randn(3, 6)
    with mock.patch.object(torch.ops.mkldnn, "_linear_pointwise") as operator:
        layer(x).sum().backward()
        with torch.no_grad():
            layer.bfloat16()(x.bfloat16())
    assert not operator.called
    assert layer.weight.grad is not None


@needs_onednn
def test_layers_of_another_kind_stay_what_they_are() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(2, 2), Own(2, 2), nn.LayerNorm(2))
    compute_by_onednn(model)
    assert [type(module) for module in model] == [OneDnnLinear, Own, nn.LayerNorm]


def test_without_onednn_nothing_changes() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with mock.patch.object(torch.backends.mkldnn, "is_available", return_value=False):
        compute_by_onednn(model)
    assert type(model[0]) is nn.Linear
