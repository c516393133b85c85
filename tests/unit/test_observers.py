"""Observers: told in order, never waited for; and the small ones among them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from kerzoo.records import TrialSpec
from sweeps.compose import ConfigError, compose
from sweeps.events import EventLog, read_events
from sweeps.logs import logged_to
from sweeps.mirror import Mirror, fetch_missing
from sweeps.notify import Notifier
from sweeps.observers import Observer, Observers
from sweeps.plan import Plan, make_plan
from sweeps.schema import NotifyOptions
from sweeps.tracking.tensorboard import TensorBoard


class Recorder(Observer):
    """Keeps what it is told, slowly or not at all."""

    label = "the recorder"

    def __init__(self, delay_s: float = 0.0, breaks: bool = False) -> None:
        self.delay_s = delay_s
        self.breaks = breaks
        self.told: list[str] = []

    def changed(self, trial: str) -> None:
        time.sleep(self.delay_s)
        if self.breaks:
            raise RuntimeError("no such host")
        self.told.append(trial)

    def event(self, entry: dict[str, Any]) -> None:
        self.told.append(entry["event"])

    def close(self) -> None:
        self.told.append("close")


def plan_of(folder: Path, *overrides: str) -> Plan:
    base = ["+sweep=quickstart", "model=opt-tiny", "arm=mezo", "training.learning_rate=1e-2"]
    plan = make_plan([*base, f"results_dir={folder}", *overrides], "test")
    plan.write()
    return plan


def append_rows(plan: Plan, spec: TrialSpec, *passes: int) -> None:
    writer = plan.trial_folder(spec.trial_id).begin_attempt()
    for count in passes:
        writer.append_row({"step": count, "rung": count, "forward_passes": count, "dev_loss": 0.5})


def test_observers_hear_all_in_order_and_the_log_has_the_events(tmp_path: Path) -> None:
    recorder = Recorder()
    observers = Observers(EventLog(tmp_path / "events.jsonl"), [recorder], pytest.fail)
    observers.event("started", pid=1)
    observers.changed("one")
    observers.event("ended")
    observers.close()
    assert recorder.told == ["started", "one", "ended", "close"]
    events = read_events(tmp_path / "events.jsonl")
    assert [(entry["event"], entry.get("pid")) for entry in events] == [
        ("started", 1),
        ("ended", None),
    ]


def test_a_slow_observer_delays_nobody_and_a_broken_one_is_said_once(tmp_path: Path) -> None:
    told: list[str] = []
    slow, broken, sound = Recorder(delay_s=0.2), Recorder(breaks=True), Recorder()
    observers = Observers(EventLog(tmp_path / "log"), [slow, broken, sound], told.append)
    start = time.monotonic()
    for trial in "abc":
        observers.changed(trial)
    assert time.monotonic() - start < 0.1
    observers.close()
    assert slow.told == sound.told == ["a", "b", "c", "close"]
    assert told == [
        "the recorder failed and is switched off for this run: no such host",
    ]


def test_an_event_that_was_torn_by_a_crash_is_left_out(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("started")
    with log.path.open("a") as file:
        file.write('{"event": "dec')
    assert [entry["event"] for entry in read_events(log.path)] == ["started"]


def test_a_trials_log_has_what_it_prints_logs_and_raises(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    with logged_to(path, "a node"):
        print("first attempt")
    with contextlib.suppress(ZeroDivisionError), logged_to(path, "a node"):
        print("second attempt")
        _ = 1 / 0
    text = path.read_text()
    assert text.count("--- begun") == text.count("--- left") == 2
    assert text.index("first attempt") < text.index("second attempt") < text.index("ZeroDivision")


@pytest.fixture
def posted() -> Any:
    """A webhook on the loopback: its URL, and what was posted to it."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(403 if "refuse" in self.path else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/secret-path", bodies
    server.shutdown()
    server.server_close()
    thread.join()


def notify(options: NotifyOptions, *events: dict[str, Any]) -> list[str]:
    told: list[str] = []
    notifier = Notifier(options, "sweep")
    notifier.open(told.append)
    for event in events:
        notifier.event(event)
    notifier.close()
    return told


ENDED = {"event": "ended", "trials": 4, "left": 0, "failed": 1}
FAILURE = {"event": "failure", "trial_id": "a", "message": "no memory"}


