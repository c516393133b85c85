from __future__ import annotations

import html.parser
import itertools
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from records_factory import LEARNING_RATE, SimulatedSweep, write_trial

from analysis import build_report
from analysis.__main__ import main
from analysis.decision import decide
from analysis.figures import MAX_LINES, MAX_PANELS, _spread, _tell_omitted, _thin_lines
from analysis.language import load_language
from analysis.load import load_study
from analysis.machine import _list_sweeps
from analysis.stages import plan_next
from analysis.summary import describe_stages
from analysis.watch import take_state

VOID = {"meta", "input", "br", "path", "use", "rect", "line", "circle"}


class Outline(html.parser.HTMLParser):
    """Checks that tags are closed in order, and collects ids and references."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._collect(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._collect(attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def _collect(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src", "xlink:href"):
                self.references.append(str(value))
            if name in ("style", "clip-path"):
                self.references += re.findall(r"url\((#[^)]*)\)", str(value))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small sweep in which one trial failed and one was stopped."""
    sweep = SimulatedSweep(
        epsilons=(0.01,),
        halving=2,
        fate=lambda v: "failed" if (v["arm"], v[LEARNING_RATE]) == ("mezo", 0.003) else None,
    )
    return build_report([sweep.write(tmp_path_factory.mktemp("results"))])


def test_only_the_plans_trials_are_counted_as_spent(tmp_path: Path) -> None:
    folder = SimulatedSweep().write(tmp_path)
    told = []
    for stray in (None, "of another plan"):
        if stray:
            row = {"trial_id": stray, "step": 0, "rung": 0, "dev_loss": 0.5, "forward_passes": 0}
            times = {"device_time_s": 1e6, "eval_time_s": 0.0}
            trial = {"trial_id": stray, "arm": "mezo", "status": "planned", "config": {}}
            write_trial(folder, trial, [row | times])
        study = load_study([folder])
        stages = plan_next(study, decide(study))
        shown = describe_stages(study, stages, "CPU", "mezo", load_language("en"))
        (entry,) = _list_sweeps(study)
        told.append((shown[0].spent, entry["trials"], take_state(folder).statuses))
    assert told[0] == told[1]
    assert told[0][1] == {"finished": 8}


def test_the_report_lies_in_the_results_folder(report: Path) -> None:
    assert report.parts[-3:] == ("simulated", "report", "report.html")


def test_the_report_is_one_file_that_refers_to_nothing_outside_it(report: Path) -> None:
    outline = Outline(report.read_text())
    assert len(outline.ids) == len(set(outline.ids))
    assert {reference.removeprefix("#") for reference in outline.references} <= set(outline.ids)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sweep",
    [
        SimulatedSweep(fate=lambda values: "running"),
        SimulatedSweep(fate=lambda values: "failed"),
        SimulatedSweep(fate=lambda values: "diverged", metric="dev_f1", is_binary=False),
        SimulatedSweep(arms=("mezo",), epsilons=(0.01,), learning_rates=(0.01,)),
        SimulatedSweep(seeds=(0, 1), halving=2, extra={"training.batch_size": (8, 16)}),
    ],
    ids=["running", "all failed", "all diverged", "a single cell", "seeds and a factor"],
)
def test_a_sweep_in_any_state_has_a_report(tmp_path: Path, sweep: SimulatedSweep) -> None:
    text = build_report([sweep.write(tmp_path)]).read_text()
    Outline(text)
    assert "left out, as these records" not in text


def test_failures_show_their_traceback_escaped(report: Path) -> None:
    text = report.read_text()
    assert "needed &lt;2&gt; GiB &amp; got 1" in text
    assert text.count("<details>") == 1


def test_every_figure_has_an_alternative_text(report: Path) -> None:
    text = report.read_text()
    named = re.findall(r'<svg[^>]* role="img" aria-label="[^"]{20,}"', text)
    assert len(named) >= 7
    assert text.count("<svg") == len(named) + text.count('aria-hidden="true">')


