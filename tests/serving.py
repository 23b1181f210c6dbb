"""`hourbook serve` as a process of its own, which tests may kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 180  # a loaded machine takes its time
COMMAND = [sys.executable, "-c", "from hourbook.cli.main import run; run()"]


@dataclass
class Server:
    """A running server of a home."""

    process: subprocess.Popen[bytes]
    url: str

    def kill(self) -> None:
        """End it at once, without any chance to finish what it does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=30)


def start_server(home: Path, *, accrue_every_seconds: int = 1, port: int = 0, database_url: str = "") -> Server:
    """Start a server on a port of this machine, by itself a free one, and wait until it answers."""
    port = port or free_port()
    every = str(accrue_every_seconds)
    own = {"HOURBOOK_ACCRUE_EVERY_SECONDS": every, "HOURBOOK_STRIPE_API_KEY": "", "HOURBOOK_DATABASE_URL": database_url}
    environment = {**os.environ, **own}
    log = (home / "server.log").open("ab")
    with log:
        process = subprocess.Popen(
            [*COMMAND, "--home", str(home), "serve", "--port", str(port)], env=environment, stdout=log, stderr=log
        )
    server = Server(process, f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + START_SECONDS
    while not _answers(server.url):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"the server did not start: {(home / 'server.log').read_text(encoding='utf-8')}")
        time.sleep(0.1)
    return server


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/login", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
