"""Sources: every public format, what each refuses, and what it skips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerzoo.tasks.sources import (
    BoolQ,
    Cb,
    Copa,
    Drop,
    Example,
    Mnli,
    MovieReviewSnippets,
    MultiRc,
    Record,
    RowSource,
    Rte,
    Snli,
    Squad,
    Sst5,
    Table,
    Trec,
    Wic,
    Wsc,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATE = {"day": "", "month": "", "year": ""}
PAIR = {"premise": "It rains.", "hypothesis": "It is wet."}

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and gives its folder."""

    def write(name: str, content: str) -> str:
        (tmp_path / name).write_bytes(content.encode("utf-8"))
        return str(tmp_path)

    return write


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Any]]:
    """Puts rows in the place of the hub and gives the list of what is asked for."""

    def serve(rows: Any) -> list[Any]:
        asked: list[Any] = []

        def load_dataset(*names: str, **options: str) -> Any:
            asked.append((*names, options))
            return rows

        monkeypatch.setattr(RowSource, "_check_hub", lambda self: None)
        monkeypatch.setattr("datasets.load_dataset", load_dataset)
        return asked

    return serve


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def squad(*questions: Any) -> str:
    article = {"title": "A", "paragraphs": [{"context": "C.", "qas": list(questions)}]}
    return json.dumps({"version": "1.1", "data": [article]})


def drop(**pair: Any) -> str:
    return json.dumps({"nfl_1": {"passage": "P.", "qa_pairs": [{"question": "How?", **pair}]}})


def answer(number: str = "", spans: tuple[str, ...] = (), **date: str) -> dict[str, Any]:
    return {"number": number, "date": {**DATE, **date}, "spans": list(spans)}


# What a line may say.


@pytest.mark.parametrize("label", ["not_entailment", "1", 1])
def test_a_label_may_be_a_name_or_a_number(write: Write, label: Any) -> None:
    folder = write("train.jsonl", lines({**PAIR, "label": label}))
    (example,) = Rte().read(folder, "train")
    assert example.label == 1


def test_labels_that_are_true_or_false_count_as_one_and_zero(write: Write) -> None:
    row = {"word": "a", "sentence1": "b", "sentence2": "c"}
    folder = write("train.jsonl", lines({**row, "label": True}, {**row, "label": False}))
    assert [example.label for example in Wic().read(folder, "train")] == [1, 0]


def test_texts_are_kept_as_published_but_for_space_in_front(write: Write) -> None:
    folder = write("val.jsonl", lines({"premise": " A. ", "hypothesis": " b ", "label": 2}))
    (example,) = Cb().read(folder, "val")
    assert example == Example(
        {"premise": "A. ", "hypothesis": " b ", "premise_stem": "A.", "hypothesis_lowered": " b "},
        2,
    )


def test_files_of_boolqs_authors_are_read_as_they_are(write: Write) -> None:
    row = {"question": "is it wet?", "title": "Rain", "passage": "It -- rain.", "answer": False}
    (example,) = BoolQ().read(write("dev.jsonl", lines(row)), "val")
    assert example == Example({"passage": "It -- rain.", "question": "Is it wet?"}, 0)


def test_multirc_has_an_example_for_each_answer_and_keeps_an_empty_one(write: Write) -> None:
    answers = [{"text": "A", "label": 1}, {"text": "", "label": 0}]
    questions = [{"question": "Q1", "answers": answers}, {"question": "Q2", "answers": answers[:1]}]
    folder = write("train.jsonl", lines({"passage": {"text": "P", "questions": questions}}))
    examples = MultiRc().read(folder, "train")
    assert [(*e.fields.values(), e.label) for e in examples] == [
        ("P", "Q1", "A", 1),
        ("P", "Q1", "", 0),
        ("P", "Q2", "A", 1),
    ]


