"""What the README shows is what happens."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_trials import trial_config

from kerzoo.kernels import format_table
from kerzoo.models import LoadedModel
from kerzoo.options import TrialOptions
from sweeps.compose import format_override
from sweeps.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as an ordinary Hugging Face folder."""
    loaded: LoadedModel = TrialOptions.from_config(trial_config("no/data")).model.load("cpu")
    path = tmp_path_factory.mktemp("model")
    loaded.model.save_pretrained(str(path))
    loaded.tokenizer.save_pretrained(str(path))
    return path


def test_the_example_of_ones_own_loop_runs_and_is_short(folder: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    example = example.replace('"facebook/opt-125m", 1000', f'"{folder}", 3')
    names: dict[str, object] = {}
    exec(example, names)
    assert names["optimizer"].last_step == 3  # type: ignore[attr-defined]
    assert isinstance(names["loss"], float)


def test_the_excerpt_of_the_kernels_is_what_the_command_prints() -> None:
    excerpt = next(block for block in README.split("```") if "constant (MeZO)" in block)
    printed = {tuple(line.split()) for line in format_table().splitlines()}
    assert {tuple(line.split()) for line in excerpt.strip().splitlines()} <= printed


def shown_yaml(word: str) -> str:
    """The YAML file in the README that has a word in it."""
    (shown,) = [b for b in re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL) if word in b]
    return str(shown)


def test_the_sweep_of_ones_own_becomes_a_plan() -> None:
    shown: dict[str, Any] = yaml.safe_load(shown_yaml("@package"))
    changes = [format_override(key, shown[key]) for key in ("space", "seeds", "exclude")]
    search = ["search=sobol", f"search.num_samples={shown['search']['num_samples']}"]
    plan = make_plan(["model=opt-tiny", *search, *changes], "")
    assert len(plan.content["cells"]) < 3 * 16 * 3  # some are left out
    assert plan.content["factors"] == [*shown["space"], "training.seed"]
    assert {spec.choices["tuning"] for spec in plan.specs} == {"lora", "full_last6"}


def test_every_arm_is_in_the_table_of_arms() -> None:
    arms = {path.name.removesuffix(".yaml") for path in Path("conf/arm").glob("*.yaml")}
    table = README[README.index("| `arm=`") : README.index("The last four are controls")]
    assert arms <= set(re.findall(r"`(\w+)`", table))


def write_tickets(folder: Path) -> None:
    """300 rows to train on and 100 to test on, as the README says."""
    folder.mkdir(parents=True)
    bodies = {"billing": "The invoice is wrong", "technical": "The program crashes"}
    rows = [(f"Ticket {i}", body, label) for i in range(200) for label, body in bodies.items()]
    for name, chosen in (("train.csv", rows[:300]), ("val.csv", rows[300:])):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("subject", "body", "label"), *chosen])


@pytest.mark.slow
def test_a_task_of_ones_own_is_the_file_that_is_shown_and_its_accuracy_can_be_the_objective(
    tmp_path: Path, own_cache: Path
) -> None:
    for folder in ("conf", "kerzoo", "sweeps"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "conf" / "task" / "tickets.yaml").write_text(shown_yaml("ClassificationTask"))
    write_tickets(tmp_path / "data" / "tickets")
    trial = ("arm=mezo", "task=tickets", "task.objective=accuracy", "model=opt-tiny")
    command = [sys.executable, "-m", "sweeps.trial", *trial, "training.forward_passes=8"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (records,) = tmp_path.glob("results/trial/trials/*/records.jsonl")
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    assert {row["task"] for row in rows} == {"tickets"}
    # Of at most two steps, each the mean of two shares of 16 examples.
    assert all(row["train_loss"] * 64 % 1 == 0 for row in rows[1:])
    assert all(row["dev_accuracy"] is not None for row in rows)
