"""The report's tables. Adding one is adding a decorated function."""

from __future__ import annotations

import pandas as pd

from analysis.formats import (
    format_area,
    format_change,
    format_count,
    format_gib,
    format_level,
    format_loss,
    format_points,
    format_score,
    format_seconds,
)
from analysis.load import Study
from analysis.registry import Column, Table, context_column, table
from analysis.selection import (
    Which,
    best_cells,
    compared_rung,
    last_of_settings,
    rung_counts,
)

ARM = Column("arm", "Arm")


@table("best")
def best_at_final_rung(study: Study) -> Table | None:
    """Best cell of each arm at the final rung, among trials that finished."""
    return _best(study, "final")


@table("best")
def best_at_first_rung(study: Study) -> Table | None:
    """Best cell of each arm at the first rung, where no trial has been stopped yet."""
    return _best(study, "first")


def _best(study: Study, which: Which) -> Table | None:
    frame = best_cells(study, which)
    if frame.empty:
        return None
    frame["tried"] = [
        f"{cells} of {planned}"
        for cells, planned in zip(frame["cells"], frame["planned_cells"], strict=True)
    ]
    base = study.baselines[0] if study.baselines else "baseline"
    note = (
        f"At {_rungs(study, which)} forward passes; the cell with the lowest dev loss. Changes are "
        f"over the same trials' step 0; “vs {base}” is the difference to its best cell. "
        "The first page takes each run's best evaluation instead, by which another cell may lead. "
        "“Cells” counts those with a result here: the more there are, the luckier the best of them."
    )
    missing = [arm for arm in study.arms if arm not in set(frame["arm"])]
    if missing:
        note += f" Nothing to show at this rung for {', '.join(missing)}."
    columns = (
        *_where(study),
        *_loss_columns(),
        Column("loss_difference", f"Loss vs {base}", format_change, numeric=True),
        *_score_columns(study),
        Column("score_difference", "Points vs " + base, format_points, numeric=True),
        Column("forward_passes", "Forward passes", format_count, numeric=True),
        Column("device_time_s", "Device s", format_seconds, numeric=True),
        Column("seeds", "Seeds", format_count, numeric=True),
        Column("tried", "Cells", numeric=True),
    )
    return Table(frame, _without_empty(frame, columns, "score_difference"), note)


def _rungs(study: Study, which: Which) -> str:
    """The rung that is shown: of all contexts where they agree, else of each."""
    found = {c: compared_rung(study, c, which) for c in study.contexts}
    rungs = {c: format_count(rung) for c, rung in found.items() if rung is not None}
    same = len(set(rungs.values())) <= 1
    return ", ".join(dict.fromkeys(r if same else f"{r} ({c})" for c, r in rungs.items())) or "0"


def _where(study: Study) -> tuple[Column, ...]:
    """The columns that say which cell a row is about."""
    return (
        *context_column(study),
        ARM,
        Column("perturbation_scale", "ε", format_level, numeric=True),
        Column("learning_rate", "Learning rate", format_level, numeric=True),
        *((Column("extra", "Other factors"),) if study.has_extra_factors else ()),
    )


def _loss_columns() -> tuple[Column, ...]:
    return (
        Column("dev_loss", "Dev loss", format_loss, numeric=True, spread="dev_loss_sd"),
        Column("dev_loss_change", "Loss change", format_change, True, spread="dev_loss_change_sd"),
    )


def _score_columns(study: Study) -> tuple[Column, ...]:
    name = f"Dev {study.score_name}"
    return (
        Column("score", name, format_score, numeric=True, spread="score_sd"),
        Column(
            "score_change",
            f"{study.score_name[:1].upper()}{study.score_name[1:]} change, pt",
            format_points,
            True,
            spread="score_change_sd",
        ),
    )


def _without_empty(
    frame: pd.DataFrame, columns: tuple[Column, ...], *names: str
) -> tuple[Column, ...]:
    """The columns, less those of `names` that have no value at all."""
    empty = {name for name in names if frame[name].isna().all()}
    return tuple(column for column in columns if column.name not in empty)


@table("cells")
def cells(study: Study) -> Table:
    """Every cell of the plan at the last rung it reached."""
    frame = last_of_settings(study)
    outcomes = ("dev_loss", "score", "dev_auc")
    columns = (
        *_where(study),
        Column("status", "Status"),
        Column("rung", "Rung", format_count, numeric=True),
        Column("forward_passes", "Forward passes", format_count, numeric=True),
        Column("dev_loss_start", "Dev loss at step 0", format_loss, numeric=True),
        *_loss_columns(),
        Column("score_start", f"Dev {study.score_name} at step 0", format_score, numeric=True),
        *_score_columns(study),
        Column("dev_auc_start", "Dev AUC at step 0", format_area, numeric=True),
        Column("dev_auc", "Dev AUC", format_area, numeric=True, spread="dev_auc_sd"),
        Column("device_time_s", "Device s", format_seconds, numeric=True),
        *((_seeds_column(frame),) if study.seeds_per_cell > 1 else ()),
        *((Column("shared_with", "Same trial as"),) if (frame["shared_with"] != "").any() else ()),
        Column("trial_ids", "Trial", _short_ids),
    )
    empty = [f"{name}{suffix}" for name in outcomes for suffix in ("", "_start", "_change")]
    return Table(
        frame,
        _without_empty(frame, columns, *empty),
        "Rows at different rungs have had different budgets: their losses are not comparable. "
        "A dash is a number that does not exist, such as the loss of a trial that diverged before "
        "its first evaluation.",
        sortable=True,
        shown=study.seeds_per_cell > 1,
    )