def test_record_has_unique_entities_and_all_right_ones(write: Write) -> None:
    entities = [{"start": 3, "end": 3}, {"start": 0, "end": 1}, {"start": 3, "end": 3}]
    queries = [
        {"query": "@placeholder won", "answers": [{"text": "b"}, {"text": "Al"}, {"text": "b"}]},
        {"query": "see @placeholder ", "answers": [{"text": "b"}]},
    ]
    row = {"passage": {"text": "Al b", "entities": entities}, "qas": queries}
    both, one = Record().read(write("train.jsonl", lines(row)), "train")
    assert (both.candidates, both.label, both.also_right) == ((" Al won", " b won"), 0, (1,))
    assert (one.candidates, one.label, one.also_right) == ((" see Al", " see b"), 1, ())


def test_the_hubs_class_numbers_of_trec_become_those_of_lm_bff(
    write: Write, hub: Callable[[Any], list[Any]], tmp_path: Path
) -> None:
    hub([{"text": "Q", "coarse_label": number} for number in range(6)])
    source = Trec(hub_id="CogComp/trec", revision=COMMIT)
    assert [example.label for example in source.read(None, "train")] == [2, 1, 0, 3, 4, 5]
    (tmp_path / "train_5500.label").write_bytes(b"NUM:date When was\xf0he born ?\n")
    assert source.read(str(tmp_path), "train") == [Example({"text": "When was he born ?"}, 5)]
    assert source.read(write("train.csv", "4,Where ?\n"), "train") == [
        Example({"text": "Where ?"}, 4)
    ]


def test_squad_keeps_every_different_answer_in_order(write: Write) -> None:
    question = {"question": "Q", "answers": [{"text": "b"}, {"text": "a"}, {"text": "b"}]}
    (example,) = Squad().read(write("dev-v1.1.json", squad(question)), "val")
    assert example.answers == ("b", "a")


def test_drop_trains_on_its_answer_and_judges_by_validated_ones(write: Write) -> None:
    pair = {
        "answer": answer(spans=("red", "blue")),
        "validated_answers": [answer(number="7"), answer(day="5", month="May", year="1918")],
    }
    folder = write("train.json", drop(**pair))
    write("dev.json", drop(**pair))
    assert Drop().read(folder, "train")[0].answers == ("red", "blue")
    assert Drop().read(folder, "val")[0].answers == ("7", "5 May 1918")


# What is skipped, and counted.


def test_pairs_without_a_gold_label_are_skipped_and_counted(write: Write) -> None:
    rows = [
        {"sentence1": "A.", "sentence2": "B.", "gold_label": label}
        for label in ("-", "neutral", "-")
    ]
    pool = Snli().read_pool(write("snli_1.0_train.jsonl", lines(*rows)), "train")
    assert [example.label for example in pool.examples] == [1]
    assert pool.skipped == {"no gold label": 2}


def test_the_hubs_unlabelled_and_empty_pairs_are_skipped_and_counted(
    hub: Callable[[Any], list[Any]],
) -> None:
    hub([{**PAIR, "label": -1}, {**PAIR, "hypothesis": " ", "label": 0}, {**PAIR, "label": 2}])
    pool = Mnli(hub_id="nyu-mll/glue", revision=COMMIT).read_pool(None, "train")
    assert [example.label for example in pool.examples] == [2]
    assert pool.skipped == {"no gold label": 1, "an empty text": 1}


def test_drop_questions_without_a_clear_answer_are_skipped_and_counted(write: Write) -> None:
    pairs = [
        {"question": "A", "answer": answer()},
        {"question": "B", "answer": answer(number="3", spans=("three",))},
        {"question": "C", "answer": answer(number="3")},
    ]
    document = json.dumps({"nfl_1": {"passage": "P.", "qa_pairs": pairs}})
    pool = Drop().read_pool(write("train.json", document), "train")
    assert [example.fields["question"] for example in pool.examples] == ["C"]
    assert pool.skipped == {"no answer": 1, "an answer of two kinds": 1}


def test_a_statement_whose_answer_is_no_entity_is_skipped_and_counted(
    hub: Callable[[Any], list[Any]],
) -> None:
    row = {"passage": "P", "query": "@placeholder", "entities": ["a"], "answers": ["a"]}
    hub([row, {**row, "answers": ["z"]}])
    pool = Record(hub_id="aps/super_glue", revision=COMMIT).read_pool(None, "val")
    assert (len(pool.examples), pool.skipped) == (1, {"no answer among the entities": 1})


