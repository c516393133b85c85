"""A stand-in for W&B's server on the loopback: records, refuses or dawdles.

The names of operations and fields are those that the client of W&B 0.31 sends and reads.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
import urllib.parse
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ARTIFACT_OPERATIONS = (
    "ArtifactType",
    "CreateArtifact",
    "CreateArtifactFiles",
    "CreateArtifactManifest",
    "UpdateArtifactManifest",
    "CommitArtifact",
)


class WandbServer:
    """Answers as much of W&B's API as its client needs to log runs.

    Attributes:
        requests: Operation names and paths, in order.
        history: Each run's logged rows, in the order in which they came.
        runs: What each run was started with.
        uploads: Path → content of the files of artifacts.
        committed: The artifacts whose files have all come.
        status: Answer everything with this HTTP status, if not 200.
        delay_s: Before each answer.
    """

    def __init__(self, status: int = 200, delay_s: float = 0.0) -> None:
        self.status = status
        self.delay_s = delay_s
        self.requests: list[str] = []
        self.history: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.runs: dict[str, dict[str, Any]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, bytes] = {}
        self.committed: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self.answer(server.respond(self.path, json.loads(body or b"{}")))

            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.startswith("/artifact/"):
                    server.uploads[urllib.parse.unquote(self.path[10:])] = content
                self.answer({})

            def answer(self, values: dict[str, Any]) -> None:
                time.sleep(server.delay_s)
                content = json.dumps(values).encode()
                self.send_response(server.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> WandbServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def respond(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        match = re.search(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path)
        if match:
            self.requests.append("file_stream")
            return self._stream(match[1], body)
        query, variables = body.get("query", ""), body.get("variables") or {}
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = name[1] if name else path
        self.requests.append(operation)
        return {"data": self._data(operation, variables)}

    def _stream(self, run: str, body: dict[str, Any]) -> dict[str, Any]:
        files = body.get("files") or {}
        for line in files.get("wandb-history.jsonl", {}).get("content", []):
            self.history[run].append(json.loads(line))
        for line in files.get("wandb-summary.json", {}).get("content", []):
            self.summaries[run] = json.loads(line)
        return {"exitcode": None, "limits": {}}

    def _data(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        if operation == "RunResumeStatus":
            return {"model": self._resume(variables["name"])}
        if operation == "UpsertBucket":
            self.runs.setdefault(variables["name"], variables)
            bucket = {
                "id": variables["name"],
                "name": variables["name"],
                "displayName": variables.get("displayName") or variables["name"],
                "description": None,
                "config": "{}",
                "sweepName": None,
                "historyLineCount": len(self.history[variables["name"]]),
                "project": {"id": "p", "name": "kerzoo", "entity": {"id": "e", "name": "team"}},
            }
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": n, "uploadUrl": f"{self.url}/upload"} for n in variables["files"]]
            created = {"runID": variables["run"], "uploadHeaders": [], "files": files}
            return {"createRunFiles": created}
        if operation in _ARTIFACT_OPERATIONS:
            return self._artifact(operation, variables)
        if operation == "Viewer":
            viewer = {"id": "u", "entity": "team", "username": "u", "flags": "{}", "email": ""}
            teams = {"edges": []}
            return {"viewer": {**viewer, "teams": teams}}
        return {"serverInfo": {"features": [], "cliVersionInfo": None}}

    def _artifact(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """What the client asks while it logs an artifact: it is new, and takes every file."""
        if operation == "ArtifactType":
            return {"project": {"artifact": None}}
        if operation == "CreateArtifact":
            name = variables["input"]["artifactCollectionName"]
            artifact = {
                "id": name,
                "state": "PENDING",
                "artifactSequence": {"latestArtifact": None},
            }
            return {"createArtifact": {"artifact": artifact}}
        if operation == "CreateArtifactFiles":
            specs = variables["input"]["artifactFiles"]
            edges = [
                {
                    "node": {
                        "storagePath": spec["name"],
                        "uploadUrl": f"{self.url}/artifact/{urllib.parse.quote(spec['name'])}",
                        "uploadHeaders": [],
                        "uploadMultipartUrls": None,
                        "artifact": {"id": spec["artifactID"]},
                    }
                }
                for spec in specs
            ]
            return {"createArtifactFiles": {"files": {"edges": edges}}}
        if operation == "CommitArtifact":
            self.committed.append(variables["artifactID"])
            return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}
        url = f"{self.url}/artifact/{variables.get('name', 'manifest')}"
        file = {"id": "m", "uploadUrl": url, "uploadHeaders": []}
        key = operation[:1].lower() + operation[1:]
        return {key: {"artifactManifest": {"id": "m", "file": file}}}

    def _resume(self, run: str) -> dict[str, Any]:
        project = {"id": "p", "name": "kerzoo", "entity": {"id": "e", "name": "team"}}
        if run not in self.runs:
            return {**project, "bucket": None}
        tail = [json.dumps(row) for row in self.history[run][-1:]]
        bucket = {
            "id": run,
            "name": run,
            "summaryMetrics": "{}",
            "displayName": run,
            "logLineCount": 0,
            "historyLineCount": len(self.history[run]),
            "eventsLineCount": 0,
            "historyTail": json.dumps(tail),
            "eventsTail": "[]",
            "config": "{}",
            "tags": [],
            "wandbConfig": '{"t": 1}',
        }
        return {**project, "bucket": bucket}
