"""`python -m analysis results/NAME [results/OTHER ...]`: write the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import build_report
from analysis.sources import ResultsError

HELP = """\
Reads the records of one or more sweeps and writes

  results/NAME/report/report.html     one file: opens offline, prints, fits a phone
  results/NAME/report/tables/         every table as .csv, .md and .tex
  results/NAME/report/figures/        every figure as .png and .pdf

The records are only read: the report can be written while a sweep is still running, and as often
as you like. Neither torch nor ray is needed.

examples:
  python -m analysis results/quickstart
  python -m analysis results/opt results/roberta --out report_of_both

exit codes: 0 written; 2 a folder or its plan.json is missing, or there are no records yet
"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, parsed."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Tables, figures and one HTML report from a sweep's records.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="results/NAME", help="results folders of sweeps"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write here (default: results/NAME/report)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report and print where it lies.

    Args:
        arguments: The command line; by default the process's own.

    Returns:
        The exit code: 0 when written, 2 when the folders cannot be read.
    """
    options = parse_arguments(arguments)
    try:
        path = build_report(options.folders, options.out)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
