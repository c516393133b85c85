"""Prompts of every task, character for character, from a public file and from the hub's row."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kerzoo.build import build
from kerzoo.tasks.sources import Example, RowSource

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"
OPTIONS = sorted(path.name.removesuffix(".yaml") for path in CONF.glob("*.yaml"))
COMMIT_DIGITS = 40
YES = ("No", "Yes")
NLI_HEADER = "index\tpairID\tsentence1\tsentence2\tlabel1\tgold_label\n"
PAIR = {"premise": "A man sings.", "hypothesis": "He is silent."}
MASKED_PAIR = "A man sings?{mask}, he is silent."
DATE = {"day": "", "month": "", "year": ""}


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of a task as its public file and as the hub have it, and what it becomes."""

    option: str
    file: str
    content: str
    hub_row: dict[str, Any]
    prompt: str
    continuations: tuple[str, ...]
    right: tuple[int, ...]


def line(**row: Any) -> str:
    return json.dumps(row) + "\n"


ARTICLE = {
    "text": "Ann met Bo\n@highlight\nAnn smiled\n@highlight\nBo left Ann",
    "entities": [
        {"start": 8, "end": 9},
        {"start": 0, "end": 2},
        {"start": 22, "end": 24},
    ],
}

CASES = [
    Case(
        "sst2",
        "dev.tsv",
        "sentence\tlabel\na warm film \t1\n",
        {"sentence": "a warm film ", "label": 1},
        "a warm film It was",
        (" terrible", " great"),
        (1,),
    ),
    Case(
        "rte",
        "val.jsonl",
        line(**PAIR, label="not_entailment", idx=0),
        {**PAIR, "label": 1, "idx": 0},
        'A man sings.\nDoes this mean that "He is silent." is true? Yes or No?\n',
        ("Yes", "No"),
        (1,),
    ),
    Case(
        "cb",
        "val.jsonl",
        line(**PAIR, label="contradiction", idx=0),
        {**PAIR, "label": 1, "idx": 0},
        'Suppose A man sings. Can we infer that "He is silent."? Yes, No, or Maybe?\n',
        ("Yes", "No", "Maybe"),
        (1,),
    ),
    Case(
        "boolq",
        "val.jsonl",
        line(question="is water wet", passage="Water -- Water is wet -- it is.", label=True),
        {"question": "is water wet", "passage": "Water is wet -- it is.", "answer": True},
        "Water is wet -- it is. Is water wet?\n",
        YES,
        (1,),
    ),
    Case(
        "wsc",
        "val.jsonl",
        line(
            text="The cup broke when They dropped it.",
            target={
                "span1_text": "the cup.",
                "span1_index": 0,
                "span2_text": "They",
                "span2_index": 4,
            },
            label=False,
        ),
        {
            "text": "The cup broke when They dropped it.",
            "span1_text": "The cup",
            "span1_index": 0,
            "span2_text": "They",
            "span2_index": 4,
            "label": 0,
        },
        "The cup broke when They dropped it.\nIn the previous sentence, does the pronoun "
        '"they" refer to The cup? Yes or No?\n',
        YES,
        (0,),
    ),
    Case(
        "wic",
        "val.jsonl",
        line(word="bank", sentence1="A river bank.", sentence2="Rob a bank.", label=False),
        {"word": "bank", "sentence1": "A river bank.", "sentence2": "Rob a bank.", "label": 0},
        'Does the word "bank" have the same meaning in these two sentences? Yes, No?\n'
        "A river bank.\nRob a bank.\n",
        YES,
        (0,),
    ),
    Case(
        "multirc",
        "val.jsonl",
        line(
            idx=0,
            passage={
                "text": "Ann ate. ",
                "questions": [
                    {"question": "Who ate?", "answers": [{"text": "Ann", "idx": 0, "label": 1}]}
                ],
            },
        ),
        {"paragraph": "Ann ate. ", "question": "Who ate?", "answer": "Ann", "label": 1},
        'Ann ate. \nQuestion: Who ate?\nI found this answer "Ann". Is that correct? Yes or No?\n',
        YES,
        (1,),
    ),
    Case(
        "copa",
        "val.jsonl",
        line(
            premise="The cup broke. ",
            choice1="I dropped it.",
            choice2="TV was on.",
            question="cause",
            label=0,
        ),
        {
            "premise": "The cup broke. ",
            "choice1": "I dropped it.",
            "choice2": "TV was on.",
            "question": "cause",
            "label": 0,
        },
        "The cup broke because",
        (" I dropped it.", " tv was on."),
        (0,),
    ),
    Case(
        "record",
        "val.jsonl",
        line(
            passage=ARTICLE,
            qas=[{"query": "Nobody saw @placeholder again", "answers": [{"text": "Bo"}]}],
        ),
        {
            "passage": ARTICLE["text"],
            "query": "Nobody saw @placeholder again",
            "entities": ["Bo", "Ann"],
            "answers": ["Bo"],
        },
        "Ann met Bo\n- Ann smiled\n- Bo left Ann\n-",
        (" Nobody saw Ann again", " Nobody saw Bo again"),
        (1,),
    ),
    Case(
        "squad",
        "dev-v1.1.json",
        line(
            version="1.1",
            data=[
                {
                    "title": "New_York",
                    "paragraphs": [
                        {
                            "context": "It is big. ",
                            "qas": [
                                {"question": " What is big? ", "answers": [{"text": "New York"}]}
                            ],
                        }
                    ],
                }
            ],
        ),
        {
            "title": "New_York",
            "context": "It is big. ",
            "question": " What is big? ",
            "answers": {"text": ["New York", "New York"], "answer_start": [0, 0]},
        },
        "Title: New_York\nContext: It is big. \nQuestion: What is big?\nAnswer:",
        (" New York\n",),
        (0,),
    ),
    Case(
        "drop",
        "drop_dataset_dev.json",
        line(
            nfl_1={
                "passage": "They won 3 games.",
                "qa_pairs": [
                    {
                        "question": "How many games? ",
                        "answer": {"number": "4", "date": DATE, "spans": []},
                        "validated_answers": [{"number": "3", "date": DATE, "spans": []}],
                    }
                ],
            }
        ),
        {
            "passage": "They won 3 games.",
            "question": "How many games? ",
            "answers_spans": {"spans": ["3"], "types": ["number"]},
        },
        "Passage: They won 3 games.\nQuestion: How many games?\nAnswer:",
        (" 3\n",),
        (0,),
    ),
    Case(
        "roberta_sst2",
        "dev.tsv",
        "sentence\tlabel\na warm film \t1\n",
        {"sentence": "a warm film ", "label": 1},
        "a warm film It was{mask}.",
        (" terrible", " great"),
        (1,),
    ),
    Case(
        "roberta_sst5",
        "test.csv",
        '3,"a ""warm"" film , mostly"\n',
        {"text": 'a "warm" film , mostly', "label": 3, "label_text": "positive"},
        'a "warm" film , mostly It was{mask}.',
        (" terrible", " bad", " okay", " good", " great"),
        (3,),
    ),
    Case(
        "roberta_snli",
        "dev.tsv",
        NLI_HEADER + "0\t0c\tA man sings.\tHe is silent.\tneutral\tcontradiction\n",
        {**PAIR, "label": 2},
        MASKED_PAIR,
        (" Yes", " Maybe", " No"),
        (2,),
    ),
    Case(
        "roberta_mnli",
        "dev_matched.tsv",
        NLI_HEADER + "0\t0n\tA man sings.\tHe is silent.\tentailment\tneutral\n",
        {**PAIR, "label": 1},
        MASKED_PAIR,
        (" Yes", " Maybe", " No"),
        (1,),
    ),
    Case(
        "roberta_rte",
        "dev.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\tA man sings.\tHe is silent.\tentailment\n",
        {"sentence1": "A man sings.", "sentence2": "He is silent.", "label": 0},
        MASKED_PAIR,
        (" Yes", " No"),
        (0,),
    ),
    Case(
        "roberta_trec",
        "TREC_10.label",
        "ABBR:exp What does UN stand for ?\n",
        {"text": "What does UN stand for ?", "coarse_label": 0, "fine_label": 0},
        "{mask}: What does UN stand for ?",
        (" Description", " Entity", " Expression", " Human", " Location", " Number"),
        (2,),
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=[case.option for case in CASES])


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
    return prompt.format(**example.fields, mask="{mask}")


def continuations_of(option: str, example: Example) -> tuple[str, ...]:
    settings = settings_of(option)
    if "answer" in settings:
        return tuple(settings["answer"].format(answer=answer) for answer in example.answers)
    return example.candidates or tuple(settings["label_words"])


def check(case: Case, example: Example) -> None:
    assert prompt_of(case.option, example) == case.prompt
    assert continuations_of(case.option, example) == case.continuations
    assert (example.label, *example.also_right) == case.right


def test_every_option_with_public_rows_has_a_case_here() -> None:
    assert {case.option for case in CASES} == set(OPTIONS) - {"movie_reviews", "csv"}


@each_case
def test_a_public_file_gives_the_published_prompt(case: Case, tmp_path: Path) -> None:
    (tmp_path / case.file).write_text(case.content, encoding="utf-8")
    (example,) = source_of(case.option).read(str(tmp_path), "val")
    check(case, example)


@each_case
def test_the_row_of_the_hub_gives_the_same_example(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(case.option)
    (tmp_path / case.file).write_text(case.content, encoding="utf-8")
    monkeypatch.setattr(RowSource, "_check_hub", lambda self: None)
    monkeypatch.setattr("datasets.load_dataset", lambda *names, **options: [case.hub_row])
    (example,) = source.read(None, "val")
    check(case, example)
    assert [example] == source.read(str(tmp_path), "val")


@pytest.mark.parametrize("option", [case.option for case in CASES])
def test_a_hub_data_set_is_pinned_and_its_prompt_uses_known_fields(option: str) -> None:
    source = source_of(option)
    assert source.revision is not None
    assert len(source.revision) == COMMIT_DIGITS
    words = settings_of(option).get("label_words")
    assert source.num_labels == (len(words) if words else None)


# The protocol's sizes.


@pytest.mark.parametrize(
    ("option", "sizes"),
    [
        ("rte", (1000, 500, 277)),
        ("cb", (150, 100, 56)),
        ("boolq", (1000, 500, 1000)),
        ("wsc", (54, 500, 104)),
        ("wic", (1000, 500, 638)),
        ("multirc", (1000, 500, 1000)),
        ("copa", (300, 100, 100)),
        ("record", (1000, 500, 1000)),
        ("squad", (1000, 500, 1000)),
        ("drop", (1000, 500, 1000)),
    ],
)
def test_sizes_are_those_that_the_protocols_slicing_gives(
    option: str, sizes: tuple[int, int, int]
) -> None:
    settings = settings_of(option)
    assert tuple(settings[f"num_{split}"] for split in ("train", "dev", "test")) == sizes
    assert settings["max_length"] == 2048


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.startswith("roberta_")])
def test_tasks_of_masked_models_draw_16_examples_a_class(option: str) -> None:
    settings = settings_of(option)
    assert (settings["shots"], settings["data_seed"]) == (16, 13)
    pairs = option in ("roberta_snli", "roberta_mnli", "roberta_rte")
    assert settings["max_length"] == (256 if pairs else 128)
