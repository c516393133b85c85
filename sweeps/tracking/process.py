"""W&B in a process of its own, which outlives the driver's last word and can be given up."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

from sweeps.observers import Observer, Warn


class WandbProcess(Observer):
    """`python -m sweeps.sync FOLDER --follow`, told the names of trials on its standard input.

    The end of the input is the end of the sweep, also where the driver was killed: the process
    then sends what is on disk, and exits. It is no part of the terminal's process group, so that
    Ctrl-C does not reach it.

    Args:
        folder: The results folder.
        patience_s: How long the end of a sweep waits before it gives the process up.
    """

    label = "W&B"

    def __init__(self, folder: Path, patience_s: float = 60.0) -> None:
        self.folder = folder
        self.patience_s = patience_s
        self.close_timeout_s = patience_s + 10.0
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def open(self, warn: Warn) -> None:
        """Start the process."""
        self._warn = warn
        (self.folder / "wandb").mkdir(parents=True, exist_ok=True)
        with (self.folder / "wandb" / "tracking.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.sync", str(self.folder), "--follow"],
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._pass_on_warnings, daemon=True)
        self._reader.start()

    def changed(self, trial: str) -> None:
        """Pass the trial's name on."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{trial}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Let it finish, or give it up."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._reader is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        later = f"`python -m sweeps.sync {self.folder}` sends the rest later"
        try:
            code = self._process.wait(self.patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._warn(f"W&B did not finish in time; {later}")
        else:
            if code:
                self._warn(f"W&B ended with code {code} (wandb/tracking.log); {later}")
        self._reader.join(5.0)

    def _pass_on_warnings(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._warn(line.rstrip())
