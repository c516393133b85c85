"""The end of a confirming trial: the test split, read once, at the checkpoint that dev chose.

The weights of that checkpoint are rebuilt on a freshly attached model, whichever checkpoint it is;
a zeroth-order trial's by replaying its own steps. A method that learns something beside the
model judges by what it kept of that. Nothing that is read here influences a choice.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

from kerzoo.evaluation import Metrics, evaluate
from kerzoo.options import TrialOptions
from kerzoo.progress import Progress, no_progress
from kerzoo.records import Row, TrialFolder, choose_checkpoint
from kerzoo.tasks import Task
from kerzoo.trajectory import StepRecord
from kerzoo.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the test split says.

    Attributes:
        figures: The row's test columns.
        eval_time_s: Duration of the evaluation.
        replay_time_s: Duration of rebuilding the weights.
    """

    figures: dict[str, Any]
    eval_time_s: float
    replay_time_s: float


def figures_of_test(task: Task, step: int | None, metrics: Metrics | None) -> dict[str, Any]:
    """The test columns of a confirming trial's row; null where the split was not read.

    Args:
        task: Names the columns: F1 where answers are generated, AUC where there are two classes.
        step: The checkpoint that dev chose.
        metrics: Its figures on test.
    """
    names = ["loss", task.metric, *(["auc"] if task.binary else [])]
    read = {f"test_{name}": getattr(metrics, name, None) for name in names}
    return {"test_step": step, **read}


def read_test(
    options: TrialOptions,
    rows: Iterable[Row],
    steps: Sequence[StepRecord],
    folder: TrialFolder,
    workspace: Workspace,
    progress: Progress = no_progress,
) -> Reading:
    """Rebuild the checkpoint that dev chose and judge it on the test split.

    Args:
        options: The trial, whose own model and data are closed by now.
        rows: All its rows.
        steps: All its steps.
        folder: Where it is recorded.
        workspace: What the trials of this process share.
        progress: Told about the replay.

    Raises:
        ValueError: If nothing was evaluated after an update, or the data do not suffice.
    """
    chosen = int(choose_checkpoint(rows)["step"]) if options.rungs else 0
    with workspace.open_test(options) as (parameters, loss):
        start = time.perf_counter()
        if chosen and options.method.changes_weights:
            options.method.rebuild(options, parameters, folder, steps[:chosen], progress)
        replayed = time.perf_counter()
        judged = options.method.judge(loss, folder, chosen)
        metrics = evaluate(judged, options.task.binary)
        ended = time.perf_counter()
    figures = figures_of_test(options.task, chosen, metrics)
    return Reading(figures, ended - replayed, replayed - start)
