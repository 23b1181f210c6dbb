"""The program, started in a tenth of a second: a parent that has imported everything forks a process for each start.

A forked process goes on exactly as `hourbook` does when it is executed, so hundreds of servers can be killed in
minutes. What a broken build would do (`BREAKS`) is put in after the fork, on request of a test alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
# All that a process would import sooner or later; none of it may start a thread before the fork.
WARM = (
    "import argon2, stripe, uvicorn.lifespan.on, uvicorn.loops.auto, uvicorn.protocols.http.auto; "
    "import hourbook.api.app, hourbook.cli.main, tests.faults.breaks; "
    "import tests.faults.preforked as own; own.serve_forks()"
)


@dataclass(frozen=True)
class Child:
    """A process of the program; it is reaped by its parent, so its number alone says whether it lives."""

    pid: int
    output: Path

    def kill(self) -> None:
        """End it at once, wherever it is."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = 60) -> None:
        """Wait until it is gone."""
        end = time.monotonic() + seconds
        while self.alive():
            assert time.monotonic() < end, f"process {self.pid} does not end: {self.said()}"
            time.sleep(0.002)

    def alive(self) -> bool:
        """Tell whether it is still there."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def said(self) -> str:
        """Return what it printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")


@dataclass
class Preforked:
    """The warmed parent, asked for processes from any thread."""

    parent: subprocess.Popen[bytes]
    lock: threading.Lock = field(default_factory=threading.Lock)
    children: list[Child] = field(default_factory=list)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], output: Path) -> Child:
        """Start the program with these arguments, its output added to a file."""
        order = {"arguments": list(arguments), "environment": dict(environment), "output": str(output)}
        assert self.parent.stdin
        assert self.parent.stdout
        with self.lock:
            self.parent.stdin.write(json.dumps(order).encode() + b"\n")
            self.parent.stdin.flush()
            answer = self.parent.stdout.readline()
        assert answer, "the parent of all processes has died"
        self.children.append(Child(int(answer), output))
        return self.children[-1]

    def end(self) -> None:
        """End every process that is left, and the parent."""
        for child in self.children:
            if child.alive():
                child.kill()
        assert self.parent.stdin
        self.parent.stdin.close()


@contextmanager
def preforked(environment: Mapping[str, str]) -> Iterator[Preforked]:
    """Run a warmed parent; its processes end with it."""
    command = [sys.executable, "-c", WARM]
    own = {**os.environ, **environment}
    with subprocess.Popen(command, cwd=ROOT, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        programs = Preforked(parent)
        try:
            yield programs
        finally:
            programs.end()


def serve_forks() -> None:
    """Fork for every order that is read; run by the parent."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps
    for line in sys.stdin.buffer:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(order, sys.stdin.buffer)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become(order: Mapping[str, Any], orders: IO[bytes]) -> None:
    """Go on as the program; never returns."""
    from hourbook.cli.main import app
    from tests.faults import breaks

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)  # none is left over, however the tests end
    output = os.open(str(order["output"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), orders.fileno())
    os.environ.update(order["environment"])
    code: object = 1
    try:
        breaks.put_in(os.environ)
        app(order["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - whatever it is, it must not go on as a second parent
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(bool(code)))
