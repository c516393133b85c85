"""A few rows of every task in its public format, in the folders that `data_root` expects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = Callable[[int], str]
_DATE = {"day": "", "month": "", "year": ""}

OPT_TASKS = [
    "sst2",
    "rte",
    "cb",
    "boolq",
    "wsc",
    "wic",
    "multirc",
    "copa",
    "record",
    "squad",
    "drop",
]
ROBERTA_TASKS = [f"roberta_{name}" for name in ["sst2", "sst5", "snli", "mnli", "rte", "trec"]]


def _line(**row: Any) -> str:
    return json.dumps(row) + "\n"


def _pair(i: int) -> dict[str, str]:
    return {"premise": f"A man sings {i} songs.", "hypothesis": f"He is silent {i} times."}


def _wsc(i: int) -> str:
    text = f"The cup number {i} broke when They dropped it."
    target = {"span1_text": "The cup", "span1_index": 0, "span2_text": "They", "span2_index": 6}
    return _line(text=text, target=target, label=bool(i % 2))


def _multirc(i: int) -> str:
    answers = [{"text": t, "label": n} for n, t in enumerate((f"Bo {i}", f"Ann {i}"))]
    questions = [{"question": f"Who ate {i}?", "answers": answers}]
    return _line(idx=i, passage={"text": f"Ann ate {i} times. ", "questions": questions})


def _record(i: int) -> str:
    text = f"Ann met Bo\n@highlight\nAnn smiled {i}"
    entities = [{"start": 0, "end": 2}, {"start": 8, "end": 9}]
    query = {"query": f"Nobody saw @placeholder again {i}", "answers": [{"text": "Bo"}]}
    return _line(passage={"text": text, "entities": entities}, qas=[query])


def _copa(i: int) -> str:
    choices = {"choice1": "I dropped it.", "choice2": "TV was on."}
    return _line(premise=f"Cup {i} broke.", **choices, question="cause", label=i % 2)


def _wic(i: int) -> str:
    sentences = {"sentence1": f"A river bank {i}.", "sentence2": "Rob a bank."}
    return _line(word="bank", **sentences, label=bool(i % 2))


def _squad(i: int) -> dict[str, Any]:
    query = {"question": f"What is {i}? ", "answers": [{"text": "New York"}]}
    return {"title": f"City_{i}", "paragraphs": [{"context": f"It is {i}. ", "qas": [query]}]}


def _drop(i: int) -> dict[str, Any]:
    answer = {"number": str(i), "date": _DATE, "spans": []}
    query = {"question": f"How many games {i}? ", "answer": answer, "validated_answers": [answer]}
    return {"passage": f"They won {i} games.", "qa_pairs": [query]}


SUPERGLUE: dict[str, Row] = {
    "RTE": lambda i: _line(**_pair(i), label=("entailment", "not_entailment")[i % 2], idx=i),
    "CB": lambda i: _line(**_pair(i), label=("entailment", "contradiction", "neutral")[i % 3]),
    "BoolQ": lambda i: _line(question=f"is {i} wet", passage=f"W -- It is {i}.", label=bool(i % 2)),
    "WSC": _wsc,
    "WiC": _wic,
    "MultiRC": _multirc,
    "COPA": _copa,
    "ReCoRD": _record,
}


def write_opt_tasks(root: Path, num_train: int = 16, num_val: int = 8) -> Path:
    """The eleven tasks of the papers' table on OPT; returns the root."""
    numbers = {"train": range(num_train), "val": range(num_train, num_train + num_val)}
    for pool, rows in numbers.items():
        for folder, row in SUPERGLUE.items():
            _write(root / folder / f"{pool}.jsonl", "".join(map(row, rows)))
        sentences = "".join(f"{i % 2} a film of {i} parts\n" for i in rows)
        name = {"train": "train", "val": "dev"}[pool]
        _write(root / "SST-2" / f"stsa.binary.{name}", sentences)
        squad = {"version": "1.1", "data": [_squad(i) for i in rows]}
        _write(root / "SQuAD" / f"{name}-v1.1.json", json.dumps(squad))
        drop = {f"nfl_{i}": _drop(i) for i in rows}
        _write(root / "DROP" / f"drop_dataset_{name}.json", json.dumps(drop))
    return root


def write_roberta_tasks(root: Path, num_train: int = 60, num_val: int = 8) -> Path:
    """The six tasks of the papers' table on RoBERTa; returns the root."""
    header = "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
    three = ("entailment", "neutral", "contradiction")
    kinds = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    numbers = {"train": range(num_train), "val": range(num_train, num_train + num_val)}
    for pool, rows in numbers.items():
        name = {"train": "train", "val": "dev"}[pool]
        films = "".join(f"a film of {i} parts\t{i % 2}\n" for i in rows)
        _write(root / "SST-2" / f"{name}.tsv", "sentence\tlabel\n" + films)
        other = {"train": "train", "val": "test"}[pool]
        _write(root / "SST-5" / f"{other}.csv", "".join(f'{i % 5},"film {i}"\n' for i in rows))
        for folder, ending in (("SNLI", ""), ("MNLI", "_matched" if pool == "val" else "")):
            pairs = "".join(f"{i}\tA man {i}.\tHe {i}.\tx\t{three[i % 3]}\n" for i in rows)
            _write(root / folder / f"{name}{ending}.tsv", header + pairs)
        words = ("entailment", "not_entailment")
        pairs = "".join(f"{i}\tA man {i}.\tHe {i}.\t{words[i % 2]}\n" for i in rows)
        _write(root / "RTE" / f"{name}.tsv", "index\tsentence1\tsentence2\tlabel\n" + pairs)
        file = {"train": "train_5500.label", "val": "TREC_10.label"}[pool]
        _write(root / "TREC" / file, "".join(f"{kinds[i % 6]}:x What is {i} ?\n" for i in rows))
    return root


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