def test_reviews_rated_near_zero_are_counted(write: Write) -> None:
    rows = "".join(f"{i}\t{(-1) ** i * (0.1 if i < 30 else 2)}\ttext {i}\n" for i in range(60))
    folder = write("movieReviewSnippets_GroundTruth.txt", rows)
    pools = [MovieReviewSnippets().read_pool(folder, pool) for pool in ("train", "val")]
    assert sum(len(pool.examples) for pool in pools) == 30
    assert sum(pool.skipped["rated nearer to 0 than 0.5"] for pool in pools) == 30


def test_data_of_which_everything_is_skipped_are_refused(write: Write) -> None:
    row = {"sentence1": "A.", "sentence2": "B.", "gold_label": "-"}
    with pytest.raises(ValueError, match=r"got none in the train data \(skipped: \{'no gold"):
        Snli().read(write("snli_1.0_train.jsonl", lines(row)), "train")


# What is refused.


@pytest.mark.parametrize(
    ("source", "name", "content", "message"),
    [
        (Rte(), "train.jsonl", "", "train.jsonl: expected labelled examples, got an empty file"),
        (Rte(), "train.jsonl", "{\n", r"jsonl, line 1: expected a JSON object, got '\{'"),
        (Rte(), "train.jsonl", "[1]\n", r"jsonl, line 1: expected a JSON object, got '\[1\]'"),
        (Rte(), "train.jsonl", lines({**PAIR, "label": 0}) + "\n\n", "line 2: expected a JSON"),
        (Rte(), "train.jsonl", lines(PAIR), "line 1: expected the column gold_label or label, got"),
        (
            Rte(),
            "train.jsonl",
            lines({**PAIR, "label": 0}, {**PAIR, "label": "maybe"}),
            "line 2: expected the label entailment or not_entailment, got 'maybe'",
        ),
        (Rte(), "train.jsonl", lines({**PAIR, "label": -1}), "expected the label entailment or"),
        (Rte(), "train.jsonl", lines({**PAIR, "label": True}), "expected the label entailment or"),
        (
            Rte(),
            "train.jsonl",
            lines({**PAIR, "premise": None, "label": 0}),
            "line 1: expected a premise, got 'None'",
        ),
        (
            Rte(),
            "train.tsv",
            "index\tsentence1\tlabel\n",
            "tsv, line 1: expected the columns .* hypothesis or sentence2, .*; got index",
        ),
        (
            Rte(),
            "train.tsv",
            "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\n",
            "tsv, line 2: expected 4 columns with tabs between, got 3 columns",
        ),
        (Sst5(), "train.csv", "3\n", "csv, line 1: expected label and sentence with commas"),
        (Sst5(), "train.csv", '3,"a" b\n', "csv, line 1: "),
        (Sst5(), "train.csv", "5,good\n", "csv, line 1: expected the label 0 or 1 or 2"),
        (Sst5(), "train.csv", "3, \n", "csv, line 1: expected a sentence, got none"),
        (Trec(), "train_5500.label", "FOO:x Why ?\n", "label, line 1: expected the label DESC or"),
        (MultiRc(), "train.jsonl", lines({"passage": {"text": "P"}}), "expected a list of quest"),
        (
            MultiRc(),
            "train.jsonl",
            lines({"passage": {"text": "P", "questions": [{"question": "Q", "answers": [{}]}]}}),
            "line 1: expected text, got",
        ),
        (
            Wsc(),
            "train.jsonl",
            lines(
                {
                    "text": "A b.",
                    "target": {"span1_text": "x", "span1_index": 5, "span2_text": "b"},
                    "label": True,
                }
            ),
            "line 1: expected the number of a word below 2, got 5",
        ),
        (
            Copa(),
            "train.jsonl",
            lines({"premise": "A.", "choice1": "b", "choice2": "c", "question": "why", "label": 0}),
            "line 1: expected the question cause or effect, got 'why'",
        ),
        (Squad(), "train.json", '{"data": [', "train.json, line 1: expected JSON, got"),
        (Squad(), "train.json", "[]", "train.json: expected a list of data, got"),
        (Squad(), "train.json", '{"data": []}', "train.json: expected labelled examples, got an"),
        (
            Squad(),
            "train.json",
            squad({"question": "Q", "answers": []}),
            "json, article 0, paragraph 0, question 0: expected at least one answer, got none",
        ),
        (Squad(), "train.json", squad({"question": "Q"}), "article 0: expected a list of answers"),
        (Drop(), "train.json", "[]", "train.json: expected passages by name"),
        (Drop(), "train.json", drop(), "json, passage nfl_1: expected answer, got"),
    ],
)
def test_wrong_content_is_refused_with_its_place_and_the_rule(
    write: Write, source: RowSource, name: str, content: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        source.read(write(name, content), "train")


def test_a_folder_without_the_file_is_refused_and_a_test_file_is_none(write: Write) -> None:
    folder = write("test.jsonl", lines({**PAIR, "label": 0}))
    for ask in (Rte().check_available, Rte().read):
        with pytest.raises(ValueError, match=r"task\.data_dir: no val\.jsonl or dev\.tsv in"):
            ask(folder, "val")
    with pytest.raises(ValueError, match=r"no train\.jsonl"):
        Rte().fingerprint(folder)


# The hub.


def test_a_row_of_the_hub_is_refused_with_its_place(hub: Callable[[Any], list[Any]]) -> None:
    asked = hub([{**PAIR, "label": 0}, {**PAIR, "label": 7}])
    with pytest.raises(ValueError, match="aps/super_glue, cb, validation, row 1: expected the lab"):
        Cb(hub_id="aps/super_glue", revision=COMMIT).read(None, "val")
    assert asked == [("aps/super_glue", "cb", {"split": "validation", "revision": COMMIT})]


def test_a_data_set_with_one_configuration_is_asked_for_without_its_name(
    hub: Callable[[Any], list[Any]],
) -> None:
    asked = hub([{"text": "so so", "label": 2}])
    source = Sst5(hub_id="SetFit/sst5", revision=COMMIT)
    source.read(None, "val")
    assert asked == [("SetFit/sst5", {"split": "test", "revision": COMMIT})]
    assert source.fingerprint(None) == f"SetFit/sst5/default@{COMMIT}"


def test_a_prepared_copy_in_the_cache_needs_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    source = Table(fields=("text",), labels=("a", "b"), hub_id="SetFit/MyData", revision=COMMIT)
    with pytest.raises(ValueError, match=r"set task\.data_dir to a folder with train\.csv"):
        source.check_available(None, "val")
    (tmp_path / "SetFit___my_data" / "default" / "0.0.0" / COMMIT).mkdir(parents=True)
    source.check_available(None, "val")


def test_a_hub_that_fails_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*names: str, **options: str) -> Any:
        raise RuntimeError("Dataset scripts are no longer supported")

    monkeypatch.setattr(RowSource, "_check_hub", lambda self: None)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(ValueError, match=r"could not be loaded .*task\.data_dir.*no longer"):
        Wic(hub_id="aps/super_glue", revision=COMMIT).read(None, "val")


@pytest.mark.slow
def test_nested_columns_of_a_real_data_set_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    rows = {
        "passage": ["P."],
        "question": ["Q?"],
        "answers_spans": [{"spans": ["3", "three"], "types": ["number", "span"]}],
    }
    texts = {"spans": datasets.Value("string"), "types": datasets.Value("string")}
    text = datasets.Value("string")
    features = {"passage": text, "question": text, "answers_spans": datasets.Sequence(texts)}
    path = tmp_path / "validation.parquet"
    datasets.Dataset.from_dict(rows, datasets.Features(features)).to_parquet(str(path))
    real = datasets.load_dataset(
        "parquet", data_files={"validation": str(path)}, split="validation", cache_dir=str(tmp_path)
    )
    monkeypatch.setattr(RowSource, "_check_hub", lambda self: None)
    monkeypatch.setattr("datasets.load_dataset", lambda *names, **options: real)
    (example,) = Drop(hub_id="ucinlp/drop", revision=COMMIT).read(None, "val")
    assert example.answers == ("3", "three")
