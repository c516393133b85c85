"""Records that nobody expects give a report or a clear message, never a traceback."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from records_factory import SimulatedSweep

from analysis import build_report, registry, report
from analysis.__main__ import main
from analysis.report import default_folder
from analysis.writers import escape_latex, escape_markdown

NASTY = "<b>&\"'`$x_%\\ü|\n{}^~#</script><script>alert(1)</script>日本"


def small(**options: Any) -> SimulatedSweep:
    return SimulatedSweep(**{"epsilons": (0.01,), "halving": 2, **options})


def records_of(folder: Path) -> list[Path]:
    return sorted((folder / "trials").glob("*/records.jsonl"))


def rewrite_rows(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rename_arm(folder: Path, name: str) -> None:
    old, new = json.dumps("kerzoo_paper")[1:-1], json.dumps(name)[1:-1]
    for path in [folder / "plan.json", *folder.glob("trials/*/*")]:
        path.write_text(path.read_text().replace(f'"{old}"', f'"{new}"'))


def keep_only_step_0(folder: Path) -> None:
    for path in records_of(folder):
        path.write_text(path.read_text().splitlines()[0] + "\n")


def make_foreign(folder: Path) -> None:
    for path in records_of(folder):
        path.write_text('{"step": 0, "hello": [1]}\n{"step": 4, "dev_loss": "low", "rung": {}}\n')


def put_strange_values_into_the_plan(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    strange = {"cost": [1], "config": "x", "choices": 3, "rungs": "abc", "versions": [], "name": 7}
    strange |= {"baseline": 5, "overrides": "x", "command": None, "plan_seed": {}}
    (folder / "plan.json").write_text(json.dumps(plan | strange))


def damage_each_trial_in_its_own_way(folder: Path) -> None:
    torn, binary, foreign, words, nothing, huge, undescribed, gone = records_of(folder)
    torn.write_bytes(torn.read_bytes()[:-30])
    binary.write_bytes(b"\xff\xfe\x00\n" + binary.read_bytes())
    foreign.write_text('{"step": 0}\n[1]\n{"step": "one"}\n{"step": 4, "rung": {}, "seed": []}\n')
    rewrite_rows(words, lambda row: {k: v if k == "step" else str(v) for k, v in row.items()})
    rewrite_rows(nothing, lambda row: {k: v if k == "step" else None for k, v in row.items()})
    rewrite_rows(huge, lambda row: row | {"dev_loss": 1e308, "device_time_s": 1e300})
    undescribed.with_name("trial.json").write_text("[1, 2")
    gone.unlink()
    gone.mkdir()


READABLE = [
    keep_only_step_0,
    make_foreign,
    put_strange_values_into_the_plan,
    damage_each_trial_in_its_own_way,
]


@pytest.mark.slow
@pytest.mark.parametrize("change", READABLE, ids=lambda change: change.__name__)
def test_odd_records_have_a_report(
    tmp_path: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small(learning_rates=(0.001, 0.003, 0.01, 0.03)).write(tmp_path)
    change(folder)
    assert main([str(folder)]) == 0, capsys.readouterr().err
    assert "left out, as these records" not in (folder / "report" / "report.html").read_text()


@pytest.mark.parametrize("rest", ["plan alone", "empty records"])
def test_a_folder_without_a_row_is_told_apart_from_a_broken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rest: str
) -> None:
    folder = small().write(tmp_path)
    if rest == "plan alone":
        shutil.rmtree(folder / "trials")
    for path in records_of(folder):
        path.write_text("")
    assert main([str(folder)]) == 2
    assert "no records yet" in capsys.readouterr().err


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's folder of a sweep in which an arm has every character that means something."""
    folder = small().write(tmp_path_factory.mktemp("results"))
    rename_arm(folder, NASTY)
    return build_report([folder]).parent


@pytest.mark.slow
def test_names_are_text_and_never_markup(nasty: Path) -> None:
    page = (nasty / "report.html").read_text()
    assert "<b>&" not in page
    assert "<script>alert" not in page
    assert len(re.findall("</script>", page)) == len(re.findall("<script", page))
    for path in (nasty / "tables").glob("*.md"):
        assert "<b>" not in path.read_text(), path
    for path in (nasty / "tables").glob("*.tex"):
        assert not re.search(r"(?<!\\)[_%#&]\w", path.read_text()), path
    table = (nasty / "tables" / "trials.csv").read_text()
    assert NASTY.replace('"', '""') in table
    found = json.loads((nasty / "report.json").read_text())
    assert NASTY in {s["arm"] for d in found["decisions"] for s in d["standings"]}


def test_markdown_and_latex_find_no_command_in_a_name() -> None:
    assert escape_markdown("a|b_*<i>&`\n") == "a\\|b\\_\\*&lt;i&gt;&amp;\\` "
    assert escape_latex("50 % of_{x}\n") == r"50 \% of\_\{x\} "


@pytest.mark.slow
def test_an_exhibit_that_fails_is_named_and_the_others_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(study: object) -> None:
        raise KeyError("surprise")

    broken = registry.Exhibit("broken", "best", "A table of surprises", fail)
    monkeypatch.setattr(report, "TABLES", {"broken": broken, **registry.TABLES})
    monkeypatch.setattr(report, "FIGURES", {})
    page = build_report([small().write(tmp_path)]).read_text()
    assert "A table of surprises: left out" in page
    assert 'id="table-best_at_final_rung"' in page


def test_a_wandb_project_has_a_place_of_its_own_for_its_report(tmp_path: Path) -> None:
    assert default_folder([Path("wandb:team/kerzoo/opt 2")]) == Path(
        "results/wandb-team-kerzoo-opt-2/report"
    )
    assert default_folder([tmp_path, Path("wandb:team/kerzoo")]) == (
        tmp_path / "report" / "with-wandb-team-kerzoo"
    )


BLOCKED = """
import pathlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "ray", "transformers", "hydra", "wandb", "sweeps"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import analysis
assert "matplotlib" not in sys.modules and "pandas" not in sys.modules
print(analysis.build_report([pathlib.Path(sys.argv[1])]))
assert "matplotlib.pyplot" not in sys.modules
"""


@pytest.mark.slow
def test_a_report_is_built_where_torch_and_ray_cannot_be_imported(
    tmp_path: Path, project_root: Path
) -> None:
    folder = SimulatedSweep(arms=("mezo",), learning_rates=(0.01,)).write(tmp_path)
    command = [sys.executable, "-c", BLOCKED, str(folder)]
    subprocess.run(command, cwd=project_root, check=True)


def test_what_a_report_is_installed_with_brings_neither_torch_nor_ray(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def names_of(requirements: list[str]) -> set[str]:
        names: set[str] = set()
        for requirement in requirements:
            name, _, chosen = re.split(r"[<>=; ]", requirement)[0].partition("[")
            if name == "kerzoo":
                names |= set().union(*(names_of(extras[e]) for e in chosen[:-1].split(",")))
            names.add(name)
        return names

    core = project["dependencies"]
    heavy = {"accelerate", "torch", "transformers", "peft", "ray"}  # these need torch, or are ray
    assert not heavy & names_of(core + extras["analysis"])
    assert heavy <= names_of(core + extras["run"])
    assert names_of(extras["run"] + extras["analysis"]) < names_of(extras["dev"])