def _seeds_column(frame: pd.DataFrame) -> Column:
    """Seeds with a result at the shown rung, of those that were planned."""
    frame["seeds_of"] = [
        f"{0 if pd.isna(seeds) else int(seeds)} of {planned}"
        for seeds, planned in zip(frame["seeds"], frame["planned_seeds"], strict=True)
    ]
    return Column("seeds_of", "Seeds", numeric=True)


def _short_ids(ids: str) -> str:
    """The beginnings of up to three ids, and how many there are of more."""
    found = [trial_id[:8] for trial_id in ids.split()]
    return ", ".join(found) if len(found) <= 3 else f"{found[0]}, … ({len(found)})"


@table("rungs")
def rungs(study: Study) -> Table | None:
    """Who reached each rung, and with what loss."""
    frame = rung_counts(study)
    if frame.empty:
        return None
    columns = (
        *context_column(study),
        Column("rung", "Rung", format_count, numeric=True),
        ARM,
        Column("trials", "Planned", format_count, numeric=True),
        Column("arrived", "Arrived", format_count, numeric=True),
        Column("stopped", "Stopped here", format_count, numeric=True),
        Column("diverged", "Diverged so far", format_count, numeric=True),
        Column("best", "Best dev loss", format_loss, numeric=True),
        Column("median", "Median dev loss", format_loss, numeric=True),
        Column("sample", "Sample"),
    )
    return Table(
        frame,
        columns,
        "A rung is a budget in forward passes at which trials are evaluated. Once trials have been "
        "stopped, the median is that of the survivors, a selected sample: it falls even where "
        "nothing improves. Trials of several arms count for each.",
    )


@table("arms")
def arms(study: Study) -> Table:
    """The arms."""
    first = study.cells.groupby("arm", sort=False).first().reset_index()
    first["description"] = [
        ((config or {}).get("arm") or {}).get("description") or "" for config in first["config"]
    ]
    first["role"] = ["baseline" if arm in study.baselines else "" for arm in first["arm"]]
    shared = study.cells[study.cells["shared_with"] != ""].groupby("arm")["shared_with"]
    first["shared_with"] = first["arm"].map(
        shared.agg(lambda names: ", ".join(dict.fromkeys(names)))
    )
    first = study.sort_by_arm(first)
    columns = (
        ARM,
        Column("role", "Role"),
        Column("kernel", "Kernel"),
        Column("order", "Bias order", format_count, numeric=True),
        Column("half_width", "Half-width", format_level, numeric=True),
        Column("num_directions", "Directions", format_count, numeric=True),
        Column("shared_with", "Shares trials with"),
        Column("description", "In words"),
    )
    for column in ("order", "half_width", "num_directions"):
        first[column] = pd.to_numeric(first[column], errors="coerce")
    return Table(first, _without_empty(first, columns, "shared_with", "half_width"))


@table("cost")
def trials_outside_the_plan(study: Study) -> Table | None:
    """Trials in the folder that are not in the plan."""
    frame = last_of_trials(study)
    frame = frame[~frame["planned"].astype(bool)]
    if frame.empty:
        return None
    columns = (
        Column("trial_id", "Trial"),
        *context_column(study),
        ARM,
        Column("perturbation_scale", "ε", format_level, numeric=True),
        Column("learning_rate", "Learning rate", format_level, numeric=True),
        Column("seed", "Seed", format_count, numeric=True),
        Column("status", "Status"),
        Column("forward_passes", "Forward passes", format_count, numeric=True),
        Column("dev_loss", "Dev loss", format_loss, numeric=True),
    )
    note = "They belong to an earlier plan; no other table or figure counts them."
    return Table(frame, columns, note)


@table("cost")
def memory_and_time(study: Study) -> Table | None:
    """What each arm's trials took."""
    last = last_of_trials(study)
    last = last[last["planned"].astype(bool) & (last["forward_passes"] > 0)]
    if last.empty:
        return None
    last = study.sort_by_arm(last)
    groups = last.groupby(["context", "arm"], sort=False)
    frame = groups.agg(
        trials=("trial_id", "size"),
        forward_passes=("forward_passes", "sum"),
        device_time_s=("device_time_s", "sum"),
        eval_time_s=("eval_time_s", "sum"),
        peak_memory_gib=("peak_memory_gib", "max"),
    ).reset_index()
    frame["pass_ms"] = 1000 * frame["device_time_s"] / frame["forward_passes"]
    columns = (
        *context_column(study),
        ARM,
        Column("trials", "Trials", format_count, numeric=True),
        Column("forward_passes", "Forward passes", format_count, numeric=True),
        Column("device_time_s", "Training, device s", format_seconds, numeric=True),
        Column("eval_time_s", "Evaluation, device s", format_seconds, numeric=True),
        Column("pass_ms", "ms per forward pass", format_seconds, numeric=True),
        Column("peak_memory_gib", "Peak memory, GiB", format_gib, numeric=True),
    )
    return Table(frame, columns, "A trial that serves several arms counts once, for the first.")


def last_of_trials(study: Study) -> pd.DataFrame:
    """Every trial once, those outside the plan included, with its last row's numbers."""
    return study.trials.merge(study.last_rows, on=["sweep", "trial_id"], how="left")
