"""The database: engine, sessions, schema. What is particular to SQLite stands here and in the migrations only."""

from __future__ import annotations

import importlib
import importlib.util
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Engine,
    Integer,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, SQLModel

from base.columns import Instant
from hourbook.settings import Home, Settings

Result = TypeVar("Result")

MIGRATIONS = Path(__file__).parent / "migrations"
MIN_SQLITE = (3, 37)  # the first with STRICT tables
BUSY_TIMEOUT_MS = 10_000
MIN_BUSY_TIMEOUT_MS = 5_000
SYNCHRONOUS_FULL = 2
POOL_SIZE = 16
BUSY_ATTEMPTS = 5
BUSY_PAUSE_SECONDS = 0.05

# Every module that declares tables; those not written yet are passed over.
TABLE_MODULES = (
    "metering.store",
    "ledger.store",
    "pricing.store",
    "invoices.store",
    "reconciliation.store",
    "hourbook.facts",
    "hourbook.keys",
    "hourbook.runs",
    "hourbook.topups",
)

HOME = Table(
    "home",
    SQLModel.metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("created_at", Instant, nullable=False),
    Column("fixed_clock", Instant),
)


class HomeError(RuntimeError):
    """There is no home to work on, or one is already there; the message says what to do."""


class DatabaseUnsafeError(RuntimeError):
    """The database would not keep what it acknowledged, so Hourbook refuses to run on it."""


def create_home(path: Path, clock: datetime | None = None, *, settings: Settings | None = None) -> Home:
    """Create a home with an empty database; `clock` fixes its time for ever (for demonstrations and tests)."""
    if clock is not None and clock.tzinfo is None:
        raise HomeError(f"the clock {clock} has no zone; write it as 2026-12-01T10:00:00+08:00")
    path.mkdir(parents=True, exist_ok=True)
    home = Home(path, make_engine((settings or Settings()).url_of(path)), clock)
    # Schema and home row in one transaction: whatever interrupts this leaves nothing, and it can be run again.
    with write_session(home.engine) as session:
        connection = session.connection()
        if inspect(connection).has_table(HOME.name):
            raise HomeError(f"{path} is a home already; use it, or name another folder")
        command.upgrade(_alembic_config(connection), "head")
        connection.execute(insert(HOME), {"id": 1, "created_at": home.now(), "fixed_clock": clock})
    assert_safe(home.engine)
    return home


def open_home(path: Path, *, settings: Settings | None = None) -> Home:
    """Open a home, or refuse where there is none, where it is of another version, or where its database is unsafe."""
    url = (settings or Settings()).url_of(path)
    database = make_url(url).database
    if url.startswith("sqlite") and not (database and Path(database).is_file()):
        raise HomeError(f"{path} is no home of Hourbook; create one with: hourbook --home {path} init")
    engine = make_engine(url)
    assert_safe(engine)
    with read_session(engine) as session:
        connection = session.connection()
        if not inspect(connection).has_table(HOME.name):
            raise HomeError(f"{path} has no finished home; create it with: hourbook --home {path} init")
        found = MigrationContext.configure(connection).get_current_revision()
        wanted = ScriptDirectory.from_config(_alembic_config(connection)).get_current_head()
        if found != wanted:
            raise HomeError(f"{path} has schema {found}, this version of Hourbook needs {wanted}")
        fixed_clock = connection.execute(select(HOME.c.fixed_clock)).scalar_one()
    return Home(path, engine, fixed_clock)


