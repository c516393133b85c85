"""Public file formats as rows: JSON lines, tables with tabs or commas, JSON, plain lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Located = tuple[str, Mapping[str, Any]]
"""Where a row stands, for error messages, and its values by column."""


def find_file(data_dir: str, *names: str, has_source: bool = True) -> Path:
    """The first of some files that the folder has.

    Args:
        data_dir: The folder.
        names: Of the files.
        has_source: Whether the data can be had from elsewhere as well.

    Raises:
        ValueError: If it has none of them.
    """
    folder, listed = Path(data_dir).expanduser(), " or ".join(names)
    for name in names:
        if (path := folder / name).is_file():
            return path
    if folder.is_file():
        needed = "" if folder.name in names else f", which must have {listed}"
        raise ValueError(
            f"task.data_dir: {data_dir} is a file; name its folder, {Path(data_dir).parent}{needed}"
        )
    missing = "" if folder.is_dir() else ", which is no folder"
    otherwise = ", or leave task.data_dir=null to load the data from their source"
    raise ValueError(
        f"task.data_dir: no {listed} in {data_dir}{missing}; name a folder that has it"
        + (otherwise if has_source else "")
    )


def read_text(path: Path, encoding: str = "utf-8-sig") -> str:
    """A file's content; a byte order mark is left out.

    Raises:
        ValueError: If it is empty or of another encoding.
    """
    try:
        text = path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got {error}") from error
    if not text.strip():
        raise ValueError(f"{path}: expected labelled examples, got an empty file")
    return text


def split_lines(text: str) -> list[str]:
    """Lines without their ends; other Unicode line breaks are part of a line."""
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def read_lines(path: Path, encoding: str = "utf-8-sig") -> Iterator[tuple[str, str]]:
    """The lines of a plain text file, each with where it stands."""
    for number, line in enumerate(split_lines(read_text(path, encoding)), start=1):
        yield f"{path}, line {number}", line


def read_jsonl(path: Path) -> Iterator[Located]:
    """One JSON object in each line.

    Raises:
        ValueError: For a line that is none.
    """
    for where, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: expected a JSON object, got {line[:60]!r}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object, got {line[:60]!r}")
        yield where, row


def read_json(path: Path) -> Any:
    """A whole JSON document.

    Raises:
        ValueError: If it is none.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: expected JSON, got {error.msg}") from error


def read_tsv(path: Path, columns: Sequence[Sequence[str]]) -> Iterator[Located]:
    """A table with a header and tabs; quotation marks have no meaning, as in GLUE.

    Args:
        path: The file.
        columns: What is looked for, each by the names it may have.

    Raises:
        ValueError: For a header without them, or a line with another number of columns.
    """
    first, *lines = split_lines(read_text(path))
    header = first.split("\t")
    _check_header(path, header, columns)
    if not any(lines):
        raise ValueError(f"{path}: expected labelled examples, got an empty file")
    for number, line in enumerate(lines, start=2):
        yield _row(f"{path}, line {number}", header, line.split("\t"), "tabs")


def read_csv(
    path: Path, columns: Sequence[Sequence[str]], header: Sequence[str] | None = None
) -> Iterator[Located]:
    """A table with commas, texts quoted where need be.

    Args:
        path: The file.
        columns: What is looked for, each by the names it may have.
        header: Names of the columns where the file itself has no header.

    Raises:
        ValueError: For a header without them, a line with another number of columns, or wrong
            quotation marks.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    num_rows = 0
    try:
        if header is None:
            header = next(reader)
            _check_header(path, header, columns)
        for values in reader:
            num_rows += 1
            yield _row(f"{path}, line {reader.line_num}", header, values, "commas")
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    if not num_rows:
        raise ValueError(f"{path}: expected labelled examples, got an empty file")


def _row(where: str, header: Sequence[str], values: Sequence[str], between: str) -> Located:
    if len(values) != len(header):
        names = " and ".join(header) if len(header) < 4 else f"{len(header)} columns"
        raise ValueError(
            f"{where}: expected {names} with {between} between, got {len(values)} column"
            f"{'' if len(values) == 1 else 's'}"
        )
    return where, dict(zip(header, values, strict=True))


def _check_header(path: Path, header: Sequence[str], columns: Sequence[Sequence[str]]) -> None:
    if not all(set(names) & set(header) for names in columns):
        expected = ", ".join(" or ".join(names) for names in columns)
        raise ValueError(
            f"{path}, line 1: expected the columns {expected}; got {', '.join(header)[:200]}"
        )
