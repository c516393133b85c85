"""Tasks: which examples, from which lines of which files."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kerzoo.build import build
from kerzoo.tasks import ClassificationTask, Example, MovieReviewSnippets, Sst2, Task

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"
OWN = "csv"
OPTIONS = sorted(path.name.removesuffix(".yaml") for path in CONF.glob("*.yaml"))
COMMIT = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
SST2 = Sst2(hub_id="nyu-mll/glue", revision=COMMIT)
MOVIE_FILE = "movieReviewSnippets_GroundTruth.txt"


def task_of(option: str, **changes: Any) -> ClassificationTask:
    task = build(yaml.safe_load((CONF / f"{option}.yaml").read_text()), "task")
    assert isinstance(task, ClassificationTask)
    return dataclasses.replace(task, **changes)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """SST-2 as `stsa.binary.*`: 40 sentences in train, 10 in dev, and a test file."""
    for name, count in (("train", 40), ("dev", 10), ("test", 10)):
        lines = [f"{i % 2} {name} sentence {i}" for i in range(count)]
        (tmp_path / f"stsa.binary.{name}").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def task(data_dir: Path) -> ClassificationTask:
    sizes = {"num_train": 20, "num_dev": 10, "num_test": 10}
    return task_of("sst2", data_dir=str(data_dir), max_length=32, **sizes)


def texts(examples: list[Example]) -> list[str]:
    return [example.fields["text"] for example in examples]


# Every option.


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_builds_a_task_of_its_name_that_reads_no_folder(option: str) -> None:
    task = build(yaml.safe_load((CONF / f"{option}.yaml").read_text()), "task")
    assert isinstance(task, Task)
    assert (task.name, task.data_dir) == (option, None)
    if option != OWN:
        assert task.fingerprint()


def test_a_table_of_ones_own_has_no_other_place_and_asks_for_its_folder() -> None:
    with pytest.raises(ValueError, match=r"set task\.data_dir to a folder with train\.csv$"):
        task_of(OWN).fingerprint()


def test_the_prompt_of_sst2_is_the_published_one() -> None:
    task = task_of("sst2")
    assert task.prompt.format(text="good") == "good It was"
    assert task.label_words == (" terrible", " great")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_train": -1}, "num_train must be an integer ≥ 0, got -1"),
        ({"max_length": 4}, "max_length must be an integer ≥ 8, got 4"),
        ({"label_words": [" good"]}, "label_words must be 2 different words"),
        ({"label_words": [" good", " good"]}, "label_words must be 2 different words"),
        ({"prompt": "{sentence} It was"}, r"prompt must be made of \{text\}"),
        ({"prompt": "{text.__class__} It was"}, r"prompt must be made of \{text\}"),
        ({"prompt": "It was"}, r"prompt must be made of \{text\}"),
        ({"prompt": "{text} It was "}, "prompt must not end with a space"),
        ({"source": None}, "source must be an ExampleSource, got None"),
    ],
)
def test_a_wrong_value_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_of("sst2", **change)


# Splits.


def test_splits_have_their_sizes_and_share_no_example(task: ClassificationTask) -> None:
    splits = {name: texts(task.examples(name)) for name in ("train", "dev", "test")}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 20,
        "dev": 10,
        "test": 10,
    }
    assert len(set().union(*splits.values())) == 40


def test_train_and_dev_come_from_train_and_test_from_val(task: ClassificationTask) -> None:
    assert all(text.startswith("train ") for text in texts(task.examples("train")))
    assert all(text.startswith("train ") for text in texts(task.examples("dev")))
    assert all(text.startswith("dev ") for text in texts(task.examples("test")))


def test_the_draw_depends_on_the_data_seed_alone(task: ClassificationTask, data_dir: Path) -> None:
    other = dataclasses.replace(task, data_seed=1)
    assert task.examples("train") == task.examples("train")
    assert set(texts(task.examples("train"))) != set(texts(other.examples("train")))
    lines = (data_dir / "stsa.binary.train").read_text().splitlines()
    before = task.examples("train")
    (data_dir / "stsa.binary.train").write_text("\n".join(reversed(lines)) + "\n")
    assert task.examples("train") == before


def test_fewer_training_examples_are_the_first_of_more_and_leave_dev_alone(
    task: ClassificationTask,
) -> None:
    fewer = dataclasses.replace(task, num_train=5)
    assert fewer.examples("train") == task.examples("train")[:5]
    assert fewer.examples("dev") == task.examples("dev")


def test_the_draw_is_the_one_that_earlier_results_were_made_with(task: ClassificationTask) -> None:
    assert texts(task.examples("train"))[:3] == [
        "train sentence 12",
        "train sentence 33",
        "train sentence 39",
    ]


def test_more_examples_than_there_are_is_refused_with_the_numbers(
    task: ClassificationTask,
) -> None:
    with pytest.raises(
        ValueError, match=r"num_train \+ num_dev must not exceed the 40 .*of sst2, got 50"
    ):
        dataclasses.replace(task, num_train=40).examples("train")
    with pytest.raises(ValueError, match=r"num_test must not exceed the 10 .*got 11"):
        dataclasses.replace(task, num_test=11).examples("test")


def test_a_split_of_size_zero_or_of_another_name_is_refused(task: ClassificationTask) -> None:
    with pytest.raises(ValueError, match="num_dev must be at least 1"):
        dataclasses.replace(task, num_dev=0).examples("dev")
    with pytest.raises(ValueError, match="split must be one of train, dev, test, got 'val'"):
        task.examples("val")


# Files.


def test_only_the_files_that_a_run_needs_must_exist(
    task: ClassificationTask, data_dir: Path
) -> None:
    (data_dir / "stsa.binary.train").unlink()
    (data_dir / "stsa.binary.test").unlink()
    task.check_available(["test"])
    dataclasses.replace(task, num_train=0, num_dev=0).check_available()
    assert len(task.examples("test")) == 10
    with pytest.raises(ValueError, match=r"task\.data_dir: no stsa\.binary\.train or train\.tsv"):
        task.check_available()


def test_files_of_glue_are_read_by_their_columns(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text('sentence\tlabel\na "good" film \t1\r\nso dull\t0\n')
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nfine\u2028and warm\t1\n")
    assert SST2.read(str(tmp_path), "train") == [
        Example({"text": 'a "good" film'}, 1),
        Example({"text": "so dull"}, 0),
    ]
    assert SST2.read(str(tmp_path), "val") == [Example({"text": "fine\u2028and warm"}, 1)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("stsa.binary.train", "1 good\n2 bad\n", r"train, line 2: expected the label 0 or 1"),
        ("stsa.binary.train", "1 good\n0 \n", r"train, line 2: expected a sentence, got none"),
        ("stsa.binary.train", "", "train: expected labelled examples, got an empty file"),
        ("stsa.binary.train", "1 caf\xe9\n", "train: expected UTF-8 text"),
        ("train.tsv", "sentence\tlabel\n", "tsv: expected labelled examples, got an empty file"),
        ("train.tsv", "index\tsentence\n0\tgood\n", r"tsv, line 1: expected the columns"),
        ("train.tsv", "sentence\tlabel\ngood\n", r"tsv, line 2: expected sentence and label"),
        ("train.tsv", "sentence\tlabel\ngood\t-1\n", r"tsv, line 2: expected the label 0 or 1"),
    ],
)
def test_a_wrong_line_is_refused_with_file_line_and_rule(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        SST2.read(str(tmp_path), "train")


def test_a_fingerprint_of_local_files_is_one_of_their_content(
    task: ClassificationTask, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = task.fingerprint()
    copy = tmp_path_factory.mktemp("copy")
    for file in data_dir.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert dataclasses.replace(task, data_dir=str(copy)).fingerprint() == before
    (copy / "stsa.binary.test").unlink()
    assert dataclasses.replace(task, data_dir=str(copy)).fingerprint() == before
    with (copy / "stsa.binary.dev").open("a") as dev:
        dev.write("1 one more\n")
    assert dataclasses.replace(task, data_dir=str(copy)).fingerprint() != before
    with pytest.raises(ValueError, match=r"task\.data_dir: no stsa\.binary\.train"):
        SST2.fingerprint(str(data_dir / "absent"))


# Movie reviews.


@pytest.fixture
def movie_dir(tmp_path: Path) -> Path:
    ratings = [2.0, -0.4, 0.5, -3.25, 0.0]
    lines = [f"{i}\t{ratings[i % 5]}\tsnippet {i}, “quoted”" for i in range(100)]
    (tmp_path / MOVIE_FILE).write_bytes("\r\n".join(lines).encode())
    return tmp_path


def test_a_label_is_the_sign_of_a_rating_far_enough_from_zero(movie_dir: Path) -> None:
    source = MovieReviewSnippets(min_abs_rating=0.5)
    pools = {pool: source.read(str(movie_dir), pool) for pool in ("train", "val")}
    together = [*pools["train"], *pools["val"]]
    assert len(together) == len(set(texts(together))) == 60
    assert 0 < len(pools["val"]) < len(pools["train"])
    for example in together:
        number = int(example.fields["text"].split()[1].rstrip(","))
        assert example.label == (number % 5 != 3)
        assert example.fields["text"].endswith("“quoted”")


def test_a_lower_threshold_moves_no_sentence_to_the_other_pool(movie_dir: Path) -> None:
    for pool in ("train", "val"):
        near, far = (
            set(texts(MovieReviewSnippets(t).read(str(movie_dir), pool))) for t in (0.1, 0.5)
        )
        assert far < near


def test_a_local_copy_of_the_reviews_is_identified_by_its_content(movie_dir: Path) -> None:
    content = (movie_dir / MOVIE_FILE).read_bytes()
    source = MovieReviewSnippets()
    assert source.fingerprint(str(movie_dir)) == hashlib.sha256(content).hexdigest()
    assert source.fingerprint(None).startswith("c8293b0d")
    source.check_available(str(movie_dir), "train")
    with pytest.raises(ValueError, match=rf"task\.data_dir: no {MOVIE_FILE}"):
        source.check_available(str(movie_dir / "absent"), "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\tgood", "line 1: expected id, rating and text"),
        ("1\tgood\ttext", r"line 1: expected a rating in \[−4, 4\], got 'good'"),
        ("1\tnan\ttext", r"line 1: expected a rating in \[−4, 4\], got 'nan'"),
        ("1\t5\ttext", r"line 1: expected a rating in \[−4, 4\], got '5'"),
        ("1\t2\t ", "line 1: expected a sentence, got none"),
    ],
)
def test_a_wrong_review_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / MOVIE_FILE).write_text(line)
    with pytest.raises(ValueError, match=message):
        MovieReviewSnippets().read(str(tmp_path), "train")


@pytest.mark.parametrize("threshold", [0.0, -1.0, 4.5, float("nan")])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="min_abs_rating must lie in"):
        MovieReviewSnippets(threshold)


# The hub, which the tests cannot reach.


def test_data_that_are_nowhere_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    task = task_of("sst2")
    for ask in (task.check_available, lambda: task.examples("train")):
        with pytest.raises(ValueError, match=r"nyu-mll/glue at bcdcba79 is not.*task\.data_dir"):
            ask()


def test_data_of_the_hub_are_read_at_their_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load_dataset(*names: str, **options: str) -> list[dict[str, Any]]:
        asked.append((*names, options))
        return [{"sentence": "so good ", "label": 1}, {"sentence": "so bad ", "label": 0}]

    (tmp_path / "nyu-mll___glue" / "sst2" / "0.0.0" / COMMIT).mkdir(parents=True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    SST2.check_available(None, "val")
    assert SST2.read(None, "val") == [
        Example({"text": "so good"}, 1),
        Example({"text": "so bad"}, 0),
    ]
    assert asked == [("nyu-mll/glue", "sst2", {"split": "validation", "revision": COMMIT})]
    assert SST2.fingerprint(None) == f"nyu-mll/glue/sst2@{COMMIT}"


def test_without_the_package_datasets_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install datasets.*task\.data_dir"):
        SST2.check_available(None, "train")


def test_a_revision_that_can_move_is_refused() -> None:
    with pytest.raises(ValueError, match="revision must be a full commit"):
        Sst2(hub_id="nyu-mll/glue", revision="main")


# The real SST-2.


@pytest.fixture
def sst2_dir(shared_data: Path) -> str:
    folder = shared_data / "SST-2"
    if not (folder / "stsa.binary.train").is_file():
        pytest.skip(f"no SST-2 in {shared_data}")
    return str(folder)


def test_the_real_sst2_has_its_published_sizes_and_fills_the_shipped_task(sst2_dir: str) -> None:
    assert len(SST2.read(sst2_dir, "train")) == 6920
    assert len(SST2.read(sst2_dir, "val")) == 872
    task = task_of("sst2", data_dir=sst2_dir)
    splits = {name: texts(task.examples(name)) for name in ("train", "dev", "test")}
    assert [len(split) for split in splits.values()] == [1000, 500, 872]
    assert not set(splits["train"]) & set(splits["dev"])
    assert not set(splits["train"]) & set(splits["test"])


def test_the_real_sst2_is_balanced_in_every_split(sst2_dir: str) -> None:
    task = task_of("sst2", data_dir=sst2_dir)
    for split in ("train", "dev", "test"):
        labels = [example.label for example in task.examples(split)]
        assert 0.45 < sum(labels) / len(labels) < 0.56
