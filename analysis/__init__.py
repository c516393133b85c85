"""The reading: records in; tables, figures and one HTML file out.

Nothing here imports torch or ray: a results folder can be read on a machine that has neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["build_report"]


def build_report(
    folders: Sequence[Path],
    out: Path | None = None,
    language: str | None = None,
    baseline: str | None = None,
    tell: Callable[[str], None] = lambda warning: None,
) -> Path:
    """Write the report of one or more results folders.

    Args:
        folders: Results folders, each with a plan.json and a folder of trials.
        out: Where report.html, tables/ and figures/ go. By default the folder's own `report/`;
            with several folders `report/with-OTHER` of the first; for a W&B project
            `results/wandb-ENTITY-PROJECT/report`; with a baseline `against-ARM` in that folder.
        language: "en" or "ja"; by default the first plan's `report.language`, else English.
        baseline: The arm that the others are compared with; by default the one that the plans name.
        tell: Called with each warning about the files, which the report shows as well.

    Returns:
        The path of report.html.

    Raises:
        ResultsError: If a folder or its plan is missing or unreadable, no trial left anything, or
            there is no arm of the baseline's name.
        ValueError: If there is no such language.
    """
    from analysis.report import write_report  # pandas and matplotlib load only when needed

    return write_report(folders, out, language, baseline, tell)
