"""The statements that our own engine sent, and their replay on a SQLite whose disk is in a test's hand.

The standard library's SQLite knows nothing of a disk made in Python; the one inside `apsw` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from sqlalchemy import Connection, Engine, event

from hourbook.engines import sqlite

from .disk_model import Step

COMMIT, ROLLBACK = "COMMIT", "ROLLBACK"
# Ten times as often as SQLite would by itself, so that cuts fall into checkpoints too.
CHECKPOINT = "PRAGMA wal_autocheckpoint = 100"


class Statement(NamedTuple):
    """One statement of one connection, and how it was given its values."""

    connection: int
    sql: str
    values: Any = ()
    many: bool = False


@contextmanager
def recording(engine: Engine) -> Iterator[list[Statement]]:
    """Write down what an engine sends, connection by connection, in the order in which it was done."""
    sent: list[Statement] = []

    def done(connection: Connection, _cursor: Any, sql: str, values: Any, _context: Any, many: bool) -> None:  # noqa: ANN401
        sent.append(Statement(_number(connection), sql, values, many))

    def commit(connection: Connection) -> None:
        sent.append(Statement(_number(connection), COMMIT))

    def rollback(connection: Connection) -> None:
        sent.append(Statement(_number(connection), ROLLBACK))

    hooks: list[tuple[str, Callable[..., None]]] = [
        ("after_cursor_execute", done),
        ("commit", commit),
        ("rollback", rollback),
    ]
    for name, hook in hooks:
        event.listen(engine, name, hook)
    try:
        yield sent
    finally:
        for name, hook in hooks:
            event.remove(engine, name, hook)


def _number(connection: Connection) -> int:
    return id(connection.connection.dbapi_connection)


@dataclass
class Shim(apsw.VFS):
    """A disk that writes down every step, and fails where it is told to."""

    folder: Path
    steps: list[Step] = field(default_factory=list)
    fails: Callable[[str, str], type[apsw.Error] | None] = lambda _kind, _path: None

    def __post_init__(self) -> None:
        self.name = f"shim-{id(self)}"
        super().__init__(self.name, "unix")

    def xOpen(self, name: Any, flags: list[int]) -> ShimFile:  # noqa: ANN401, N802 - SQLite's own name
        """Open a file, noting whether it is new."""
        path = self.short(name.filename() if isinstance(name, apsw.URIFilename) else name)
        new = bool(flags[0] & apsw.SQLITE_OPEN_CREATE) and not (self.folder / path).exists()
        file = ShimFile(self, path, name, flags)
        if new:
            self.steps.append(Step("create", path))
        return file

    def xDelete(self, name: str, sync_folder: bool) -> None:  # noqa: N802
        """Remove a file."""
        super().xDelete(name, sync_folder)
        self.steps.append(Step("remove", self.short(name)))
        if sync_folder:
            self.steps.append(Step("sync_folder", "."))

    def excepthook(self, etype: object, evalue: object, etraceback: object) -> bool:  # noqa: ARG002
        """Be silent about what SQLite itself puts up with: a checkpoint that fails is made up for by the next."""
        return True

    def short(self, name: str | None) -> str:
        """Return a file's name in the folder."""
        return Path(name or "temporary").name

    def check(self, kind: str, path: str) -> None:
        """Fail if it is time to."""
        if failure := self.fails(kind, path):
            if kind == "sync":
                self.steps.append(Step("failed_sync", path))
            raise failure


class ShimFile(apsw.VFSFile):
    """A file on that disk."""

    def __init__(self, shim: Shim, path: str, name: Any, flags: list[int]) -> None:  # noqa: ANN401
        self.shim, self.path = shim, path
        super().__init__("unix", name, flags)

    def excepthook(self, etype: object, evalue: object, etraceback: object) -> bool:  # noqa: ARG002
        """Be silent, as the disk is."""
        return True

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Write, and note it."""
        self.shim.check("write", self.path)
        super().xWrite(data, offset)
        self.shim.steps.append(Step("write", self.path, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        """Cut, and note it."""
        super().xTruncate(newsize)
        self.shim.steps.append(Step("truncate", self.path, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Force to the disk, and note it; SQLite's own layer below forces the folder of a new file as well."""
        self.shim.check("sync", self.path)
        super().xSync(flags)
        self.shim.steps += [Step("sync", self.path), Step("sync_folder", ".")]


@dataclass
class Replay:
    """Statements being sent again, over connections set up as ours are."""

    file: Path
    vfs: str = ""
    synchronous: str = "FULL"
    connections: dict[int, apsw.Connection] = field(default_factory=dict)

    def send(self, statement: Statement) -> None:
        """Send one statement; it raises what SQLite says."""
        self.connect([statement.connection])
        connection = self.connections[statement.connection]
        if statement.sql in {COMMIT, ROLLBACK}:
            if connection.in_transaction:
                connection.execute(statement.sql)
        elif statement.many:
            connection.executemany(statement.sql, statement.values)
        else:
            connection.execute(statement.sql, statement.values or None).fetchall()

    def connect(self, numbers: Iterable[int]) -> None:
        """Open connections that are not open yet."""
        for number in numbers:
            if number not in self.connections:
                self.connections[number] = self._connect()

    def undo(self, number: int) -> None:
        """Undo what a connection has begun."""
        connection = self.connections[number]
        if connection.in_transaction:
            connection.execute(ROLLBACK)

    def state(self, number: int, shim: Shim) -> str:
        """Return the fingerprint as a connection sees it, on a disk that is well for the moment."""
        fails, shim.fails = shim.fails, lambda _kind, _path: None
        try:
            return fingerprint(self.connections[number])
        finally:
            shim.fails = fails

    def close(self) -> None:
        """Let go of every connection, without a last checkpoint by choice of ours."""
        for connection in self.connections.values():
            connection.close(force=True)

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self.file), vfs=self.vfs or None)
        sqlite._configure(connection, None)  # type: ignore[arg-type]  # noqa: SLF001 - just as ours are
        connection.execute(CHECKPOINT)
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        return connection


def transactions(sent: Sequence[Statement]) -> list[list[Statement]]:
    """Return the writing transactions, whole, in the order in which they were committed."""
    begun: dict[int, list[Statement]] = {}
    whole = []
    for statement in sent:
        mine = begun.setdefault(statement.connection, [])
        mine.append(statement)
        if statement.sql in {COMMIT, ROLLBACK}:
            if statement.sql == COMMIT and any(one.sql == "BEGIN IMMEDIATE" for one in mine):
                whole.append(mine)
            begun[statement.connection] = []
    return whole


def fingerprint(connection: Any) -> str:  # noqa: ANN401 - of apsw or of the standard library
    """Return a digest of every row of every table."""
    digest = hashlib.sha256()
    names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    for (name,) in list(connection.execute(names)):
        rows = list(connection.execute(f"SELECT * FROM {name}"))  # noqa: S608 - our own tables
        digest.update(f"{name}{sorted(map(repr, rows))}".encode())
    return digest.hexdigest()
