"""A message to a person at the end of a sweep, or on trouble."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from typing import Any

from sweeps.observers import Observer, Warn
from sweeps.schema import NotifyOptions

TIMEOUT_S = 30.0
FAILURES_THAT_TROUBLE = 3
"""So many failed trials since the start are worth one message."""


class Notifier(Observer):
    """Posts to a webhook, runs a command, or both.

    Policy: one message when the sweep (each phase and generation of it) ends or is interrupted,
    one at the third failed trial, one for each warning: of a budget, a full disk, failures that
    are alike. What cannot be sent is said on the console, without the address.

    Args:
        options: The section `notify`.
        sweep: The sweep's name.
    """

    label = "notify"

    def __init__(self, options: NotifyOptions, sweep: str) -> None:
        self.options = options
        self.sweep = sweep
        self.failures = 0

    def open(self, warn: Warn) -> None:
        """Check that the variables are set, so that the end brings no surprise."""
        self._warn = warn
        for name in (self.options.webhook, self.options.command):
            if name and not os.environ.get(name):
                warn(f"notify: the environment variable {name} is not set; nothing will be sent")

    def event(self, entry: dict[str, Any]) -> None:
        """Send a message if the event is worth one."""
        message = self.message_of(entry)
        if message is not None:
            self.send(f"{self.sweep}: {message}")

    def message_of(self, entry: dict[str, Any]) -> str | None:
        """What is said of an event; None for no word."""
        name = entry["event"]
        if name in ("ended", "interrupted"):
            failed = f", {entry['failed']} failed" if entry["failed"] else ""
            return f"{name}, {entry['trials'] - entry['left']}/{entry['trials']} trials{failed}"
        if name == "warning":
            return f"{name}: {entry['message']}"
        self.failures += name == "failure"
        if name == "failure" and self.failures == FAILURES_THAT_TROUBLE:
            return f"{self.failures} trials failed; the last: {entry.get('message')}"
        return None

    def send(self, message: str) -> None:
        """Send by all ways; a way that fails is said, and tried again at the next message."""
        url = os.environ.get(self.options.webhook or "")
        command = os.environ.get(self.options.command or "")
        for way, target in ((post, url), (run, command)):
            try:
                if target:
                    way(target, message)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                reason = getattr(error, "code", None) or type(error).__name__
                self._warn(f"notify: a message could not be sent by {way.__name__}: {reason}")


def post(url: str, message: str) -> None:
    """POST `{"text": message}`, which Slack, Mattermost and Teams understand.

    Raises:
        OSError: If nobody answers, or not with success.
        ValueError: If it is no URL of http.
    """
    if not url.startswith(("https://", "http://")):
        raise ValueError("the webhook must begin with https:// or http://")
    body = json.dumps({"text": message}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S):
        pass


def run(command: str, message: str) -> None:
    """Run a shell command with the message on its standard input.

    Raises:
        subprocess.SubprocessError: If it fails or takes too long.
    """
    subprocess.run(
        command,
        shell=True,
        input=message,
        text=True,
        check=True,
        capture_output=True,
        timeout=TIMEOUT_S,
    )
