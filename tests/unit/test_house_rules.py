"""The rules that no linter holds: sizes, what an import brings along, commands that exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("kerzoo", "sweeps", "analysis")
SOURCES = sorted(
    [
        ROOT / "sweep.py",
        *(path for room in (*PACKAGES, "tests") for path in (ROOT / room).rglob("*.py")),
    ]
)
MAX_FILE_LINES = 399
MAX_FUNCTION_LINES = 59

each_source = pytest.mark.parametrize(
    "source", SOURCES, ids=[path.relative_to(ROOT).as_posix() for path in SOURCES]
)


def long_functions(source: str) -> Iterator[str]:
    """Names and lengths of functions, docstrings included, above the limit."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines"


def make_targets(makefile: str) -> set[str]:
    """The targets of a Makefile that are commands rather than files."""
    return set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}; import sys; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@each_source
def test_a_file_stays_under_400_lines(source: Path) -> None:
    num_lines = len(source.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_FILE_LINES


@each_source
def test_functions_stay_under_60_lines(source: Path) -> None:
    assert list(long_functions(source.read_text(encoding="utf-8"))) == []


def test_a_function_of_60_lines_is_found() -> None:
    body = "\n".join("    pass" for _ in range(MAX_FUNCTION_LINES))
    assert list(long_functions(f"def f():\n{body}\n")) == ["f has 60 lines"]


@pytest.mark.parametrize("module", ["kerzoo", "kerzoo.records"])
def test_names_and_records_import_no_torch(module: str) -> None:
    assert not {"torch", "transformers", "peft"} & modules_after(f"import {module}")


def test_the_analysis_imports_neither_torch_nor_ray() -> None:
    forbidden = {"torch", "ray", "transformers", "hydra", "omegaconf", "wandb", "sweeps"}
    assert not forbidden & modules_after("import analysis, analysis.report, analysis.__main__")


@pytest.mark.slow
def test_the_method_imports_neither_ray_nor_hydra() -> None:
    forbidden = {"ray", "hydra", "omegaconf", "wandb", "matplotlib", "sweeps", "analysis"}
    assert not forbidden & modules_after("import kerzoo.build, kerzoo.training")


@pytest.mark.slow
def test_one_trial_imports_no_ray() -> None:
    assert "ray" not in modules_after("import sweeps.trial")


def test_make_shows_help_by_default_and_every_target_in_it() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert {"quickstart", "test", "check"} <= targets
    assert targets == set(re.findall(r"^  ([a-z]+) ", shown, flags=re.MULTILINE))


def test_the_readme_names_only_targets_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", readme, flags=re.MULTILINE))
    assert "quickstart" in named
    assert named <= make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
