"""Several points in one forward pass: the losses of points in turn, whatever the model and task."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import MODELS, VOCABULARY, make_model
from tiny_trials import LORA, LORA_LAST, MODEL, created, numbers, trial_config, trial_spec

from kerzoo.attempt import run_trial, smaller_micro_batch
from kerzoo.losses import ContinuationLoss, LabelWordLoss, SequenceRunner, SplitLoss
from kerzoo.methods.zeroth_order import ZerothOrderLearner
from kerzoo.models import LoadedModel
from kerzoo.models.vocabulary import make_opt_tokenizer
from kerzoo.optimizer import KerZOO
from kerzoo.options import TrialOptions
from kerzoo.tasks import ContinuationSplit, LabelWordSplit, Sequences
from kerzoo.tuning import LoRA, StackedAdapters
from kerzoo.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_cache")

ROUNDING = 1e-6
"""Of a loss in fp32, relative: other shapes of matrices sum in another order."""
LENGTHS = (9, 4, 12, 7, 7, 5)
ADAPTED: list[tuple[str, tuple[str, ...] | None]] = [
    *((name, None) for name in MODELS),
    ("opt", ("fc1", "out_proj")),
    ("llama", ("down_proj", "o_proj")),
    ("roberta", ("dense",)),  # in the head too
]


def sequences() -> Sequences:
    generator = torch.Generator().manual_seed(0)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    tokens = torch.randint(3, VOCABULARY, (int(offsets[-1]),), generator=generator)
    return Sequences(tokens, offsets, max_length=max(LENGTHS), num_truncated=0)


def label_words(runner: SequenceRunner) -> SplitLoss:
    split = LabelWordSplit(
        sequences=runner.sequences,
        positions=torch.tensor(LENGTHS) - 1,
        labels=torch.tensor([0, 1, 1, 0, 1, 0]),
        label_token_ids=torch.tensor([3, 4]),
    )
    return LabelWordLoss(runner, split, "cross_entropy")


def candidates(runner: SequenceRunner) -> SplitLoss:
    """Three examples of one to three candidates, of one to three tokens."""
    split = ContinuationSplit(
        sequences=runner.sequences,
        continuation_lengths=torch.tensor([3, 1, 2, 2, 3, 1]),
        first_sequence=torch.tensor([0, 2, 5, 6]),
        labels=torch.tensor([1, 0, 0]),
        also_right=((), (1,), ()),
    )
    return ContinuationLoss(runner, split, "cross_entropy")


def words_of_the_answer(runner: SequenceRunner) -> SplitLoss:
    loss = candidates(runner)
    loss.objective = "language_model"
    return loss


LOSSES = {"label words": label_words, "candidates": candidates, "answers": words_of_the_answer}


@pytest.mark.parametrize(("name", "targets"), ADAPTED)
def test_losses_are_those_of_points_in_turn_in_every_model_and_loss(
    name: str, targets: tuple[str, ...] | None
) -> None:
    model = make_model(name)
    loaded = LoadedModel(model, make_opt_tokenizer(), "")
    with LoRA(rank=2, target_modules=targets).attach(model, 0) as attached:
        generator = torch.Generator().manual_seed(1)
        for parameter in attached.parameters.values():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
        runner = SequenceRunner(
            loaded, sequences(), micro_batch=12, adapters=StackedAdapters(attached)
        )
        optimizer = KerZOO(
            attached.parameters.values(),
            lr=0.1,
            perturbation_scale=0.1,
            num_directions=3,
            points_per_forward=4,
            lazy=True,
        )
        for make in LOSSES.values():
            loss = make(runner)
            indices = list(range(len(loss.split)))[::-1]
            in_turn = optimizer.estimator.estimate(
                optimizer.weights, functools.partial(loss.loss, indices), 0
            )
            found = optimizer.estimate(functools.partial(loss.losses, indices))
            assert found.losses == pytest.approx(in_turn.losses, rel=ROUNDING)
            assert len({round(value, 4) for value in found.losses}) == 6
            assert loss.loss(indices) != pytest.approx(found.losses[-1], rel=ROUNDING)  # at θ again


CASES: dict[str, dict[str, Any]] = {
    "two points": {"points_per_forward": 2},
    "three directions": {"points_per_forward": 6, "num_directions": 3},
    "last layers, cached": {"points_per_forward": 4, "num_directions": 3, "tuning": LORA_LAST},
    "several nodes": {
        "points_per_forward": 3,
        "kernel": {"_target_": "kerzoo.kernels.RichardsonKernel", "order": 4},
    },
    "an r of each tensor, in place": {
        "points_per_forward": 2,
        "r_scope": "tensor",
        "precision": "inplace",
    },
    "micro-batches": {"points_per_forward": 2, "micro_batch": 6, "tuning": LORA_LAST},
    "micro-batches below a point": {"points_per_forward": 4, "num_directions": 2, "micro_batch": 1},
}


def config_of(sst2: Path, points_per_forward: int, micro_batch: int = 0, **changes: Any) -> Any:
    numbers = {"learning_rate": 0.05, "points_per_forward": points_per_forward}
    config = trial_config(sst2, **numbers, **changes)
    config["training"]["micro_batch"] = micro_batch
    return config


def assert_losses_agree(config: dict[str, Any], tolerance: float) -> None:
    """At θ after some steps, found together and in turn."""
    options = TrialOptions.from_config(config)
    with Workspace().open(options) as bench:
        learner = ZerothOrderLearner(options, bench)
        optimizer = learner.optimizer
        for step in range(4):
            assert learner.advance(step) is not None
        optimizer.settle()
        indices = learner.indices(4)
        in_turn = optimizer.estimator.estimate(
            optimizer.weights, functools.partial(bench.train.loss, indices), 4
        )
        found = optimizer.estimate(functools.partial(bench.train.losses, indices))
        assert found.losses == pytest.approx(in_turn.losses, rel=tolerance)
        if options.task.objective != "accuracy":
            assert len(set(in_turn.losses)) == len(in_turn.losses)


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_points_in_turn_in_every_setting(sst2: Path, case: str) -> None:
    assert_losses_agree(config_of(sst2, **CASES[case]), 2 * ROUNDING)


def test_losses_are_those_of_points_in_turn_where_accuracy_is_the_objective(sst2: Path) -> None:
    config = config_of(sst2, 6, num_directions=3)
    config["task"]["objective"] = "accuracy"
    assert_losses_agree(config, ROUNDING)


def test_losses_in_half_precision_differ_by_its_rounding(sst2: Path) -> None:
    config = config_of(sst2, 6, num_directions=3, model=MODEL | {"dtype": "bfloat16"})
    assert_losses_agree(config, 1e-2)


@pytest.mark.parametrize("precision", ["master", "inplace"])
@pytest.mark.parametrize("tuning", [LORA, LORA_LAST], ids=["all layers", "last layers, cached"])
def test_a_trial_agrees_with_one_of_points_in_turn_and_resumes_bit_for_bit(
    sst2: Path, tmp_path: Path, tuning: dict[str, Any], precision: str
) -> None:
    changes: dict[str, Any] = {"num_directions": 2, "tuning": tuning, "precision": precision}
    rows = {}
    for number in (1, 4):
        spec = trial_spec(config_of(sst2, number, **changes))
        trial = created(tmp_path / str(number), spec)
        rows[number] = list(run_trial(spec, trial, Workspace()))
    losses = [[row["dev_loss"] for row in rows[number]] for number in (1, 4)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    spec = trial_spec(config_of(sst2, 4, **changes))
    trial = created(tmp_path / "resumed", spec)
    attempt = run_trial(spec, trial, Workspace())
    next(attempt), next(attempt)
    attempt.close()
    assert len(list(run_trial(spec, trial, Workspace()))) < len(rows[4])
    assert numbers(trial.rows()) == numbers(rows[4])


class Spy:
    """In the place of recorded passes: what tells each from others, and how many rows it has."""

    def __init__(self) -> None:
        self.passes: list[tuple[Any, int]] = []

    def __call__(self, forward: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self.passes.append((inputs.get("place"), len(inputs["input_ids"])))
        states: torch.Tensor = forward(inputs)
        return states


def test_passes_of_several_points_are_told_from_others_and_their_place_stays(sst2: Path) -> None:
    options = TrialOptions.from_config(config_of(sst2, 4, micro_batch=32, num_directions=3))
    with Workspace().open(options) as bench:
        learner, spy = ZerothOrderLearner(options, bench), Spy()
        bench.train.runner.graphs = spy  # type: ignore[assignment]
        for step in range(3):
            assert learner.advance(step) is not None
        bench.train.loss(range(32))
    *steps, (place, rows) = spy.passes
    assert (place, rows) == (None, 32)
    assert [(place[0], rows) for place, rows in steps] == [(4, 32), (2, 16)] * 3
    assert len({place[1] for place, _ in steps}) == 1


def test_scarce_memory_halves_the_rows_of_all_points_together(sst2: Path) -> None:
    options = TrialOptions.from_config(config_of(sst2, 4))
    gpu = TrialOptions.from_config(config_of(sst2, 4, device="cuda"))
    assert smaller_micro_batch(options.training) == 4
    assert smaller_micro_batch(gpu.training) == 16


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_adapters_that_are_no_linear_modules_are_refused(sst2: Path) -> None:
    tuning = LORA | {"target_modules": ["embed_tokens"]}
    options = TrialOptions.from_config(config_of(sst2, 2, tuning=tuning))
    with (
        pytest.raises(
            ValueError, match=r"points_per_forward must be 1: .*lora_embedding_A.* linear"
        ),
        Workspace().open(options),
    ):
        pass
