"""A screen, and then the confirmation of what it chose, as one sweep."""

from __future__ import annotations

from rich.console import Console

from kerzoo.records import ENDED
from sweeps.plan import Plan, confirm_choice
from sweeps.reuse import take_over
from sweeps.runner import run_plan


def run_phases(plan: Plan, console: Console) -> int:
    """Run what is left of a plan; returns the exit code.

    With `phase=both` the screen runs under the sweep's scheduler. Once all of its trials have
    ended, whatever ended them, each arm's best cell is chosen and confirmed to the end of its
    budget. Any other plan has one phase.
    """
    if plan.sweep.phase != "both":
        return run_plan(plan, console)
    screen, code = plan.part("screen"), 0
    if screen.specs:
        console.print(f"[bold]Screen[/bold]: {len(screen.specs)} trials.")
        code = run_plan(screen, console)
    if any(plan.trial_folder(spec.trial_id).status not in ENDED for spec in screen.specs):
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
    return max(code, run_plan(confirm, console)) if confirm.specs else code
