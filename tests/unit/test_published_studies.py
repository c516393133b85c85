"""The tables that a published study shows are those that its records give."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.halving import unpack

import analysis.report  # noqa: F401 (registers all exhibits)
from analysis.load import Study, load_study
from analysis.registry import TABLES
from analysis.writers import to_csv, to_markdown

STUDIES = Path(__file__).parents[2] / "analysis" / "studies"
NAMES = sorted(path.parent.name for path in STUDIES.glob("*/records.tar.xz"))
REBUILT = ("confirmed_comparison", "scores_by_task", "kernel_theory", "theory_explains")
"""Those that take seconds; `python -m analysis` rebuilds all."""


@pytest.fixture(scope="module", params=NAMES)
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Study]:
    """The folder of a study, and what its records say."""
    folder = STUDIES / request.param
    unpacked = tmp_path_factory.mktemp("study")
    unpack(folder / "records.tar.xz", unpacked)
    return folder, load_study([unpacked])


@pytest.mark.slow
@pytest.mark.parametrize("name", REBUILT)
def test_a_published_table_is_that_of_the_records(published: tuple[Path, Study], name: str) -> None:
    folder, study = published
    exhibit = TABLES[name]
    table = exhibit.build(study)
    assert table is not None
    assert to_csv(table) == (folder / "tables" / f"{name}.csv").read_text()
    assert to_markdown(table, exhibit.caption) == (folder / "tables" / f"{name}.md").read_text()


def test_published_studies_are_small() -> None:
    assert NAMES
    for name in NAMES:
        files = [path for path in (STUDIES / name).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 5_000_000
