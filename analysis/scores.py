"""The table of the papers: arms and tunings by tasks, with published numbers beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.formats import MISSING, format_count, is_missing
from analysis.load import Study
from analysis.paper import QUOTED
from analysis.registry import Column, Table, table
from analysis.statistics import adjust_holm, paired_mean

ROW = ["sweep", "phase", "model", "tuning", "arm"]
"""What a row of the table is about."""

ALPHA = 0.05
"""Level of the tests that decide ties."""

_LABELS = {"sweep": "Sweep", "phase": "Phase", "model": "Model"}


@table("best")
def scores_by_task(study: Study) -> Table | None:
    """Scores by arm, tuning and task, in points: mean (sd) over seeds."""
    found = choose_scores(study)
    if found.empty or not (found["task"].nunique() > 1 or (found["split"] == "test").any()):
        return None
    tasks = [t for t in dict.fromkeys(study.cells["task"]) if (found["task"] == t).any()]
    best = _best_of_tasks(found)
    records = [
        _row_of(mine, tasks, best) for _, mine in found.groupby(ROW, sort=False, dropna=False)
    ]
    records += _quote(study, tasks)
    blank = {f"{t}{suffix}": float("nan") for t in tasks for suffix in ("", "_sd", "_seeds")}
    frame = pd.DataFrame([{**blank, **record} for record in records])
    own = frame[frame["source"] == ""]
    varying = [name for name in _LABELS if own[name].nunique() > 1]
    columns = (
        *(Column(name, _LABELS[name]) for name in varying),
        Column("arm", "Method"),
        Column("tuning", "Tuning"),
        *(_score_column(task) for task in tasks),
        Column("seeds", "Seeds", numeric=True),
        Column("split", "Split"),
        *((Column("source", "Source"),) if (frame["source"] != "").any() else ()),
    )
    return Table(frame, columns, _note(frame))


def choose_scores(study: Study) -> pd.DataFrame:
    """The score of each arm's best cell: of its trials at the checkpoint that dev chose.

    A trial's checkpoint is its evaluation of lowest dev loss after step 0, the earlier of equal
    ones; step 0 where nothing is trained. An arm's best cell is that of lowest mean dev loss at
    those checkpoints, among its cells with the most finished seeds; ties go to the first of the
    plan. Test is never looked at to choose; it is shown where every seed of the cell has it, and
    dev elsewhere.

    Returns:
        One row per context and arm, in the order of the plans: ROW, `task`, `score` and
        `score_sd` in points, `seeds`, `missing` (planned seeds of the cell without a score),
        `split`, `setting` and `values`, (seed, data seed) → score of each trial.
    """
    frame = study.evaluations
    last_step = frame.groupby(["setting", "trial_id"])["step"].transform("max")
    candidate = (frame["step"] > 0) | (last_step == 0)
    usable = frame[candidate & frame["dev_loss"].notna() & (frame["status"] == "finished")]
    ordered = usable.sort_values(["dev_loss", "step"], kind="stable")
    chosen = ordered.groupby(["setting", "trial_id"], sort=True).head(1)
    tested = study.evaluations.groupby(["setting", "trial_id"])["test_score"].last()
    keys = pd.MultiIndex.from_frame(chosen[["setting", "trial_id"]])
    chosen = chosen.assign(test_score=tested.reindex(keys).to_numpy())
    planned = study.cells.groupby("setting")["trial_id"].nunique()
    records = []
    for _, arm in chosen.groupby(["context", "arm"], sort=False):
        cells = arm.groupby("setting", sort=True)
        sizes, losses = cells.size(), cells["dev_loss"].mean()
        best = losses[sizes == sizes.max()].idxmin()
        mine = arm[arm["setting"] == best]
        is_tested = bool(mine["test_score"].notna().all())
        values = 100 * mine["test_score" if is_tested else "score"]
        records.append(
            {
                **{name: mine[name].iloc[0] for name in [*ROW, "task"]},
                "score": values.mean(),
                "score_sd": values.std(),
                "seeds": len(mine),
                "missing": int(planned[best]) - len(mine),
                "split": "test" if is_tested else "dev",
                "setting": best,
                "values": dict(zip(_seeds_of(mine), values.astype(float), strict=True)),
            }
        )
    columns = [*ROW, "task", "score", "score_sd", "seeds", "missing", "split", "setting", "values"]
    scores = pd.DataFrame(records, columns=columns).sort_values("setting", kind="stable")
    return scores.drop_duplicates([*ROW, "task"])  # what tunes nothing stands beside every tuning


def _seeds_of(trials: pd.DataFrame) -> list[tuple[Any, Any]]:
    """What pairs the trials of two arms: the seed, and the data's seed where there is one."""
    data = [((config or {}).get("task") or {}).get("data_seed") for config in trials["config"]]
    return list(zip(trials["seed"], data, strict=True))


