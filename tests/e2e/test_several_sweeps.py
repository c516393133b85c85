"""Sweeps beside each other, after each other, elsewhere, and beside what a dead one left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest
from sweep_process import (
    ROOT,
    SweepProcess,
    numbers_of,
    running_mid_trial,
    settings,
    statuses,
    trials_of,
)

from kerzoo.records import ENDED
from sweeps.plan import make_plan

pytestmark = pytest.mark.slow

SECRETS = {
    "WANDB_API_KEY": "5ec2e7aa" * 5,
    "HF_TOKEN": "hf_5ec2e7bb",
    "AWS_SECRET_ACCESS_KEY": "5ec2e7cc/5ec2e7cc",
    "KERZOO_HOOK": "",  # the webhook's address
    "KERZOO_COMMAND": "cat > /dev/null # 5ec2e7dd",
}


def stop_between_two_writes(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Freeze a process while it trains, without a lock in its hands; returns the trial."""
    frozen = psutil.Process(process.pid)
    while process.poll() is None:
        frozen.suspend()
        for trial in running_mid_trial(folder):
            lock = trials_of(folder)[trial].path / ".lock"
            with contextlib.suppress(filelock.Timeout), filelock.FileLock(lock, timeout=0):
                return trial
        frozen.resume()
        time.sleep(0.05)
    raise AssertionError(process.returncode)


def files_of(folder: Path) -> dict[str, bytes]:
    """What lies in a trial's folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_old_worker_that_wakes_adds_nothing_and_a_moved_copy_goes_on_beside(
    results: Path, undisturbed: tuple[Path, str], tmp_path: Path
) -> None:
    """Two sweeps at once: one where the old worker was, and its copy, whose data moved as well."""
    options = ("name=orphaned", "scheduler=fifo", "tracking=none", "cluster.num_cpus=1")
    folder, copied = results / "orphaned", tmp_path / "orphaned"
    plan = make_plan(settings(results, *options), "test")
    plan.write()
    command = [sys.executable, "-m", "kerzoo.training", str(folder / "plan.json")]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=ROOT, **pipe) as old:
        try:
            trial = stop_between_two_writes(old, folder)
            shutil.copytree(folder, copied)
            with (
                SweepProcess(results / "orphaned.log", settings(results, *options)) as here,
                SweepProcess(tmp_path / "copied.log", settings(tmp_path, *options)) as there,
            ):
                here.wait_until(lambda: bool(here.workers() and there.workers()))
                assert here.listening() == there.listening() == {"127.0.0.1"}
                assert [here.wait(), there.wait()] == [0, 0], here.output() + there.output()
            where = trials_of(folder)[trial]
            before = files_of(where.path)
            assert psutil.Process(old.pid).status() == psutil.STATUS_STOPPED
        finally:
            psutil.Process(old.pid).resume()
        said = old.communicate(timeout=120)[0].decode()
    assert f"attempt 1 of trial {trial} was overtaken by attempt 2" in said
    assert files_of(where.path) == before
    for place in (folder, copied):
        assert set(statuses(place).values()) == {"finished"}
        assert numbers_of(place) == numbers_of(undisturbed[0])
    assert str(tmp_path / "data") in json.dumps(trials_of(copied)[trial].read())


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[bytes]]]:
    """An address with a secret in it, and what was posted there."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hooks/5ec2e7ee", bodies
        server.shutdown()


def files_that_name(secrets: list[str], *folders: Path) -> list[tuple[Path, str]]:
    """Files in which one of some texts stands."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [(p, text) for p in paths for text in secrets if text.encode() in p.read_bytes()]


def test_two_sweeps_in_one_process_end_and_leave_no_secret_anywhere(
    results: Path, undisturbed: tuple[Path, str], webhook: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    code = "import json, sweep, sys; print([sweep.main(c) for c in json.load(sys.stdin)])"
    space = "space={arm:[mezo],training.perturbation_scale:[1e-2],training.learning_rate:[1e-2]}"
    common = [space, "scheduler=fifo", "notify.webhook=KERZOO_HOOK"]
    commands = [
        settings(tmp_path, "name=one", *common, "notify.command=KERZOO_COMMAND"),
        settings(tmp_path, "name=two", *common, "tracking=tensorboard"),
    ]
    secrets = SECRETS | {"KERZOO_HOOK": webhook[0]}
    with tempfile.TemporaryDirectory(prefix="kz") as logs:  # short: sockets lie in it
        ended = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(commands),
            cwd=ROOT,
            env=os.environ | secrets | {"RAY_TMPDIR": logs, "WANDB_MODE": "offline"},
            capture_output=True,
            text=True,
        )
        assert ended.stdout.endswith("[0, 0]\n"), ended
        hidden = [*secrets.values(), "5ec2e7"]
        assert list(Path(logs).rglob("raylet.out"))
        assert files_that_name(hidden, tmp_path, Path(logs)) == []
    assert not any(text in ended.stdout + ended.stderr for text in hidden)
    assert [b"ended, 1/1 trials" in body for body in webhook[1]] == [True, True]
    for name in ("one", "two"):
        assert set(statuses(tmp_path / name).values()) <= ENDED
        (trial, rows), *others = numbers_of(tmp_path / name).items()
        assert others == []
        assert rows == numbers_of(undisturbed[0])[trial]
