"""SQLite: one file in the home, one writer at a time, every commit on the disk before it is acknowledged."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from hourbook.engines.safety import BUSY_TIMEOUT_MS, POOL_SIZE, WRITES, DatabaseUnsafeError, Outage
from hourbook.engines.turns import NoTurnError, Turns, next_of_all

MIN_SQLITE = (3, 37)  # the first with STRICT tables
MIN_BUSY_TIMEOUT_MS = 5_000
SYNCHRONOUS_FULL = 2
_OUTAGES = {
    sqlite3.SQLITE_FULL: Outage.full,
    sqlite3.SQLITE_READONLY: Outage.read_only,
    sqlite3.SQLITE_CANTOPEN: Outage.failing,
    sqlite3.SQLITE_IOERR: Outage.failing,
}

_WANTED: dict[str, Callable[[Any], bool]] = {
    "journal_mode": lambda value: value == "wal",
    "synchronous": lambda value: value >= SYNCHRONOUS_FULL,
    "foreign_keys": lambda value: value == 1,
    "busy_timeout": lambda value: value >= MIN_BUSY_TIMEOUT_MS,
    "recursive_triggers": lambda value: value == 1,
}
_TURNS: defaultdict[str, Turns] = defaultdict(Turns)  # of each file, however many engines of this process are on it


def make_engine(url: str) -> Engine:
    """Make an engine whose writers begin as the only writer."""
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise DatabaseUnsafeError(f"SQLite {sqlite3.sqlite_version} is too old; STRICT tables need 3.37 or later")
    # No isolation level: the driver's own transaction start loses updates, so `_begin` says BEGIN itself.
    driver = {"isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000}
    engine = create_engine(url, connect_args=driver, pool_size=POOL_SIZE, max_overflow=-1)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


@contextmanager
def turn(engine: Engine) -> Iterator[None]:
    """Wait for the writers of this process that asked before, as long as for the database itself."""
    try:
        with _TURNS[engine.url.database or ""].turn(BUSY_TIMEOUT_MS / 1000):
            yield
    except NoTurnError as over:
        busy = sqlite3.OperationalError("database is locked")
        busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise OperationalError("BEGIN IMMEDIATE", {}, busy) from over


def weaknesses(connection: Connection) -> list[str]:
    """Name the settings that are not durable and the tables that would take text for a number."""
    pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in _WANTED}
    wrong = [f"{name} is {pragmas[name]}" for name, wanted in _WANTED.items() if not wanted(pragmas[name])]
    tables = connection.exec_driver_sql("PRAGMA table_list").mappings().all()
    loose = [row["name"] for row in tables if row["schema"] == "main" and not row["strict"] and _is_ours(row)]
    return wrong + [f"table {name} is not STRICT" for name in loose]


def damage(connection: Connection) -> Iterator[str]:
    """Say what is broken in the file: pages, indexes, constraints, references."""
    for (message,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if message != "ok":
            yield f"the database is damaged: {message}"
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a row of {parent} that is not there"


def missing_guards(connection: Connection, tables: Iterable[str]) -> list[str]:
    """Name the triggers that should refuse changes and are gone or hollow."""
    query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%RAISE(ABORT%'"
    present = {name for name, _ in connection.exec_driver_sql(query)}
    wanted = [f"{table}_{guard}" for table in tables for guard in ("no_update", "no_delete", "no_replace")]
    return [name for name in wanted if name not in present]


def is_busy(error: OperationalError) -> bool:
    """Tell whether another connection only held the lock for too long."""
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def outage(error: DBAPIError) -> Outage | None:
    """Tell whether the disk failed, not the work."""
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return _OUTAGES.get(code & 0xFF)


def _is_ours(row: Any) -> bool:  # noqa: ANN401 - a row of PRAGMA table_list
    # Alembic makes its own table of one row; SQLite's are its business.
    return row["type"] == "table" and row["name"] != "alembic_version" and not row["name"].startswith("sqlite_")


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    """Set up each new connection: durable commits, and triggers that REPLACE cannot get round."""
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "recursive_triggers = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Start a transaction: as the only writer, or as a reader of one state of the database."""
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("PRAGMA query_only = OFF")
        with next_of_all(Path(connection.engine.url.database or "").parent, BUSY_TIMEOUT_MS / 1000):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
        # The state is fixed by the first read, so that is made here.
        connection.exec_driver_sql("SELECT 1 FROM sqlite_schema LIMIT 1").close()
