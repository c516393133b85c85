"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_trials import trial_config

from kerzoo.kernels import format_table
from kerzoo.models import LoadedModel
from kerzoo.options import TrialOptions

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
