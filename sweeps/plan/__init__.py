"""The plan: the explicit list of trials, each with its identity, in the order they start."""

from sweeps.plan.assembly import make_plan, price, summarise
from sweeps.plan.base import Plan
from sweeps.plan.confirm import confirm_choice, recall_choice
from sweeps.plan.folder import archive, check_same_study, recall_preparation
from sweeps.plan.generations import ask_generation
from sweeps.plan.parts import warn_of_parts
from sweeps.plan.trials import find_aliases

__all__ = [
    "Plan",
    "archive",
    "ask_generation",
    "check_same_study",
    "confirm_choice",
    "find_aliases",
    "make_plan",
    "price",
    "recall_choice",
    "recall_preparation",
    "summarise",
    "warn_of_parts",
]
