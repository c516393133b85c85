"""`python -m analysis results/NAME [results/OTHER ...]`: write the report; compare; watch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis import build_report
from analysis.sources import ResultsError

SOURCES = """\
A source is a results folder of a sweep, a folder of offline W&B runs (run-*.wandb), a folder of
Ray Tune trials (result.json or progress.csv), or wandb:ENTITY/PROJECT[/GROUP] for runs on W&B's
server. Records are only read: a report can be written while a sweep runs, and as often as you
like. Neither torch nor ray is needed.
"""

HELP = f"""\
  python -m analysis results/NAME [results/OTHER ...]   write the report of one or more sweeps
  python -m analysis compare A B                        two sweeps: what differs, and the outcomes
  python -m analysis watch results/NAME                 rebuild the report while a sweep runs

The report lies in results/NAME/report/ (with --baseline in report/against-ARM/ there):

  report.html     one file: opens offline, prints, fits a phone
  report.json     its conclusions for programs (keys: analysis/machine.py)
  tables/         every table as .csv, .md and .tex
  figures/        every figure as .png and .pdf

{SOURCES}
examples:
  python -m analysis results/quickstart
  python -m analysis results/quickstart --language ja
  python -m analysis results/quickstart --baseline legendre2
  python -m analysis results/opt results/roberta --out report_of_both
  python -m analysis wandb:team/kerzoo/quickstart

exit codes: 0 written; 2 a source cannot be read, or there are no records yet; 130 interrupted
"""

COMPARE_HELP = """\
Says which settings of the two plans differ, how many trials coincide (arm, ε, learning rate, other
factors and seed), and what the paired differences are, B less A. Prints Markdown, and writes it
with each table as .csv, .md and .tex to A/report/compared-with-B/.
For one HTML report of both: python -m analysis A B
"""

WATCH_HELP = """\
Looks at the records every so often, rebuilds the report when there is something new, prints what
changed, and ends when the sweep does. Reload the page in the browser to see it.
"""


def parse_report(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of a report, parsed."""
    parser = _parser("python -m analysis", "Tables, figures and one HTML report.", HELP)
    parser.add_argument("sources", nargs="+", type=Path, metavar="results/NAME", help="sources")
    _add_report_options(parser)
    return parser.parse_args(arguments)


def _parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_output(parser: argparse.ArgumentParser, default: str) -> None:
    words = f"write here (default: {default})"
    parser.add_argument("--out", type=Path, metavar="DIR", help=words)


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    _add_output(parser, "results/NAME/report")
    words = "of the first page, headings and controls (default: the plan's report.language)"
    parser.add_argument("--language", choices=("en", "ja"), help=words)
    words = "the arm that the others are compared with (default: the one that the plan names)"
    parser.add_argument("--baseline", metavar="ARM", help=words)


def run_report(arguments: Sequence[str]) -> None:
    """Write the report and print where it lies."""
    options = parse_report(arguments)

    def tell(warning: str) -> None:
        print(f"warning: {warning}", file=sys.stderr)

    print(build_report(options.sources, options.out, options.language, options.baseline, tell))


def run_compare(arguments: Sequence[str]) -> None:
    """Compare two sweeps and print what was found."""
    parser = _parser("python -m analysis compare", "Two sweeps side by side.", COMPARE_HELP)
    parser.add_argument("first", type=Path, metavar="A", help="a source")
    parser.add_argument("second", type=Path, metavar="B", help="another")
    _add_output(parser, "A/report/compared-with-B")
    options = parser.parse_args(arguments)
    from analysis.compare import write_comparison  # pandas and matplotlib load only when needed

    found, path = write_comparison(options.first, options.second, options.out)
    print(found.to_text())
    print(path)


def run_watch(arguments: Sequence[str]) -> None:
    """Rebuild the report until the sweep ends."""
    parser = _parser("python -m analysis watch", "The report of a running sweep.", WATCH_HELP)
    parser.add_argument("folder", type=Path, metavar="results/NAME", help="a results folder")
    words = "seconds between two looks (default: 30)"
    parser.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help=words)
    _add_report_options(parser)
    options = parser.parse_args(arguments)
    if not options.every > 0:
        parser.error(f"--every must be > 0, got {options.every:g}")
    from analysis.watch import watch  # pandas and matplotlib load only when needed

    def tell(message: str) -> None:
        print(message, flush=True)

    watch(options.folder, options.every, tell, options.out, options.language, options.baseline)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "compare": run_compare,
    "watch": run_watch,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a report where none is named.

    Args:
        arguments: The command line; by default the process's own.

    Returns:
        The exit code: 0 when written, 2 when a source cannot be read, 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and words[0] in COMMANDS:
            COMMANDS[words[0]](words[1:])
        else:
            run_report(words)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
