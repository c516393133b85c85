"""The parts of a sweep, one after the other: generations of a screen, and its confirmation."""

from __future__ import annotations

from rich.console import Console

from kerzoo.records import ENDED
from sweeps.mirror import fetch_missing
from sweeps.plan import Plan, ask_generation, confirm_choice
from sweeps.reuse import take_over
from sweeps.runner import STOP_FILE, run_plan
from sweeps.stopping import StopFile, stop_file

INTERRUPTED = 130
"""The exit code of a sweep that was stopped before its end."""


def run_phases(plan: Plan, console: Console) -> int:
    """Run what is left of a plan; returns the exit code.

    With `phase=both` the screen runs under the sweep's scheduler. Once all of its trials have
    ended, whatever ended them, each arm's best cell is chosen and confirmed to the end of its
    budget. Any other plan has one phase. A search that learns runs the screen, or the only phase,
    in generations, each of which is asked for when the last has ended. A stop that is requested
    while a part ends begins no other.
    """
    with stop_file(plan.folder / STOP_FILE) as stop:
        return _run_parts(plan, console, stop)


def _run_parts(plan: Plan, console: Console, stop: StopFile) -> int:
    code = _run_generations(plan, console, stop)
    if plan.sweep.phase != "both" or not _has_ended(_first_phase(plan)):
        return code
    confirm = confirm_choice(plan)
    section = plan.content["confirm"]
    for arm in section["passed_over"]:
        console.print(
            f"[yellow]warning: {arm['arm']} ({arm['stratum']}) is not confirmed: all of its "
            f"{arm['cells']} cells diverged or failed.[/yellow]",
            soft_wrap=True,
        )
    console.print(
        f"[bold]Confirm[/bold]: {len(confirm.specs)} trials; the best cell by dev of "
        f"{len(section['chosen'])} arms, with seeds {', '.join(map(str, section['seeds']))}.",
        soft_wrap=True,
    )
    take_over(confirm)
    confirm.create_trials()
    if not confirm.specs:
        return code
    return max(code, INTERRUPTED if stop.exists else run_plan(confirm, console))


def _run_generations(plan: Plan, console: Console, stop: StopFile) -> int:
    code = 0
    while True:
        part = _first_phase(plan)
        if part.specs:
            if part.whole:
                console.print(f"[bold]Screen[/bold]: {len(part.specs)} trials.")
            code = max(code, run_plan(part, console))
        if not _has_ended(part):
            return code
        num_trials = len(plan.specs)
        further = ask_generation(plan, lambda message: _warn(console, message))
        if further is None:
            return code
        number = max(plan.content["generations"].values())
        console.print(
            f"[bold]Generation {number}[/bold]: {len(plan.specs) - num_trials} more trials."
        )
        fetch_missing(further)
        take_over(further)
        plan.create_trials()
        if stop.exists:
            return INTERRUPTED


def _first_phase(plan: Plan) -> Plan:
    return plan.part("screen") if plan.sweep.phase == "both" else plan


def _has_ended(plan: Plan) -> bool:
    return all(plan.trial_folder(spec.trial_id).status in ENDED for spec in plan.specs)


def _warn(console: Console, message: str) -> None:
    console.print(f"[yellow]warning: {message}[/yellow]", soft_wrap=True)
