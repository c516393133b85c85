"""Sources whose examples are rows of public files or of a data set on the hub."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from kerzoo.assets import sha256_of_file
from kerzoo.hub import check_commit, check_served
from kerzoo.tasks.sources.base import POOLS, Example, ExampleSource, Pool, SkippedRow
from kerzoo.tasks.sources.formats import (
    Located,
    find_file,
    read_csv,
    read_json,
    read_jsonl,
    read_lines,
    read_tsv,
)

SUPERGLUE_FILES = {"train": ("train.jsonl",), "val": ("val.jsonl",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowSource(ExampleSource):
    """Rows of a folder's public files or of a data set on the hub, each an example.

    A leaf names the files, splits and columns, and turns a row into an example. Texts are kept
    as published but for space in front of a prompt's first text: the protocol's prompts hold
    what the data hold. Files without labels are not among a leaf's files and never read.

    Args:
        hub_id: Data set on the hub, or null if there is none.
        revision: Its commit. One whose data load without a script: parquet, CSV or JSON.
        config: Its configuration.

    Raises:
        ValueError: For a revision that is not a full commit, or one without the other.
    """

    hub_id: str | None = None
    revision: str | None = None
    config: str = "default"

    files: ClassVar[Mapping[str, tuple[str, ...]]] = SUPERGLUE_FILES
    splits: ClassVar[Mapping[str, str]] = {"train": "train", "val": "validation"}
    columns: ClassVar[Mapping[str, tuple[str, ...]]]
    header: ClassVar[tuple[str, ...] | None] = None
    """Columns of a `.csv` file, where the public one has no header."""
    encoding: ClassVar[str] = "utf-8-sig"
    """Of a file that is read line by line."""

    def __post_init__(self) -> None:
        if (self.hub_id is None) != (self.revision is None):
            raise ValueError(
                "hub_id and revision must be given together, "
                f"got {self.hub_id!r} and {self.revision!r}"
            )
        if self.revision is not None:
            check_commit(self.revision)

    @abc.abstractmethod
    def example(self, row: Mapping[str, Any]) -> Example:
        """The example of a row.

        Args:
            row: Values by the keys of `columns`, whatever the format calls them.

        Raises:
            ValueError: Naming what was expected.
            SkippedRow: If the data set's own rules make it no example.
        """

    def unnest(self, raw: Mapping[str, Any], pool: str) -> Iterable[Located]:
        """The rows of a file's or the hub's entry: itself, unless the format nests them.

        Args:
            raw: The entry as read.
            pool: "train" or "val".

        Returns:
            Pairs of where in the entry (", question 2", or nothing) and the row.
        """
        return [("", raw)]

    def entries(self, document: Any) -> Iterable[Located]:
        """The entries of a `.json` file's document, each with where it stands."""
        raise NotImplementedError

    def parse_line(self, line: str) -> Mapping[str, Any]:
        """The row of a line in a file of no general format."""
        raise NotImplementedError

    def file_names(self, pool: str) -> tuple[str, ...]:
        """The pool's file; the first of these that the folder has."""
        return self.files[pool]

    def split_name(self, pool: str) -> str:
        """The hub's name for the pool."""
        return self.splits[pool]

    def column_names(self) -> Mapping[str, tuple[str, ...]]:
        """Keys of the row that `example` gets, and what the formats call them."""
        return self.columns

    def check_available(self, data_dir: str | None, pool: str) -> None:
        """One of the folder's files, or the data set in the hub's cache or on the hub."""
        if data_dir is not None:
            self._find(data_dir, pool)
        else:
            self._check_hub()

    def has_pool(self, data_dir: str | None, pool: str) -> bool:
        """The hub has both; of a folder, whether one of the pool's files is there."""
        if data_dir is None:
            return True
        folder = Path(data_dir).expanduser()
        return any((folder / name).is_file() for name in self.file_names(pool))

    def fingerprint(self, data_dir: str | None) -> str:
        """Hub id, configuration and revision, or SHA-256 over the folder's files."""
        if data_dir is None:
            if self.hub_id is None:
                raise ValueError(f"the task has no hub_id; {self._instead}")
            return f"{self.hub_id}/{self.config}@{self.revision}"
        digests = [
            sha256_of_file(self._find(data_dir, pool))
            for pool in POOLS
            if self.has_pool(data_dir, pool)
        ]
        if not digests:
            self._find(data_dir, "train")
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def read_pool(self, data_dir: str | None, pool: str) -> Pool:
        """An example of each row that is one."""
        examples: list[Example] = []
        skipped: Counter[str] = Counter()
        where = ""
        for where, row in self._rows(data_dir, pool):
            try:
                examples.append(self.example(self._unify(row)))
            except SkippedRow as row_skipped:
                skipped[row_skipped.reason] += 1
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        if not examples:
            raise ValueError(
                f"{where or data_dir or self.hub_id}: expected labelled examples, got none in "
                f"the {pool} data (skipped: {dict(skipped)})"
            )
        return Pool(examples, dict(skipped))

    def _find(self, data_dir: str, pool: str) -> Path:
        names, has_source = self.file_names(pool), self.hub_id is not None
        return find_file(data_dir, *names, has_source=has_source)

    def _rows(self, data_dir: str | None, pool: str) -> Iterator[Located]:
        raw_rows = self._load(pool) if data_dir is None else self._open(data_dir, pool)
        for where, raw in raw_rows:
            try:
                parts = list(self.unnest(raw, pool))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            yield from ((f"{where}{part}", row) for part, row in parts)

    def _open(self, data_dir: str, pool: str) -> Iterable[Located]:
        path = self._find(data_dir, pool)
        columns = list(self.column_names().values())
        match path.suffix:
            case ".jsonl":
                return read_jsonl(path)
            case ".tsv":
                return read_tsv(path, columns)
            case ".csv":
                return read_csv(path, columns, self.header)
            case ".json":
                return self._parse_document(path)
        return self._parse_lines(path)

    def _parse_document(self, path: Path) -> Iterator[Located]:
        document = read_json(path)
        try:
            entries = list(self.entries(document))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if not entries:
            raise ValueError(f"{path}: expected labelled examples, got an empty file")
        yield from ((f"{path}, {where}", raw) for where, raw in entries)

    def _parse_lines(self, path: Path) -> Iterator[Located]:
        for where, line in read_lines(path, self.encoding):
            try:
                row = self.parse_line(line)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            yield where, row

    def _unify(self, row: Mapping[str, Any]) -> dict[str, Any]:
        unified = {}
        for key, names in self.column_names().items():
            present = [name for name in names if name in row]
            if not present:
                raise ValueError(
                    f"expected the column {' or '.join(names)}, got {', '.join(map(str, row))}"
                )
            unified[key] = row[present[0]]
        return unified

    def _load(self, pool: str) -> Iterator[Located]:
        self._check_hub()  # the loader itself retries for long before it gives up
        datasets = _import_datasets(self._instead)
        split = self.split_name(pool)
        names = [self.hub_id, *([] if self.config == "default" else [self.config])]
        try:
            rows: Any = datasets.load_dataset(*names, split=split, revision=self.revision)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{self.hub_id} could not be loaded from the hub; {self._instead}: {error}"
            ) from error
        for number, row in enumerate(rows):
            yield f"{self.hub_id}, {self.config}, {split}, row {number}", row

    @property
    def _instead(self) -> str:
        train, val = (" or ".join(self.file_names(pool)) for pool in POOLS)
        files = train if train == val else f"{train} (train) and {val} (val)"
        return f"set task.data_dir to a folder with {files}"

    def _check_hub(self) -> None:
        if self.hub_id is None or self.revision is None:
            raise ValueError(f"the task has no hub_id; {self._instead}")
        datasets = _import_datasets(self._instead)
        owner, _, name = self.hub_id.rpartition("/")
        folder = datasets.naming.camelcase_to_snakecase(name)
        folder = f"{owner}___{folder}" if owner else folder
        prepared = Path(datasets.config.HF_DATASETS_CACHE) / folder / self.config
        if not any(prepared.glob(f"*/{self.revision}")):
            check_served(self.hub_id, self.revision, "dataset", ".gitattributes", self._instead)


