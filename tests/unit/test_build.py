"""Building objects from plain dicts: kerzoo's dataclasses only, and errors that name the key."""

from __future__ import annotations

from typing import Any

import pytest

from kerzoo.build import build
from kerzoo.kernels import ConstantKernel, PolynomialKernel
from kerzoo.schedules import Bandwidth

LEGENDRE4 = {"_target_": "kerzoo.kernels.PolynomialKernel", "density": "uniform", "order": 4}


def test_a_target_becomes_an_instance_with_the_other_keys_as_arguments() -> None:
    assert build(LEGENDRE4) == PolynomialKernel("uniform", 4)
    assert build({"_target_": "kerzoo.kernels.ConstantKernel"}, "kernel") == ConstantKernel()


def test_keys_that_have_a_default_may_be_left_out() -> None:
    node = {"_target_": "kerzoo.schedules.Bandwidth", "half_width": 0.5}
    assert build(node) == Bandwidth(0.5, rescale=True)


@pytest.mark.parametrize("node", [3, 0.5, "text", None, True, [], {}, [1, {"a": [2, None]}]])
def test_plain_values_are_returned_as_they_are(node: Any) -> None:
    assert build(node) == node


def test_members_of_mappings_and_lists_are_built_too() -> None:
    built = build({"a": {"b": [LEGENDRE4, 7]}, "c": "text"})
    assert built == {"a": {"b": [PolynomialKernel("uniform", 4), 7]}, "c": "text"}


def test_targets_may_hold_targets() -> None:
    from kerzoo.tasks import ClassificationTask, MovieReviewSnippets

    task = build(
        {
            "_target_": "kerzoo.tasks.ClassificationTask",
            "name": "reviews",
            "source": {"_target_": "kerzoo.tasks.MovieReviewSnippets", "min_abs_rating": 1.5},
            "prompt": "{text} It was",
            "label_words": [" terrible", " great"],
            "num_train": 1,
            "num_dev": 1,
            "num_test": 1,
        },
        "task",
    )
    assert isinstance(task, ClassificationTask)
    assert task.source == MovieReviewSnippets(1.5)


def test_the_node_itself_is_not_changed() -> None:
    node = {"a": dict(LEGENDRE4)}
    build(node)
    assert node == {"a": LEGENDRE4}


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.nn.Linear",
        "kerzoo_other.kernels.ConstantKernel",
        "kerzooo",
        "kerzoo",
        "ConstantKernel",
        "",
        None,
        7,
    ],
)
def test_targets_outside_kerzoo_are_refused(target: Any) -> None:
    with pytest.raises(ValueError, match=r"kernel\._target_: must name a class inside kerzoo, got"):
        build({"_target_": target}, "kernel")


@pytest.mark.parametrize(
    "target",
    [
        "kerzoo.kernels.os.system",
        "kerzoo.kernels.NoSuchKernel",
        "kerzoo.no_such_module.Kernel",
        "kerzoo.kernels.",
        "kerzoo..kernels.ConstantKernel",
    ],
)
def test_targets_that_do_not_exist_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match=r"kernel\._target_: no such class"):
        build({"_target_": target}, "kernel")


@pytest.mark.parametrize(
    "target",
    [
        "kerzoo.kernels.format_table",
        "kerzoo.kernels.DENSITIES",
        "kerzoo.kernels.Kernel",
        "kerzoo.kernels.polynomial",
        "kerzoo.kernels.polynomial.Fraction",
        "kerzoo.kernels.polynomial.math",
        "kerzoo.METHOD_VERSION",
        "kerzoo.records.TrialFolder",
        "kerzoo.assets.Path",
    ],
)
def test_targets_that_are_no_dataclass_of_kerzoo_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match=r"kernel\._target_: must be a dataclass of kerzoo"):
        build({"_target_": target}, "kernel")


def test_an_unknown_key_is_named_with_those_that_are_allowed() -> None:
    with pytest.raises(
        ValueError,
        match=r"kernel\.ordre: no such key; kerzoo\.kernels\.PolynomialKernel takes: "
        r"density, first_moment, order$",
    ):
        build(LEGENDRE4 | {"ordre": 2}, "kernel")


def test_an_unknown_key_of_a_target_without_keys_says_so() -> None:
    with pytest.raises(ValueError, match=r"kernel\.order: no such key; .* takes: none$"):
        build({"_target_": "kerzoo.kernels.ConstantKernel", "order": 2}, "kernel")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"kernel\.density: missing; kerzoo\.kernels\."):
        build({"_target_": "kerzoo.kernels.PolynomialKernel", "order": 2}, "kernel")


def test_a_value_that_the_target_refuses_is_reported_with_its_key() -> None:
    with pytest.raises(ValueError, match=r"^kernel: order must be even and ≥ 2, got 3$"):
        build(LEGENDRE4 | {"order": 3}, "kernel")


def test_errors_name_the_whole_way_to_a_nested_key() -> None:
    with pytest.raises(ValueError, match=r"^arms\[1\]\.kernel\.ordre: no such key"):
        build({"arms": [{}, {"kernel": LEGENDRE4 | {"ordre": 2}}]})


def test_a_contract_cannot_be_built() -> None:
    sizes = {"name": "a", "dtype": "float32", "num_parameters": 1, "num_layers": 1}
    with pytest.raises(ValueError, match="model: Can't instantiate abstract class ModelSource"):
        build({"_target_": "kerzoo.models.ModelSource", "hidden_size": 1, **sizes}, "model")
