"""An API server of Kubernetes as a process of its own: lists in pages, watches with versions, forgotten history.

Started with a port, a certificate and a file that keeps its state over restarts. Besides the API, `POST /_/put`,
`/_/delete` and `/_/compact` let a test do what a cluster does. It speaks as a real one: versions count up with every
change, a watch replays what happened since its version and goes on, and a version that is too old is answered with 410.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "let-me-look"  # noqa: S105 - of the test's own server
KINDS = {"/api/v1/pods": "Pod", "/api/v1/nodes": "Node"}


class State:
    """What the cluster holds, and what happened since it was last compacted."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.changed = threading.Condition()
        self.version, self.oldest = 100, 100
        self.objects: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[int, str, dict[str, Any]]] = []
        self.expire_pages = 0
        if file.exists():
            said = json.loads(file.read_text("utf-8"))
            self.version, self.objects = said["version"], said["objects"]
            self.oldest = said["oldest"]
            self.history = [(at, kind, thing) for at, kind, thing in said["history"]]

    def keep(self) -> None:
        said = {"version": self.version, "objects": self.objects, "oldest": self.oldest, "history": self.history}
        self.file.write_text(json.dumps(said), "utf-8")
        self.changed.notify_all()

    def put(self, thing: dict[str, Any]) -> None:
        with self.changed:
            self.version += 1
            uid = thing["metadata"]["uid"]
            kind = "MODIFIED" if uid in self.objects else "ADDED"
            thing["metadata"]["resourceVersion"] = str(self.version)
            self.objects[uid] = thing
            self.history.append((self.version, kind, json.loads(json.dumps(thing))))
            self.keep()

    def delete(self, uid: str) -> None:
        with self.changed:
            self.version += 1
            thing = self.objects.pop(uid)
            thing["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, "DELETED", thing))
            self.keep()

    def compact(self) -> None:
        with self.changed:
            self.history.clear()
            self.oldest = self.version
            self.keep()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Let the test do what a cluster does."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        match self.path:
            case "/_/put":
                self.state.put(body)
            case "/_/delete":
                self.state.delete(body["uid"])
            case "/_/compact":
                self.state.compact()
            case "/_/expire":
                self.state.expire_pages = int(body["pages"])
        self.answer(200, {})

    def do_GET(self) -> None:
        """Answer a list, or a watch."""
        at = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(at.query).items()}
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"kind": "Status", "code": 401, "message": "Unauthorized"})
        elif at.path not in KINDS:
            self.answer(404, {"kind": "Status", "code": 404, "message": "not found"})
        elif asked.get("watch"):
            self.watch(KINDS[at.path], int(asked["resourceVersion"]), float(asked.get("timeoutSeconds", 60)))
        else:
            self.list(KINDS[at.path], int(asked.get("limit", 0)), asked.get("continue", ""))

    def list(self, kind: str, limit: int, going_on: str) -> None:
        state = self.state
        with state.changed:
            if going_on and state.expire_pages:
                state.expire_pages -= 1
                self.answer(410, {"kind": "Status", "code": 410, "reason": "Expired", "message": "token is too old"})
                return
            found = [thing for thing in state.objects.values() if thing["kind"] == kind]
            first = int(going_on or 0)
            page = found[first : first + limit] if limit else found
            about: dict[str, Any] = {"resourceVersion": str(state.version)}
            if limit and first + limit < len(found):
                about["continue"] = str(first + limit)
            # Items of a list do not name their kind.
            items = [{name: part for name, part in thing.items() if name != "kind"} for thing in page]
        self.answer(200, {"kind": f"{kind}List", "apiVersion": "v1", "metadata": about, "items": items})

    def watch(self, kind: str, version: int, seconds: float) -> None:
        state, end = self.state, time.monotonic() + seconds
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if version < state.oldest:
            gone = {
                "kind": "Status",
                "code": 410,
                "reason": "Expired",
                "message": f"too old resource version: {version}",
            }
            self.chunk({"type": "ERROR", "object": gone})
            self.chunk(None)
            return
        self.chunk({"type": "BOOKMARK", "object": {"kind": kind, "metadata": {"resourceVersion": str(version)}}})
        while time.monotonic() < end:
            with state.changed:
                news = [entry for entry in state.history if entry[0] > version]
                if not news:
                    state.changed.wait(min(0.2, max(0.0, end - time.monotonic())))
            for at, change, thing in news:
                version = at
                if thing["kind"] == kind:
                    self.chunk({"type": change, "object": thing})
        self.chunk(None)

    def chunk(self, event: object) -> None:
        line = b"" if event is None else json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve until killed."""
    port, certificate, file = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    Handler.state = State(file)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
