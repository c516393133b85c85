"""The plan before anything runs, and the results after, as people read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kerzoo.failures import group_alike
from kerzoo.models.placement import num_gpus_of
from kerzoo.options import TrialOptions
from kerzoo.records import Row, score_of
from sweeps.cost import estimate_trial, kind_of, wall_time_s
from sweeps.plan import Plan, warn_of_parts
from sweeps.progress import format_duration, label_cell
from sweeps.resources import count_slots_here
from sweeps.reuse import describe_reusable

CELLS_SHOWN = 40
RESULTS_SHOWN = 20
VALUES_SHOWN = 12


def print_plan(plan: Plan, console: Console) -> None:
    """Arms, cells, trials, forward passes, memory, device hours, smallest detectable effect."""
    content = plan.content
    console.print(f"[bold]{plan.sweep.name}[/bold]  {plan.sweep.description}", soft_wrap=True)
    console.print(_arms(plan))
    for warning in warn_of_parts(plan):
        console.print(warning, soft_wrap=True, markup=False)
    for factor in content["factors"]:
        values = dict.fromkeys(c["values"].get(factor) for c in content["cells"])
        listed = _list_values([v for v in values if v is not None])
        console.print(f"  {factor}: {listed}", soft_wrap=True)
    if plan.sweep.plan_only and len(content["cells"]) <= CELLS_SHOWN:
        console.print(_cells(plan))
    for group in content["aliases"]:
        names = " = ".join(group)
        console.print(f"  the same up to the learning rate: {names}", soft_wrap=True)
    about = [*_describe_search(plan), *_describe_cost(plan), *_describe_confirmation(content)]
    about += [*describe_reusable(plan), ""]
    for line in about:
        console.print(line, soft_wrap=True)


def _describe_search(plan: Plan) -> list[str]:
    """How far the points of a search that learns are known, where there is one."""
    search = plan.content.get("search")
    if search is None:
        return []
    known = len(plan.content["generations"])
    total = known + sum(entry["trials"] for entry in search["unknown"])
    points, arms = plan.sweep.search.num_samples, "each arm and listed combination"
    lines = [f"search: {search['name']}, for {search['purpose']}; {points} points for {arms}"]
    if known < total:
        lines.append(
            f"  the points of {known} trials of at most {total} are known; each later generation "
            "is asked for when all trials of the one before have ended"
        )
    return lines


def _describe_cost(plan: Plan) -> list[str]:
    """What the plan takes; of a plan of both phases the screen."""
    content, cost = plan.content, plan.content["cost"]
    device_s = cost["device_hours"] * 3600
    expected_s = cost["device_hours_expected"] * 3600
    unit = "GPU time" if cost["device"] == "cuda" else "time of one CPU slot"
    slots = count_slots_here(plan.sweep.cluster, plan.options)
    wall = (
        ""
        if slots is None
        else (
            f", {format_duration(wall_time_s(cost, slots))} by the clock on the {slots} "
            f"slot{'' if slots == 1 else 's'} of this machine"
        )
    )
    cells, phase = len(content["cells"]), ""
    if "confirm" in content:
        screened = {spec.trial_id for spec in plan.specs if spec.phase == "screen"}
        cells = sum(cell["trial_id"] in screened for cell in content["cells"])
        phase = "screen: "
    lines = [
        f"{phase}{cells} cells, {cost['trials']} trials, at most "
        f"{cost['forward_passes_per_trial']:,} forward passes each, evaluated at "
        f"{', '.join(map(str, content['rungs']))}",
        f"{cost['forward_passes']:,} forward passes in all, about "
        f"{cost['forward_passes_expected']:,} with {plan.sweep.scheduler.name}",
        f"at most about {cost['memory_gib_per_trial']:.1f} GiB a trial, device {cost['device']}"
        + _describe_spread(cost),
        f"about {format_duration(device_s)} of {unit} in all, {format_duration(expected_s)} with "
        f"{plan.sweep.scheduler.name}{wall} ({cost['assumption']})",
    ]
    return lines if phase else [*lines, _describe_power(cost)]


def _describe_spread(cost: Mapping[str, Any]) -> str:
    """What each of several GPUs holds; nothing where there are none or one."""
    number = cost["gpus_per_trial"]
    if number < 2:
        return ""
    return f", {cost['memory_gib_per_gpu']:.1f} GiB on each of its {number} GPUs"


def _describe_confirmation(content: Mapping[str, Any]) -> list[str]:
    """What the second phase takes and can see, where there is one."""
    section = content.get("confirm")
    if not section or "cost" not in section:
        return []
    cost, seeds = section["cost"], section["seeds"]
    chosen = [f"  {c['arm']} ({c['stratum']}): {label_cell(c['cell'])}" for c in section["chosen"]]
    which = "the cells chosen by dev" if chosen else "each arm's best cell by dev"
    return [
        f"confirm: {which}, seeds {', '.join(map(str, seeds))}: {cost['trials']} trials, at most "
        f"{cost['forward_passes']:,} forward passes, no early stopping, about "
        f"{format_duration(cost['device_hours'] * 3600)}; test read once",
        *chosen,
        _describe_power(cost),
    ]


def _describe_power(cost: Mapping[str, Any]) -> str:
    effect = cost["smallest_detectable_effect"]
    seen = "none" if effect is None else f"{effect:.1f}"
    return f"smallest detectable effect: {seen} ({cost['smallest_detectable_effect_note']})"


def print_results(plan: Plan, console: Console) -> None:
    """The trials, the furthest first and the best of them on top; then what failed and why.

    A factor of which they all have one value has no column.
    """
    trials = {s.trial_id: plan.trial_folder(s.trial_id) for s in plan.specs}
    rows = {trial: folder.rows() for trial, folder in trials.items()}
    cells = {c["trial_id"]: c["values"] for c in reversed(plan.content["cells"])}
    ordered = sorted(trials, key=lambda trial: _rank(rows[trial]))
    told = {
        factor: [str(cells[trial].get(factor, "")) for trial in ordered]
        for factor in plan.content["factors"]
    }
    told = {factor: values for factor, values in told.items() if len(set(values)) > 1}
    table = Table(box=None, pad_edge=True, header_style="bold")
    for factor in told:
        table.add_column(factor.rpartition(".")[2])
    for column in ("passes", "dev loss", "change", "score", "change"):
        table.add_column(column, justify="right")
    table.add_column("status")
    for place, trial in enumerate(ordered[:RESULTS_SHOWN]):
        values = [column[place] for column in told.values()]
        table.add_row(*values, *_figures(rows[trial]), trials[trial].status)
    console.print(table)
    if len(ordered) > RESULTS_SHOWN:
        console.print(f" and {len(ordered) - RESULTS_SHOWN} more, in the report")
    contents = {trial: folder.read() for trial, folder in trials.items()}
    failures = {t: c["failure"] for t, c in contents.items() if c.get("failure")}
    for line in describe_failures(failures, plan.folder):
        console.print(line, soft_wrap=True, markup=False)


def describe_failures(failures: Mapping[str, Mapping[str, Any]], folder: Path) -> list[str]:
    """A line for all failures that are alike: how many, why, where, and one of the tracebacks."""
    lines = []
    for trials in group_alike(failures):
        failure = failures[trials[0]]
        who = trials[0] if len(trials) == 1 else f"{len(trials)} trials alike"
        where = f" at {failure['where']}" if failure.get("where") else ""
        lines.append(
            f"failed ({failure.get('cause', 'code')}): {who}: {failure['kind']}: "
            f"{failure['message']}{where} (traceback in "
            f"{folder / 'trials' / trials[0] / 'trial.json'})"
        )
    return lines


def _list_values(values: list[Any]) -> str:
    if len(values) <= VALUES_SHOWN or not all(isinstance(v, int | float) for v in values):
        return ", ".join(map(str, values))
    return f"{len(values)} values from {min(values):g} to {max(values):g}"


def _rank(rows: list[Row]) -> tuple[int, float]:
    if not rows or rows[-1]["dev_loss"] is None:
        return (0, float("inf"))
    return (-rows[-1]["forward_passes"], rows[-1]["dev_loss"])


def _figures(rows: list[Row]) -> list[str]:
    if not rows or rows[-1]["dev_loss"] is None:
        return [str(rows[-1]["forward_passes"]) if rows else "0", "–", "–", "–", "–"]
    first, last = rows[0], rows[-1]
    before, after = (score_of(row)[1] or 0.0 for row in (first, last))
    return [
        str(last["forward_passes"]),
        f"{last['dev_loss']:.4f}",
        f"{last['dev_loss'] - first['dev_loss']:+.4f}",
        f"{after:.3f}",
        f"{after - before:+.3f}",
    ]


def _arms(plan: Plan) -> Table:
    """What each arm moves under each tuning, and what that takes."""
    table = Table(box=None, pad_edge=True, header_style="bold")
    left = ("arm", "tuning", "kernel")
    columns = ("trainable", "kernel", "order", "passes a step", "GiB a trial", "time in all")
    for column in ("arm", "trials", "tuning", *columns):
        table.add_column(column, justify="left" if column in left else "right")
    rows: dict[tuple[str, str], list[TrialOptions]] = defaultdict(list)
    kernels: dict[tuple[str, str], set[tuple[int, str]]] = defaultdict(set)
    for spec, options in zip(plan.specs, plan.options, strict=True):
        key = (spec.arm, spec.choices["tuning"])
        rows[key].append(options)
        if options.uses("kernel"):
            kernels[key].add((options.kernel.order, spec.choices["kernel"]))
    forward_pass_s = plan.content["preparation"].get("forward_pass_s")
    for (arm, tuning), members in sorted(rows.items()):
        first = members[0]
        trainable = first.method.tuning(first).count_parameters(first.model.sizes)
        kinds = [kind_of(options) for options in members]
        examples = dict(zip(kinds, members, strict=True))
        num_gpus = num_gpus_of(plan.sweep.cluster.gpus_per_trial)
        each = {k: estimate_trial(o, forward_pass_s, num_gpus) for k, o in examples.items()}
        costs = [each[kind] for kind in kinds]
        table.add_row(
            arm,
            str(len(members)),
            tuning,
            f"{trainable:,}",
            _list_few([name for _, name in sorted(kernels[arm, tuning])]),
            _list_few([str(order) for order, _ in sorted(kernels[arm, tuning])]),
            _range([options.forward_passes_per_step for options in members]),
            f"{max(cost.memory_gib for cost in costs):.1f}",
            format_duration(sum(cost.device_s for cost in costs)),
        )
    return table


def _list_few(values: list[str]) -> str:
    distinct = list(dict.fromkeys(values))
    return (", ".join(distinct) or "–") if len(distinct) < 4 else f"{len(distinct)} values"


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}–{high}"


def _cells(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=True, header_style="bold")
    table.add_column("trial")
    for factor in plan.content["factors"]:
        table.add_column(factor.rpartition(".")[2])
    for cell in plan.content["cells"]:
        values = [str(cell["values"].get(factor, "")) for factor in plan.content["factors"]]
        table.add_row(cell["trial_id"], *values)
    return table
