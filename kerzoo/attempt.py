"""A trial as a generator of records, from its first attempt to its last.

A trial knows nothing of who runs it, and leaves to its method how a step is made. It yields a row
at step 0 and after the last whole step of each rung, and writes rows and steps itself. Started
again after any interruption it replays what the method can of its trajectory, makes the steps
behind that anew, and goes on: the rows are bit-equal to those of a trial that ran through.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator
from typing import Any

import torch

from kerzoo.confirmation import figures_of_test, read_test
from kerzoo.evaluation import Metrics
from kerzoo.failures import MEMORY_CAUSES, Failure
from kerzoo.losses.heads import MICRO_BATCH_SEQUENCES
from kerzoo.options import TrainingOptions, TrialOptions
from kerzoo.progress import Progress, no_progress
from kerzoo.records import (
    Row,
    StaleAttemptError,
    Status,
    TrialFolder,
    TrialSpec,
    TrialWriter,
    timestamp,
)
from kerzoo.trajectory import StepRecord, cut_steps, cut_torn_step
from kerzoo.workspace import (
    Bench,
    Stopwatch,
    Workspace,
    peak_memory_gib,
    reset_peak_memory,
    synchronise,
)


def run_trial(
    spec: TrialSpec,
    folder: TrialFolder,
    workspace: Workspace,
    progress: Progress = no_progress,
    has_neighbours: bool = False,
) -> Generator[Row, None, None]:
    """Run a trial, or what is left of it.

    A trial that runs out of memory goes on with half as many sequences at a time, again and again
    down to one; `micro_batch` and `retries` of its trial.json say so. Its batches, and with them
    its results up to rounding, stay the same.

    Rows that were recorded by an earlier attempt are not written again. The last of them is
    yielded again if no step follows it, because whoever decides about the trial may not have
    done so. Closing the generator ends the attempt between two steps; nothing is lost.

    Args:
        spec: The trial.
        folder: Where it is recorded; `TrialFolder.create` was called.
        workspace: What the trials of this process share.
        progress: Told about the steps done.
        has_neighbours: Others use the device's memory too. Then running out of it ends the attempt
            as "interrupted", for another one without them.

    Yields:
        Rows in the order of their steps.

    Raises:
        StaleAttemptError: If another attempt began in the meantime.
        Exception: Whatever the trial fails with, after it was recorded.
    """
    while True:
        writer = folder.begin_attempt()
        options = None
        try:
            options = options_of_attempt(spec, folder)
            yield from _attempt(spec, options, writer, workspace, progress)
            return
        except StaleAttemptError:
            raise
        except Exception as error:
            failure = Failure.of(error)
            scarce = options is not None and failure.cause in MEMORY_CAUSES
            smaller = smaller_micro_batch(options.training) if options and scarce else None
            if (scarce and has_neighbours) or failure.cause == "lost_worker":
                _record_failure(writer, "interrupted", failure)
                raise
            if smaller is None:
                _record_failure(writer, "failed", failure)
                raise
            retries = [*folder.read().get("retries", []), describe_retry(failure, smaller)]
            writer.set_status("running", micro_batch=smaller, retries=retries)
        workspace.release_memory()  # here, where the exception no longer holds its frames


def _attempt(
    spec: TrialSpec,
    options: TrialOptions,
    writer: TrialWriter,
    workspace: Workspace,
    progress: Progress,
) -> Generator[Row, None, None]:
    torch.set_num_threads(options.training.threads)
    reset_peak_memory(options.training.device, workspace.num_devices)
    with workspace.open(options) as bench:
        attempt = Attempt(spec, options, writer, workspace, bench, progress)
        yield from attempt.rows()
    yield from attempt.confirm()


def options_of_attempt(spec: TrialSpec, folder: TrialFolder) -> TrialOptions:
    """The trial as objects, with the micro-batch that fits into memory."""
    options = TrialOptions.from_config(spec.config)
    micro_batch = folder.read().get("micro_batch")
    if micro_batch is None:
        return options
    training = dataclasses.replace(options.training, micro_batch=int(micro_batch))
    return dataclasses.replace(options, training=training)


def smaller_micro_batch(training: TrainingOptions) -> int | None:
    """Half as many sequences at a time; None where it is one already."""
    rows = training.batch_size * training.points_per_forward
    size = training.micro_batch or min(MICRO_BATCH_SEQUENCES.get(training.device, rows), rows)
    return size // 2 or None


def describe_retry(failure: Failure, micro_batch: int) -> dict[str, Any]:
    """An entry of `retries` in trial.json."""
    answer = f"micro-batches of {micro_batch}"
    return {"time": timestamp(), "cause": failure.cause, "answer": answer, "where": failure.where}


def _record_failure(writer: TrialWriter, status: Status, failure: Failure) -> None:
    """Write the failure down where that is possible; on a full disk it is not."""
    try:
        writer.set_status(status, failure=failure.to_dict())
    except OSError as error:
        if failure.cause != "disk":
            raise error from None


class Attempt:
    """One attempt at a trial."""

    def __init__(
        self,
        spec: TrialSpec,
        options: TrialOptions,
        writer: TrialWriter,
        workspace: Workspace,
        bench: Bench,
        progress: Progress,
    ) -> None:
        self.spec = spec
        self.options = options
        self.writer = writer
        self.workspace = workspace
        self.bench = bench
        self.progress = progress
        self.learner = options.method.start(options, bench, writer.folder)
        self.recorded = {int(row["step"]): row for row in writer.folder.rows()}
        with writer.holding():
            path = writer.folder.trajectory_path
            logged = cut_torn_step(path)
            self.logged = logged[: self.learner.resume(logged, self.recorded)]
            cut_steps(path, self.logged)
        self.num_made_before = len(logged)
        before = [row["wall_time_s"] for row in self.recorded.values()]
        before += [record.wall_time_s for record in logged]
        self.stopwatch = Stopwatch(max(before, default=0.0))
        self.eval_time_s = max((r["eval_time_s"] for r in self.recorded.values()), default=0.0)
        self.replay_time_s = 0.0
        self.history: list[StepRecord] = []
        self.is_confirming = spec.phase == "confirm"
        self.awaiting_test: Row | None = None

    def rows(self) -> Generator[Row, None, None]:
        """Step 0, then every rung; ends the trial's status as well.

        The last row of a confirming trial waits for `confirm`.
        """
        for rung in [0, *self.spec.rungs]:
            for step in range(len(self.history), self.options.steps_at(rung)):
                if not self._advance(step):
                    yield self._diverge(rung)
                    return
                self.progress("training", step + 1, self.options.num_steps)
            step = len(self.history)
            self.learner.save(step, self.writer)
            if step in self.recorded:
                row = self.recorded[step]
                decided = self.num_made_before > step
            else:
                row, decided = self._evaluate(rung), False
            if row is self.awaiting_test:
                return
            if row["diverged"]:
                self._end("diverged")
            if not decided:
                yield row
            if row["diverged"]:
                return
        self._end("finished")

    def confirm(self) -> Generator[Row, None, None]:
        """The last row of a confirming trial, with the test figures; its bench is closed by now."""
        row = self.awaiting_test
        if row is None:
            return
        rows = [*self.recorded.values(), row]
        test = read_test(
            self.options, rows, self.history, self.writer.folder, self.workspace, self.progress
        )
        self.replay_time_s += test.replay_time_s
        self.workspace.replay_s += test.replay_time_s
        self.workspace.busy_s += test.eval_time_s
        times = {name: row[name] + test.eval_time_s for name in ("eval_time_s", "wall_time_s")}
        yield self._record({**row, **times, **test.figures})
        self._end("finished")

    def _advance(self, step: int) -> bool:
        """Replay a logged step, or make a new one. Returns False if the loss is not finite."""
        if step < len(self.logged):
            start = time.perf_counter()
            self.learner.replay(self.logged[step])
            self._discount_replay(time.perf_counter() - start)
            self.history.append(self.logged[step])
            return True
        start = time.perf_counter()
        losses = self.learner.advance(step)
        synchronise(self.options.training.device, self.workspace.num_devices)
        seconds = time.perf_counter() - start
        self.workspace.busy_s += seconds
        if losses is None:
            return False
        tokens = self.bench.train.num_tokens(self.learner.indices(step))
        record = StepRecord(step, losses, tokens, seconds, self.stopwatch.elapsed)
        self.writer.append_step(record.pack())
        self.history.append(record)
        return True

    def _discount_replay(self, seconds: float) -> None:
        self.stopwatch.discount(seconds)
        self.replay_time_s += seconds
        self.workspace.replay_s += seconds

    def _evaluate(self, rung: int) -> Row:
        start = time.perf_counter()
        if self.history:
            metrics = self.learner.evaluate()
        else:
            metrics = self.workspace.first_metrics(self.options, self.bench)
        seconds = time.perf_counter() - start
        self.eval_time_s += seconds
        self.workspace.busy_s += seconds
        row = self._row(rung, metrics if math.isfinite(metrics.loss) else None)
        is_last = rung == [0, *self.spec.rungs][-1] and not row["diverged"]
        if is_last and self.is_confirming:
            self.awaiting_test = row
            return row
        return self._record(row)

    def _record(self, row: Row) -> Row:
        self.writer.append_row(row)
        self.recorded[row["step"]] = row
        return row

    def _diverge(self, rung: int) -> Row:
        """The row of a step whose loss was not finite; what it cost is counted."""
        row = self._row(rung, None)
        row["step"] += 1
        if row["step"] not in self.recorded:
            indices = self.learner.indices(len(self.history))
            reads = self.options.method.reads_per_step(self.options)
            row["forward_passes"] += self.options.forward_passes_per_step
            row["examples_seen"] += len(indices)
            row["tokens_processed"] += reads * self.bench.train.num_tokens(indices)
            self._record(row)
        self._end("diverged")
        return self.recorded[row["step"]]

    def _end(self, status: Status) -> None:
        notes = {"notes": self.bench.notes} if self.bench.notes else {}
        ended = {"ended_rung": self.recorded[max(self.recorded)]["rung"]}
        self.writer.set_status(status, replay_time_s=self.replay_time_s, **ended, **notes)

    def _row(self, rung: int, metrics: Metrics | None) -> Row:
        training = self.options.training
        steps = len(self.history)
        reads = self.options.method.reads_per_step(self.options)
        return {
            **self._labels(),
            "rung": rung,
            "step": steps,
            "forward_passes": steps * self.options.forward_passes_per_step,
            "examples_seen": steps * self.learner.batch_size if steps else 0,
            "tokens_processed": reads * sum(record.tokens for record in self.history),
            "wall_time_s": self.stopwatch.elapsed,
            "device_time_s": math.fsum(record.device_time_s for record in self.history),
            "eval_time_s": self.eval_time_s,
            "train_loss": self._train_loss() if metrics else None,
            "projected_gradient_rms": self._gradient_rms() if metrics else None,
            "dev_loss": metrics.loss if metrics else None,
            **self._dev_figures(metrics),
            "diverged": metrics is None,
            "peak_memory_gib": peak_memory_gib(training.device, self.workspace.num_devices),
            **(figures_of_test(self.options.task, None, None) if self.is_confirming else {}),
        }

    def _dev_figures(self, metrics: Metrics | None) -> dict[str, float | None]:
        """Accuracy or F1, and AUC where there are two classes."""
        task = self.options.task
        names = [task.metric, *(["auc"] if task.binary else [])]
        return {f"dev_{name}": getattr(metrics, name, None) for name in names}

    def _labels(self) -> dict[str, Any]:
        """What the trial is; null where a setting means nothing to its method."""
        options, training, choices = self.options, self.options.training, self.spec.choices
        kernel = options.kernel if options.uses("kernel") else None
        interval = kernel is not None and kernel.has_bandwidth
        numbers = {
            name: getattr(training, name) if options.uses(name) else None
            for name in ("perturbation_scale", "learning_rate", "num_directions", "seed")
        }
        return {
            "trial_id": self.spec.trial_id,
            "arm": self.spec.arm,
            "kernel": choices["kernel"] if kernel else None,
            "order": kernel.order if kernel else None,
            "half_width": options.bandwidth.half_width_at(0, options.num_steps)
            if interval
            else None,
            "perturbation_scale": numbers["perturbation_scale"],
            "learning_rate": numbers["learning_rate"],
            "learning_rate_factor": self.learner.learning_rate_factor_at(
                max(len(self.history) - 1, 0)  # of the last update
            ),
            "num_directions": numbers["num_directions"],
            "tuning": choices["tuning"] if options.uses("tuning") else None,
            "model": options.model.name,
            "task": options.task.name,
            "seed": numbers["seed"],
            "phase": self.spec.phase,
        }

    def _train_loss(self) -> float | None:
        """Mean of the losses measured since the last evaluation; None at step 0."""
        since = [loss for record in self.history[self._last() :] for loss in record.losses]
        return math.fsum(since) / len(since) if since else None

    def _gradient_rms(self) -> float | None:
        """Root of the mean squared projected gradient since the last evaluation."""
        squares = self.learner.squared_gradients[self._last() :]
        return math.sqrt(math.fsum(squares) / len(squares)) if squares else None

    def _last(self) -> int:
        """The step of the last evaluation before this one."""
        return max((step for step in self.recorded if step < len(self.history)), default=0)