def _import_datasets(instead: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"the hub's data sets need the package datasets (pip install datasets); {instead}"
        ) from error
    return datasets


def text_of(row: Mapping[str, Any], key: str, *, may_be_empty: bool = False) -> str:
    """A row's text.

    Raises:
        ValueError: If it is none, or holds nothing but space.
    """
    value = row[key]
    article = "an" if key[0] in "aeiou" else "a"
    if not isinstance(value, str):
        raise ValueError(f"expected {article} {key}, got {str(value)[:60]!r}")
    if not value.strip() and not may_be_empty:
        raise ValueError(f"expected {article} {key}, got none")
    return value


def class_of(value: Any, classes: tuple[str, ...], unlabelled: tuple[str, ...] = ()) -> int:
    """Index of a label, which formats write by name or by number.

    Args:
        value: The row's label.
        classes: Names by number.
        unlabelled: What stands where annotators did not agree.

    Raises:
        ValueError: For an unknown label.
        SkippedRow: For one of `unlabelled`.
    """
    text = str(value)
    if text in unlabelled:
        raise SkippedRow("no gold label")
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    raise ValueError(f"expected the label {' or '.join(classes)}, got {text[:60]!r}")


def members_of(entry: Any, key: str) -> list[tuple[int, Any]]:
    """The numbered members of a nested list.

    Raises:
        ValueError: If the entry has no such list.
    """
    members = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(members, list):
        raise ValueError(f"expected a list of {key}, got {str(members)[:60]!r}")
    return list(enumerate(members))


def value_of(entry: Any, key: str) -> Any:
    """A nested value.

    Raises:
        ValueError: If the entry lacks it.
    """
    if not isinstance(entry, Mapping) or key not in entry:
        raise ValueError(f"expected {key}, got {str(entry)[:60]!r}")
    return entry[key]
