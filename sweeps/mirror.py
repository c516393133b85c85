"""A copy of the records elsewhere: any URI that pyarrow or fsspec knows.

    URI/NAME/plan.json  events.jsonl  trials/TRIAL_ID/…

A trial is copied when it ends, or when the driver leaves it interrupted. Its trial.json comes last,
so that a trial folder without one is a copy that was cut off, and is not fetched.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from kerzoo.records import ENDED, TrialFolder
from sweeps.compose import ConfigError
from sweeps.observers import Observer
from sweeps.plan import Plan

LAST = "trial.json"


class Mirror(Observer):
    """Copies a sweep's records to a URI.

    Args:
        uri: Of the folder in which results folders are mirrored.
        folder: The results folder.
    """

    label = "the mirror"
    close_timeout_s = 600.0

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.folder = folder
        self._waiting: set[str] = set()

    def changed(self, trial: str) -> None:
        """Copy the trial if it has ended; otherwise at the end."""
        self._waiting.add(trial)
        if TrialFolder(self.folder / "trials" / trial).status in ENDED:
            self._copy(trial)

    def close(self) -> None:
        """Copy what waits, and the sweep's own files."""
        for trial in sorted(self._waiting):
            self._copy(trial)
        system, root = open_uri(self.uri)
        for name in ("plan.json", "events.jsonl"):
            if (self.folder / name).exists():
                _send(system, self.folder / name, f"{root}/{self.folder.name}/{name}")

    def _copy(self, trial: str) -> None:
        system, root = open_uri(self.uri)
        source = self.folder / "trials" / trial
        files = [path for path in source.rglob("*") if path.is_file() and path.name[0] != "."]
        for path in sorted(files, key=lambda path: (path.name == LAST, path)):
            relative = path.relative_to(source).as_posix()
            _send(system, path, f"{root}/{self.folder.name}/trials/{trial}/{relative}")
        self._waiting.discard(trial)


def fetch_missing(plan: Plan) -> int:
    """Fetch the plan's trials that the mirror has and this machine has not.

    Returns:
        How many were fetched.

    Raises:
        ConfigError: If the mirror cannot be read.
    """
    if plan.sweep.mirror is None:
        return 0
    system, root = open_uri(plan.sweep.mirror)
    fetched = 0
    for spec in plan.specs:
        target = plan.trial_folder(spec.trial_id).path
        if (target / LAST).exists():
            continue
        try:
            fetched += _fetch(system, f"{root}/{plan.folder.name}/trials/{spec.trial_id}", target)
        except OSError as error:
            raise ConfigError(f"mirror: cannot read {plan.sweep.mirror}: {error}") from error
    return fetched


def open_uri(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path on it.

    Raises:
        ConfigError: If the URI means nothing here.
    """
    from pyarrow import fs

    try:
        system, root = fs.FileSystem.from_uri(os.path.abspath(uri) if "://" not in uri else uri)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"mirror: {uri!r} is no folder that can be opened: {error}") from error
    return system, root.rstrip("/")


def _send(system: Any, source: Path, target: str) -> None:
    system.create_dir(target.rpartition("/")[0], recursive=True)
    with source.open("rb") as file, system.open_output_stream(target) as stream:
        shutil.copyfileobj(file, stream)


def _fetch(system: Any, source: str, target: Path) -> bool:
    from pyarrow import fs

    entries = system.get_file_info(fs.FileSelector(source, allow_not_found=True, recursive=True))
    files = {entry.path: entry for entry in entries if entry.is_file}
    if not any(path.endswith(f"/{LAST}") for path in files):
        return False
    temporary = target.with_name(f".fetching-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    for path in files:
        local = temporary / path.partition(f"/{target.name}/")[2]
        local.parent.mkdir(parents=True, exist_ok=True)
        with system.open_input_stream(path) as stream, local.open("wb") as file:
            shutil.copyfileobj(stream, file)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    return True