def test_a_webhook_and_a_command_hear_of_the_end_and_of_trouble(
    tmp_path: Path, posted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, bodies = posted
    monkeypatch.setenv("HOOK", url)
    monkeypatch.setenv("TELL", f"cat >> {tmp_path}/said; echo >> {tmp_path}/said")
    budget = {"event": "warning", "message": "80 % of the GPU hours are used"}
    quiet = {"event": "decision", "decision": "stop"}
    told = notify(NotifyOptions("HOOK", "TELL"), quiet, FAILURE, FAILURE, FAILURE, budget, ENDED)
    messages = [
        "sweep: 3 trials failed; the last: no memory",
        "sweep: warning: 80 % of the GPU hours are used",
        "sweep: ended, 4/4 trials, 1 failed",
    ]
    assert [body["text"] for body in bodies] == messages
    assert (tmp_path / "said").read_text().splitlines() == messages
    assert told == []


def test_a_message_that_cannot_be_sent_is_said_without_the_address(
    posted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", posted[0] + "-refuse")
    monkeypatch.setenv("TELL", "exit 3")
    told = notify(NotifyOptions("HOOK", "TELL"), ENDED)
    assert [message.rpartition(": ")[2] for message in told] == ["403", "CalledProcessError"]
    assert not any("secret-path" in message for message in told)
    (unset,) = notify(NotifyOptions("HOOK_THAT_IS_NOT_SET"))
    assert "HOOK_THAT_IS_NOT_SET is not set" in unset


@pytest.mark.parametrize("key", ["webhook", "command"])
def test_an_address_or_a_command_is_refused_where_a_variables_name_belongs(key: str) -> None:
    composed = compose(["+sweep=quickstart", f"notify.{key}='https://hooks.example/secret'"])
    with pytest.raises(ConfigError, match=f"notify.{key} must be the name") as refused:
        _ = composed.sweep
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("kind", ["path", "file", "fsspec"])
def test_a_mirrored_trial_is_fetched_where_it_is_missing(tmp_path: Path, kind: str) -> None:
    where = tmp_path / "elsewhere"
    uri = {"path": str(where), "file": where.as_uri(), "fsspec": "fsspec+memory://sweeps"}[kind]
    here = plan_of(tmp_path / "here", f"mirror='{uri}'")
    here.create_trials()
    ended, cut_off = here.specs[:2]
    append_rows(here, ended, 0, 36)
    append_rows(here, cut_off, 0)
    here.trial_folder(ended.trial_id).update(status="finished")
    mirror = Mirror(uri, here.folder)
    mirror.changed(ended.trial_id)
    mirror.changed(cut_off.trial_id)
    mirror.close()
    there = plan_of(tmp_path / "there", f"mirror='{uri}'")
    there.create_trials()
    for spec in there.specs[:2]:
        folder = there.trial_folder(spec.trial_id).path
        (folder / "trial.json").unlink()
    assert fetch_missing(there) == 2
    assert fetch_missing(there) == 0
    for spec in (ended, cut_off):
        one, other = (plan.trial_folder(spec.trial_id) for plan in (here, there))
        assert one.rows() == other.rows()
        assert one.read() == other.read()


def test_a_mirror_that_means_nothing_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "mirror='nonsense://bucket'")
    with pytest.raises(ConfigError, match="mirror: 'nonsense://bucket' is no folder"):
        fetch_missing(plan)


def points_of(folder: Path) -> list[tuple[str, int]]:
    """Tag and step of each scalar in TensorBoard's files, which are length-prefixed records."""
    points = []
    for path in folder.glob("events.*"):
        content, position = path.read_bytes(), 0
        while position < len(content):
            length = int.from_bytes(content[position : position + 8], "little")
            event = event_pb2.Event.FromString(content[position + 12 : position + 12 + length])
            points += [(value.tag, event.step) for value in event.summary.value]
            position += 12 + length + 4
    return points


def test_tensorboard_has_each_point_once_after_a_restart(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    plan.create_trials()
    spec = plan.specs[0]
    for passes, status in (((0, 36), "interrupted"), ((72,), "finished")):
        append_rows(plan, spec, *passes)
        plan.trial_folder(spec.trial_id).update(status=status)
        board = TensorBoard(plan.folder)
        board.changed(spec.trial_id)
        board.close()
    losses = [
        p for tag, p in points_of(plan.folder / "tensorboard" / spec.trial_id) if tag == "dev_loss"
    ]
    assert sorted(losses) == [0, 36, 72]