def paired_differences(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> list[float]:
    """Differences of the scores of two arms at the seeds that both have."""
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


def _best_of_tasks(found: pd.DataFrame) -> set[tuple[Any, ...]]:
    """The highest row of each sweep, phase, model and task, and those it is not better than.

    A row ties with the highest where the paired test over seeds, after Holm's correction, does
    not tell them apart; where no test is possible, only equal means tie. None where all are equal.
    """
    best: set[tuple[Any, ...]] = set()
    for _, mine in found.groupby(["sweep", "phase", "model", "task", "split"], sort=False):
        if mine["score"].nunique() > 1:
            top = mine.loc[mine["score"].idxmax()]
            pairs = [paired_differences(top["values"], values) for values in mine["values"]]
            p = adjust_holm([float(paired_mean(d).p) for d in pairs])
            is_tied = (p > ALPHA) | (mine["score"] == top["score"]).to_numpy(bool)
            best |= set(mine.loc[is_tied, [*ROW, "task"]].itertuples(index=False, name=None))
    return best


def _row_of(mine: pd.DataFrame, tasks: Sequence[str], best: set[tuple[Any, ...]]) -> dict[str, Any]:
    row: dict[str, Any] = {name: mine[name].iloc[0] for name in ROW}
    for record in mine.to_dict("records"):
        task = record["task"]
        row[task], row[f"{task}_sd"] = record["score"], record["score_sd"]
        row[f"{task}_seeds"] = record["seeds"]
        row[f"{task}_best"] = (*(record[name] for name in ROW), task) in best
    seeds = sorted({int(count) for count in mine["seeds"]})
    splits = {
        s: [t for t in tasks if t in set(mine.loc[mine["split"] == s, "task"])] for s in _SPLITS
    }
    used = [split for split in _SPLITS if splits[split]]
    row["seeds"] = "–".join(format_count(count) for count in dict.fromkeys([seeds[0], seeds[-1]]))
    row["split"] = (
        used[0] if len(used) == 1 else "; ".join(f"{s}: {', '.join(splits[s])}" for s in used)
    )
    row["missing"] = int(mine["missing"].sum())
    return {**row, "source": ""}


_SPLITS = ("test", "dev")


def _quote(study: Study, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Published rows for the very models of the study, and for the tasks that it has."""
    shots = {
        (cell["model"], cell["task"]): (cell["config"].get("task") or {}).get("shots")
        for cell in study.cells.to_dict("records")
    }
    records = []
    for quoted in QUOTED:
        scores = {
            task: figure
            for task, figure in quoted.scores.items()
            if task in tasks and shots.get((quoted.model, task), -1) == quoted.shots
        }
        if scores:
            row: dict[str, Any] = {
                "model": quoted.model,
                "arm": quoted.method,
                "tuning": quoted.tuning,
            }
            row |= {task: score for task, (score, _) in scores.items()}
            row |= {f"{task}_sd": spread for task, (_, spread) in scores.items()}
            source = f"quoted, unverified: {quoted.source}"
            records.append({**row, "seeds": "", "split": "test", "missing": 0, "source": source})
    return records


def _score_column(task: str) -> Column:
    return Column(
        task,
        task,
        _format_score,
        numeric=True,
        spread=f"{task}_sd",
        spread_form="{} ({})",
        bold=functools.partial(_is_best, task),
    )


def _is_best(task: str, row: Any) -> bool:
    return row.get(f"{task}_best") is True


def _format_score(value: Any) -> str:
    return MISSING if is_missing(value) else f"{float(value):.1f}"


def _note(frame: pd.DataFrame) -> str:
    note = (
        "Accuracy, or F1 where answers are generated. Dev loss chose the checkpoint of each trial "
        "and the cell of each arm; test chose nothing. In brackets the standard deviation over "
        "seeds. Bold are the highest mean of a column and those that a paired test over seeds does "
        "not tell from it (Holm, 5 %); without several seeds the highest alone."
    )
    if int(frame["missing"].sum()):
        note += (
            f" {int(frame['missing'].sum())} planned seeds of the shown cells have not finished or "
            "diverged, and are in no mean."
        )
    if (frame["source"] != "").any():
        note += (
            " Quoted rows are published figures of the same model, not verified here, from other "
            "code, other examples or other budgets."
        )
    return note
