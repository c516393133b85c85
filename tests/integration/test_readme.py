"""What the README shows is what happens."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import yaml
from tiny_trials import created, trial_config, trial_spec

from kerzoo.attempt import run_trial
from kerzoo.kernels import format_table
from kerzoo.models import LoadedModel
from kerzoo.options import TrialOptions
from kerzoo.workspace import Workspace

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


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


def test_every_arm_is_in_the_table_of_arms() -> None:
    arms = {path.name.removesuffix(".yaml") for path in Path("conf/arm").glob("*.yaml")}
    table = README[README.index("| `arm=`") : README.index("The last four are controls")]
    assert arms <= set(re.findall(r"`(\w+)`", table))


def test_a_task_of_ones_own_is_one_file_and_its_accuracy_can_be_the_objective(
    tmp_path: Path, own_cache: Path
) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    node = yaml.safe_load(shown) | {"data_dir": str(tmp_path), "max_length": 48}
    node |= {"num_train": 24, "num_dev": 12, "num_test": 4, "objective": "accuracy"}
    node["label_words"] = [" great", " terrible"]
    rows = [
        (f"{subject} {number}", f"the {body} is not good", label)
        for number in range(20)
        for subject, body, label in (("film", "plot", "billing"), ("story", "scene", "technical"))
    ]
    for name, chosen in (("train.csv", rows), ("val.csv", rows[:8])):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([("subject", "body", "label"), *chosen])
    config = trial_config("no/data", task=node, learning_rate=0.3, perturbation_scale=0.1)
    config["training"]["forward_passes"] = 80
    config["training"]["rungs"] = [1.0]
    spec = trial_spec(config)
    rows_of_trial = list(run_trial(spec, created(tmp_path, spec), Workspace()))
    assert [row["task"] for row in rows_of_trial] == ["tickets", "tickets"]
    assert rows_of_trial[-1]["dev_accuracy"] is not None
