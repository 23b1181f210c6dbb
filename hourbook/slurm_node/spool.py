"""The spool: on disk, and whole, before anything is sent; gone only when the server has it on its own disk."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .asking import CollectError, Window, header
from .hours import ended_attempt

PART_BYTES = 8 * 2**20
UNFINISHED = ".part"
HOURS = "-hours.json"
STATE = ("pulled_until", "swept_at")


@dataclass
class Spool:
    """A folder with what the server does not have yet, and what the collector remembers."""

    folder: Path
    lock: Any = None

    def take(self) -> None:
        """Take the folder for this process alone, and clear away what an earlier one left half done."""
        for name in ("waiting", "refused"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.lock = (self.folder / "lock").open("a")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CollectError(f"another collector works with {self.folder}; stop it, or say another --spool") from None
        for half in self._waiting():
            if half.suffix == UNFINISHED:
                half.unlink()  # of an answer that was broken off; its window is asked for again

    def waiting(self) -> list[Path]:
        """Return what the server does not have yet: rows before words about them, the oldest first."""
        whole = [path for path in self._waiting() if path.suffix != UNFINISHED]
        return sorted(whole, key=lambda path: (path.name.endswith(HOURS), path.name))

    def bytes_held(self) -> int:
        """Return how much of the disk is taken by what waits."""
        return sum(path.stat().st_size for path in self._waiting())

    def begin(self, name: str) -> Path:
        """Return where to write something that is not yet whole."""
        return self.folder / "waiting" / f"{name}{UNFINISHED}"

    def keep(self, parts: Sequence[Path]) -> None:
        """Keep what was written: it is on disk, under its name, when this returns."""
        for part in parts:
            _sync(part)
        for part in parts:
            part.rename(part.with_suffix(""))
        _sync(self.folder / "waiting")

    def refuse(self, path: Path) -> None:
        """Set aside what the server will never take, for a person to look at."""
        path.rename(self.folder / "refused" / path.name)

    def remember(self, state: dict[str, int]) -> None:
        """Write down how far was asked."""
        new = self.folder / "state.new"
        new.write_text(json.dumps(state), encoding="ascii")
        _sync(new)
        new.rename(self.folder / "state.json")

    def remembered(self) -> dict[str, int]:
        """Return how far was asked; nothing where that is lost, and then all is asked for again."""
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="ascii"))
            return {name: int(state[name]) for name in STATE}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _waiting(self) -> list[Path]:
        return list((self.folder / "waiting").iterdir())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def new_delimiter() -> str:
    """Return a delimiter that nobody who gives a job its name can know."""
    return f"~{secrets.token_urlsafe(6)}~"


@dataclass
class Pull:
    """One answer of sacct on its way into the spool, in parts that the server takes one by one."""

    spool: Spool
    window: Window
    delimiter: str = field(default_factory=new_delimiter)
    token: str = field(default_factory=lambda: secrets.token_hex(4))  # keeps the names of its files apart
    parts: list[Path] = field(default_factory=list)
    rows: int = 0
    attempts: dict[str, tuple[int, int]] = field(default_factory=dict)  # those that ended: revision and end by id
    keys: list[bytes] = field(default_factory=list)  # of the rows that are in it
    _file: Any = None
    _bytes: int = 0

    def add(self, row: bytes) -> None:
        """Write a row; a part that is full is followed by another."""
        if self._file is None or self._bytes > PART_BYTES:
            self._next()
        self._file.write(row)
        self.rows += 1
        self._bytes += len(row)

    def note(self, cells: Sequence[str]) -> None:
        """Count a row among the attempts that ended, in its latest revision."""
        found = ended_attempt(cells)
        if found is not None:
            event_id, revision, end = found
            self.attempts[event_id] = max(self.attempts.get(event_id, (0, 0)), (revision, end))

    def keep(self, said: Sequence[dict[str, Any]]) -> None:
        """Keep all parts, and what is stated of the hours."""
        self._close()
        if said:
            self.parts.append(self.spool.begin(f"{self.name}{HOURS}"))
            self.parts[-1].write_text(json.dumps(said), encoding="ascii")
        self.spool.keep(self.parts)

    def drop(self) -> None:
        """Leave nothing of an answer that was broken off."""
        self._close()
        for part in self.parts:
            part.unlink()

    @property
    def name(self) -> str:
        """What its files' names begin with; the older window sorts first."""
        return f"{self.window[1]:012d}-{self.window[0]:012d}-{self.token}"

    def _next(self) -> None:
        self._close()
        self.parts.append(self.spool.begin(f"{self.name}-{len(self.parts):04d}.sacct.gz"))
        self._file, self._bytes = gzip.open(self.parts[-1], "wb", compresslevel=3), 0  # noqa: SIM115 - closed by _close
        self._file.write(header(self.delimiter))

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