def make_engine(url: str) -> Engine:
    """Make an engine whose sessions are safe on SQLite."""
    if make_url(url).get_backend_name() != "sqlite":
        raise DatabaseUnsafeError(f"only SQLite is supported so far, not {make_url(url).get_backend_name()}")
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise DatabaseUnsafeError(f"SQLite {sqlite3.sqlite_version} is too old; STRICT tables need 3.37 or later")
    # No isolation level: the driver's own transaction start loses updates, so `_begin` says BEGIN itself.
    driver = {"isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000}
    engine = create_engine(url, connect_args=driver, pool_size=POOL_SIZE, max_overflow=-1)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


@contextmanager
def write_session(engine: Engine) -> Iterator[Session]:
    """Open a session that may write: the only writer from its first moment; commits at the end, or undoes it all."""
    with Session(engine.execution_options(hourbook_write=True)) as session, session.begin():
        # Takes the write lock now: a session that first read and then wrote could act on what is no longer true.
        session.connection()
        yield session


@contextmanager
def read_session(engine: Engine) -> Iterator[Session]:
    """Open a session that sees one unchanging state of the database and cannot write."""
    with Session(engine) as session, session.begin():
        session.connection()
        yield session


def run_write(engine: Engine, work: Callable[[Session], Result]) -> Result:
    """Run work in a writing session, again a few times if the database was busy, and never for another reason."""
    for attempt in range(1, BUSY_ATTEMPTS + 1):
        try:
            with write_session(engine) as session:
                return work(session)
        except OperationalError as error:
            if attempt == BUSY_ATTEMPTS or not is_busy(error):
                raise
            time.sleep(BUSY_PAUSE_SECONDS * attempt)
    raise AssertionError("unreachable")


def is_busy(error: OperationalError) -> bool:
    """Tell whether the database was only busy: the one failure after which the same work may be tried again."""
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def assert_safe(engine: Engine) -> None:
    """Refuse to run on a database that could lose what it acknowledged, or keep what is no number."""
    with engine.connect() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in _WANTED}
        wrong = [f"{name} is {pragmas[name]}" for name, wanted in _WANTED.items() if not wanted(pragmas[name])]
        tables = connection.exec_driver_sql("PRAGMA table_list").mappings().all()
        loose = [row["name"] for row in tables if row["schema"] == "main" and not row["strict"] and _is_ours(row)]
    wrong += [f"table {name} is not STRICT" for name in loose]
    if wrong:
        raise DatabaseUnsafeError(
            f"{engine.url} is not safe for money: {', '.join(wrong)}; make the database with hourbook init"
        )


_WANTED: dict[str, Callable[[Any], bool]] = {
    "journal_mode": lambda value: value == "wal",
    "synchronous": lambda value: value >= SYNCHRONOUS_FULL,
    "foreign_keys": lambda value: value == 1,
    "busy_timeout": lambda value: value >= MIN_BUSY_TIMEOUT_MS,
    "recursive_triggers": lambda value: value == 1,
}


def damage(connection: Connection) -> Iterator[str]:
    """Say what is broken in the database itself: pages, indexes, constraints, references."""
    for (message,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if message != "ok":
            yield f"the database is damaged: {message}"
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a row of {parent} that is not there"


def missing_guards(connection: Connection, tables: Iterable[str]) -> list[str]:
    """Name the triggers that should protect append-only tables and do not."""
    query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%RAISE(ABORT%'"
    present = {name for name, _ in connection.exec_driver_sql(query)}
    wanted = [f"{table}_{guard}" for table in tables for guard in ("no_update", "no_delete", "no_replace")]
    return [name for name in wanted if name not in present]


def register_tables() -> None:
    """Import every module that declares tables, and make all tables STRICT."""
    for name in TABLE_MODULES:
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    for table in SQLModel.metadata.tables.values():
        table.dialect_options["sqlite"]["strict"] = True


def _is_ours(row: Any) -> bool:  # noqa: ANN401 - a row of PRAGMA table_list
    # Alembic makes its own table of one row; SQLite's are its business.
    return row["type"] == "table" and row["name"] != "alembic_version" and not row["name"].startswith("sqlite_")


def _alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


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
    if connection.get_execution_options().get("hourbook_write"):
        connection.exec_driver_sql("PRAGMA query_only = OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
        # The state is fixed by the first read, so that is made here.
        connection.exec_driver_sql("SELECT 1 FROM sqlite_schema LIMIT 1").close()
