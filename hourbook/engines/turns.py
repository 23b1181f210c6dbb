"""Turns at a database that takes one writer at a time: whoever asked first writes first.

SQLite's own waiting is asking again, ever more rarely: a busy server that commits without a pause would keep out
everybody who waits, a payment or a command line, until they give up.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock

ASK_AGAIN_SECONDS = 0.001


class NoTurnError(Exception):
    """A turn did not come in time."""


class Turns:
    """A queue of threads, each of which has its turn in the order of asking."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken = False
        self._waiting: deque[Event] = deque()

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Wait for a turn and hold it to the end of the block; `NoTurnError` where it does not come in time."""
        if not self._take(seconds):
            raise NoTurnError(f"others wrote for {seconds} s")
        try:
            yield
        finally:
            self._give_on()

    def _take(self, seconds: float) -> bool:
        mine = Event()
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            self._waiting.append(mine)
        if mine.wait(seconds):
            return True
        with self._lock:
            if mine.is_set():  # at the last moment
                return True
            self._waiting.remove(mine)
            return False

    def _give_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


@contextmanager
def next_of_all(folder: Path, seconds: float) -> Iterator[None]:
    """Be the only process on this machine that asks for the next turn at a database in a folder.

    Whoever holds this while the database is busy is next: all others wait here, the last writer too. Where it cannot be
    had, the block goes on without it, for the database itself lets in one writer only.
    """
    try:
        # The folder, not the file: closing any handle of the file would drop the locks that SQLite has on it.
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        end = time.monotonic() + seconds
        while not _locked(handle) and time.monotonic() < end:
            time.sleep(ASK_AGAIN_SECONDS)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
