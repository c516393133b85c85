"""A user's own table: a new classification task is one file of configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kerzoo.build import build
from kerzoo.tasks.sources import Example, RowSource, Table

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [{"text": 'so, "so"', "label": "bad"}, {"text": "fine", "label": "good"}]
CONTENT = {
    "train.csv": 'id,text,label\n1,"so, ""so""",bad\n2,fine,good\n',
    "train.tsv": 'id\ttext\tlabel\r\n1\tso, "so"\tbad\r\n2\tfine \tgood\r\n',
    "train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
}


def table(**changes: Any) -> Table:
    return Table(**{"fields": ("text",), "labels": ("bad", "good"), **changes})


@pytest.mark.parametrize("name", sorted(CONTENT))
def test_a_table_of_any_format_gives_the_same_examples(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(CONTENT[name], newline="")
    assert table(train_file=name).read(str(tmp_path), "train") == [
        Example({"text": 'so, "so"'}, 0),
        Example({"text": "fine"}, 1),
    ]


def test_a_text_may_go_over_several_lines_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text('text,label\n"one\ntwo",good\nthree,awful\n')
    with pytest.raises(
        ValueError, match=r"val\.csv, line 4: expected the label bad or good, got 'aw"
    ):
        table().read(str(tmp_path), "val")
    (tmp_path / "val.csv").write_text('text,label\n"one\ntwo",good\n')
    assert table().read(str(tmp_path), "val") == [Example({"text": "one\ntwo"}, 1)]


def test_a_source_in_a_yaml_file_builds_with_its_columns() -> None:
    source = build(
        yaml.safe_load(
            """
            _target_: kerzoo.tasks.sources.Table
            fields: [title, body]
            label_column: topic
            labels: ["1", "2", "3"]
            val_file: dev.tsv
            """
        ),
        "task.source",
    )
    assert isinstance(source, Table)
    assert (source.fields, source.num_labels) == (("title", "body"), 3)
    assert source.file_names("val") == ("dev.tsv",)


def test_labels_are_values_and_not_numbers_of_classes(tmp_path: Path) -> None:
    source = table(labels=("1", "2", "true"), train_file="train.jsonl")
    rows = [{"text": "a", "label": label} for label in (1, "2", True)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [example.label for example in source.read(str(tmp_path), "train")] == [0, 1, 2]
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "a", "label": 0}))
    told = (
        "expected the label 1 or 2 or true, got '0'; name the file's labels in task.source.labels"
    )
    with pytest.raises(ValueError, match=told):
        source.read(str(tmp_path), "train")


def test_splits_of_the_hub_may_have_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*names: str, **options: str) -> list[dict[str, Any]]:
        asked.append((*names, options["split"]))
        return ROWS

    monkeypatch.setattr(RowSource, "_check_hub", lambda self: None)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    source = table(hub_id="me/reviews", revision=COMMIT, config="small", val_split="test")
    assert len(source.read(None, "train")) == len(source.read(None, "val")) == 2
    assert asked == [("me/reviews", "small", "train"), ("me/reviews", "small", "test")]


def test_without_a_hub_a_folder_is_asked_for() -> None:
    for ask in (table().fingerprint, lambda data_dir: table().check_available(data_dir, "val")):
        with pytest.raises(ValueError, match=r"no hub_id; set task\.data_dir to a folder with tra"):
            ask(None)


def test_a_folder_without_the_file_is_not_sent_to_a_source_that_there_is_not(
    tmp_path: Path,
) -> None:
    nowhere = str(tmp_path / "nope")
    told = f"no train.csv in {nowhere}, which is no folder; name a folder that has it"
    with pytest.raises(ValueError, match=re.escape(told) + "$"):
        table().fingerprint(nowhere)
    with pytest.raises(ValueError, match=r"or leave task\.data_dir=null to load the data"):
        table(hub_id="me/reviews", revision=COMMIT).fingerprint(nowhere)


@pytest.mark.parametrize(
    ("name", "told"), [("train.csv", "$"), ("reviews.csv", ", which must have train.csv$")]
)
def test_a_file_in_place_of_its_folder_is_told(tmp_path: Path, name: str, told: str) -> None:
    path = tmp_path / name
    path.write_text("text,label\na,good\n")
    message = re.escape(f"{path} is a file; name its folder, {tmp_path}") + told
    with pytest.raises(ValueError, match=message):
        table().check_available(str(path), "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": ()}, r"fields must be columns other than label, got \[\]"),
        ({"fields": ("text", "label")}, "fields must be columns other than label"),
        ({"labels": ("bad",)}, r"labels must be at least two different values, got \['bad'\]"),
        ({"labels": ("bad", "bad")}, "labels must be at least two different values"),
        ({"val_file": "val.xlsx"}, "a file must end with .csv or .tsv or .jsonl, got 'val.xlsx'"),
        ({"hub_id": "me/reviews"}, "hub_id and revision must be given together"),
        ({"hub_id": "me/reviews", "revision": "main"}, "revision must be a full commit"),
    ],
)
def test_a_wrong_setting_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(**changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,stars\na,good\n", "csv, line 1: expected the columns text, label; got text, stars"),
        ("text,label\n", "train.csv: expected labelled examples, got an empty file"),
        (
            "text,label\na,good,x\n",
            "csv, line 2: expected text and label with commas between, got 3",
        ),
        ("text,label\n ,good\n", "csv, line 2: expected a text, got none"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        table().read(str(tmp_path), "train")


def test_a_single_file_is_split_by_its_texts_with_equal_ones_on_one_side(tmp_path: Path) -> None:
    lines = [f"text {number % 500},{('bad', 'good')[number % 2]}" for number in range(1000)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *lines]))
    source = table(val_file=None)
    train, val = (source.read(str(tmp_path), pool) for pool in ("train", "val"))
    assert len(train) + len(val) == 1000
    assert not {e.fields["text"] for e in train} & {e.fields["text"] for e in val}
    assert 60 < len(val) / 2 < 140  # 100 texts expected, ± 4.5 standard deviations
    assert source.has_pool(str(tmp_path), "val")


def test_a_single_file_that_is_too_small_to_be_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\nfine,good\n")
    source = table(val_file=None)
    with pytest.raises(ValueError, match=r"train\.csv must have more rows to be split .* got 1"):
        [source.read(str(tmp_path), pool) for pool in ("train", "val")]


def test_without_a_folder_a_single_file_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"to a folder with train\.csv$"):
        table(val_file=None).check_available(None, "train")