def test_tables_and_figures_are_files_too(report: Path) -> None:
    tables, figures = report.parent / "tables", report.parent / "figures"
    assert {path.suffix for path in tables.iterdir()} == {".csv", ".md", ".tex"}
    assert {path.suffix for path in figures.iterdir()} == {".png", ".pdf"}
    latex = (tables / "cells.tex").read_text()
    assert r"kerzoo\_paper" in latex
    assert not re.search(r"(?<!\\)[_%#]", latex)
    assert "0.54" in (tables / "best_at_final_rung.csv").read_text()


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    folder = SimulatedSweep(learning_rates=(0.01,)).write(tmp_path)
    first, second = (build_report([folder], tmp_path / name).parent for name in ("a", "b"))
    for path in sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file()):
        one, two = (
            re.sub(rb'<time.*?</time>|"generated".*', b"", (root / path).read_bytes())
            for root in (first, second)
        )
        assert one == two, path


@pytest.mark.slow
def test_several_folders_go_into_one_report(tmp_path: Path) -> None:
    folders = [SimulatedSweep(name=name).write(tmp_path) for name in ("one", "two")]
    path = build_report(folders)
    assert path == tmp_path / "one" / "report" / "with-two" / "report.html"
    assert "one and two" in path.read_text()


@pytest.mark.parametrize("name", ["missing", "."])
def test_folders_that_cannot_be_read_exit_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main([str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_the_command_prints_where_the_report_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = SimulatedSweep(
        arms=("mezo",), fate=lambda v: "failed" if v[LEARNING_RATE] == 0.01 else None
    ).write(tmp_path)
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "out" / "report.html"


@pytest.mark.slow
def test_another_baseline_can_be_named_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = SimulatedSweep(epsilons=(0.01,)).write(tmp_path)
    assert main([str(folder), "--baseline", "kerzoo_paper"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == folder / "report" / "against-kerzoo_paper" / "report.html"
    assert "kerzoo_paper, chosen for this report; the plan names mezo" in path.read_text()
    (sweep,) = json.loads(path.with_name("report.json").read_text())["sweeps"]
    assert (sweep["baseline"], sweep["planned_baseline"]) == ("kerzoo_paper", "mezo")
    effects = (path.parent / "tables" / "effects.csv").read_text().splitlines()
    assert {line.split(",")[1] for line in effects[1:]} == {"mezo"}


def test_a_baseline_that_is_no_arm_is_refused_with_the_arms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = SimulatedSweep().write(tmp_path)
    assert main([str(folder), "--baseline", "mezzo"]) == 2
    told = capsys.readouterr().err
    assert "baseline must be one of the arms mezo, kerzoo_paper; got 'mezzo'" in told
    assert not (folder / "report").exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    assert "exit codes" in told
    assert "--baseline ARM" in told


def test_labels_are_spread_without_overlap_and_in_order() -> None:
    spread = _spread([0.98, 0.99, 0.1, 1.0], 0.1)
    assert max(spread) == 1.0
    assert sorted(range(4), key=spread.__getitem__) == [2, 0, 1, 3]
    ordered = sorted(spread)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(ordered))


def test_of_many_lines_evenly_spaced_ones_and_the_leader_are_drawn() -> None:
    rows = pd.DataFrame({"trial_id": [str(i) for i in range(400)] * 2})
    shown = set(_thin_lines(rows, "57")["trial_id"])
    assert len(shown) == MAX_LINES + 1
    assert {"0", "57", "399"} <= shown
    few = rows[rows["trial_id"].astype(int) < MAX_LINES]
    assert _thin_lines(few, "5") is few


def test_panels_that_are_left_out_are_counted() -> None:
    assert _tell_omitted(MAX_PANELS) == ""
    assert f"{MAX_PANELS} of 33 panels" in _tell_omitted(33)
