"""The real public files, where this machine has them: sizes, labels, prompts."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from kerzoo.build import build
from kerzoo.tasks.sources import Example, RowSource

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"


@functools.cache
def settings_of(option: str) -> dict[str, Any]:
    settings = yaml.safe_load((CONF / f"{option}.yaml").read_text(encoding="utf-8"))
    assert isinstance(settings, dict)
    return settings


def source_of(option: str) -> RowSource:
    source = build(settings_of(option)["source"], "source")
    assert isinstance(source, RowSource)
    return source


def prompt_of(option: str, example: Example) -> str:
    prompt: str = settings_of(option)["prompt"]
    return prompt.format(**example.fields)


def rows_of(shared_data: Path, task: str, name: str) -> tuple[str, list[dict[str, Any]]]:
    path = shared_data / task / name
    if not path.is_file():
        pytest.skip(f"no {task}/{name} in {shared_data}")
    return str(path.parent), [json.loads(row) for row in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("option", "task", "name", "labels"),
    [
        ("rte", "RTE", "train.jsonl", {0: 1249, 1: 1241}),
        ("rte", "RTE", "val.jsonl", {0: 146, 1: 131}),
        ("copa", "COPA", "train.jsonl", {0: 195, 1: 205}),
        ("copa", "COPA", "val.jsonl", {0: 55, 1: 45}),
        ("boolq", "BoolQ", "val.jsonl", {0: 1237, 1: 2033}),
        ("multirc", "MultiRC", "train.jsonl", {0: 15218, 1: 12025}),
        ("multirc", "MultiRC", "val.jsonl", {0: 2773, 1: 2075}),
    ],
)
def test_the_real_files_have_their_published_sizes_and_labels(
    shared_data: Path, option: str, task: str, name: str, labels: dict[int, int]
) -> None:
    folder, _ = rows_of(shared_data, task, name)
    pool = source_of(option).read_pool(folder, name.removesuffix(".jsonl"))
    assert Counter(example.label for example in pool.examples) == labels
    assert pool.skipped == {}


def test_the_first_real_rows_give_the_published_prompts(shared_data: Path) -> None:
    folder, (rte, *_) = rows_of(shared_data, "RTE", "val.jsonl")
    assert prompt_of("rte", source_of("rte").read(folder, "val")[0]) == (
        f'{rte["premise"]}\nDoes this mean that "{rte["hypothesis"]}" is true? Yes or No?\n'
    )
    folder, (multirc, *_) = rows_of(shared_data, "MultiRC", "val.jsonl")
    passage = multirc["passage"]
    question = passage["questions"][0]
    assert prompt_of("multirc", source_of("multirc").read(folder, "val")[0]) == (
        f"{passage['text']}\nQuestion: {question['question']}\nI found this answer "
        f'"{question["answers"][0]["text"]}". Is that correct? Yes or No?\n'
    )


def test_every_real_boolq_prompt_ends_in_a_question_and_has_lost_its_title(
    shared_data: Path,
) -> None:
    folder, rows = rows_of(shared_data, "BoolQ", "val.jsonl")
    for row, example in zip(rows, source_of("boolq").read(folder, "val"), strict=True):
        prompt = prompt_of("boolq", example)
        assert prompt.endswith("?\n")
        assert row["passage"].split(" -- ", 1)[1].lstrip() + " " in prompt
        assert not prompt.startswith(row["passage"].split(" -- ", 1)[0] + " -- ")


def test_every_real_copa_candidate_goes_on_in_the_sentence(shared_data: Path) -> None:
    folder, _ = rows_of(shared_data, "COPA", "train.jsonl")
    for example in source_of("copa").read(folder, "train"):
        assert prompt_of("copa", example).endswith((" so", " because"))
        for text in example.candidates:
            assert text.startswith(" I ") or text[:2] == text[:2].lower()
