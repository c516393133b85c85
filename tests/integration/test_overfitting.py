"""Every task's loss leads somewhere: a few rows are overfitted by forward passes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from public_rows import OPT_TASKS, ROBERTA_TASKS, write_opt_tasks, write_roberta_tasks
from tiny_trials import MEZO, trial_config, write_sst2
from torch.nn import functional as F

from kerzoo.evaluation import evaluate
from kerzoo.losses import SplitLoss
from kerzoo.options import TrialOptions
from kerzoo.records import TrialFolder
from kerzoo.workspace import Workspace
from sweeps.plan import make_plan

ROWS, STEPS = 8, 200
LEARNING_RATES = {"opt-tiny": 3e-4, "roberta-tiny": 1e-3}
LARGEST_SHARE_LEFT = 0.9
"""Of a loss that starts near that of guessing, or of a whole vocabulary's."""


@pytest.fixture(scope="module")
def public_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`opt-tiny` and `roberta-tiny`, each a data_root with the public files of its tasks."""
    root = tmp_path_factory.mktemp("public")
    write_opt_tasks(root / "opt-tiny")
    write_roberta_tasks(root / "roberta-tiny")
    return root


def options_of(task: str, root: Path) -> TrialOptions:
    model = "roberta-tiny" if task in ROBERTA_TASKS else "opt-tiny"
    overrides = [
        "arm=mezo",
        "tuning=full",
        f"model={model}",
        "model.num_layers=2",
        f"task={task}",
        f"data_root={root / model}",
        "task.shots=null",
        f"task.num_train={ROWS}",
        "task.num_dev=1",
        "task.num_test=0",
        "task.max_length=64",
        f"training.batch_size={ROWS}",
        f"training.forward_passes={2 * STEPS}",
        "training.rungs=[1.0]",
        f"training.learning_rate={LEARNING_RATES[model]}",
        "training.perturbation_scale=1e-3",
        "training.device=cpu",
    ]
    (options,) = make_plan(overrides, "test", single=True).options
    return options


@torch.inference_mode()
def unlikelihood(loss: SplitLoss, labels: list[int]) -> float:
    """How little the scores favour the rows' own labels, in nats; knows nothing of the loss."""
    scores = loss.scores(range(len(labels)))
    if loss.objective == "cross_entropy":
        return float(F.cross_entropy(scores, torch.tensor(labels)))
    return -float(scores[torch.arange(len(labels)), labels].mean())


@pytest.mark.slow
@pytest.mark.parametrize("task", [*OPT_TASKS, *ROBERTA_TASKS])
def test_two_hundred_zeroth_order_steps_overfit_eight_rows(
    task: str, public_files: Path, tmp_path: Path, own_cache: Path
) -> None:
    options = options_of(task, public_files)
    labels = [example.label for example in options.task.examples("train")]
    with Workspace().open(options) as bench:
        learner = options.method.start(options, bench, TrialFolder(tmp_path))
        before = unlikelihood(bench.train, labels)
        losses = [loss for step in range(STEPS) for loss in learner.advance(step) or ()]
        after = unlikelihood(bench.train, labels)
    assert len(losses) == 2 * STEPS
    assert after < LARGEST_SHARE_LEFT * before


def test_the_accuracy_itself_as_the_objective_raises_accuracy(tmp_path: Path) -> None:
    config = trial_config(
        write_sst2(tmp_path / "data"),
        kernel=MEZO,
        tuning={"_target_": "kerzoo.tuning.HeadTuning", "last_layers": 0},
        learning_rate=1.0,
        perturbation_scale=0.3,  # large enough that predictions flip
        batch_size=60,  # every training example
    )
    config["task"]["objective"] = "accuracy"
    options = TrialOptions.from_config(config)
    with Workspace().open(options) as bench:
        learner = options.method.start(options, bench, TrialFolder(tmp_path))
        before = evaluate(bench.dev).accuracy
        errors = [loss for step in range(200) for loss in learner.advance(step) or ()]
        after = evaluate(bench.dev).accuracy
    assert {round(60 * error, 3) % 1 for error in errors} == {0.0}  # shares of 60 examples
    assert sum(errors[-20:]) < sum(errors[:20]) - 20 * 0.15
    assert before is not None
    assert after is not None
    assert after > before
