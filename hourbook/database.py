"""The database: engine, sessions, schema. What one kind of database needs stands in `hourbook.engines`."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

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
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session, SQLModel

from base.columns import Instant
from hourbook.engines import postgresql, sqlite
from hourbook.engines.safety import WRITES, DatabaseKind, DatabaseUnsafeError, Outage
from hourbook.settings import Home, Settings

__all__ = [
    "HOME",
    "TABLE_MODULES",
    "DatabaseUnsafeError",
    "HomeError",
    "assert_safe",
    "create_home",
    "damage",
    "is_busy",
    "make_engine",
    "missing_guards",
    "open_home",
    "outage",
    "read_session",
    "register_tables",
    "run_write",
    "write_session",
]

Result = TypeVar("Result")

MIGRATIONS = Path(__file__).parent / "migrations"
KINDS: Mapping[str, DatabaseKind] = {"sqlite": sqlite, "postgresql": postgresql}
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


def create_home(path: Path, clock: datetime | None = None, *, settings: Settings | None = None) -> Home:
    """Create a home with an empty database; `clock` fixes its time for ever (for demonstrations and tests)."""
    if clock is not None and clock.tzinfo is None:
        raise HomeError(f"the clock {clock} has no zone; write it as 2026-12-01T10:00:00+08:00")
    settings = settings or Settings()
    lake = settings.lake_of(path)
    path.mkdir(parents=True, exist_ok=True)
    with _let_go_if_refused(make_engine(settings.url_of(path))) as engine:
        home = Home(path, engine, clock, lake_place=lake)
        _reach(engine, path)
        # Schema and home row in one transaction: whatever interrupts this leaves nothing, and it can be run again.
        with write_session(engine) as session:
            connection = session.connection()
            if inspect(connection).has_table(HOME.name):
                raise HomeError(f"{path} is a home already; use it, or name another folder")
            command.upgrade(_alembic_config(connection), "head")
            connection.execute(insert(HOME), {"id": 1, "created_at": home.now(), "fixed_clock": clock})
        assert_safe(engine)
        return home


def open_home(path: Path, *, settings: Settings | None = None) -> Home:
    """Open a home, or refuse where there is none, where it is of another version, or where its database is unsafe."""
    settings = settings or Settings()
    url = settings.url_of(path)
    database = make_url(url).database
    if url.startswith("sqlite") and not (database and Path(database).is_file()):
        raise HomeError(f"{path} is no home of Hourbook; create one with: hourbook --home {path} init")
    with _let_go_if_refused(make_engine(url)) as engine:
        _reach(engine, path)
        with read_session(engine) as session:
            connection = session.connection()
            if not inspect(connection).has_table(HOME.name):
                raise HomeError(f"{path} has no finished home; create it with: hourbook --home {path} init")
            found = MigrationContext.configure(connection).get_current_revision()
            wanted = ScriptDirectory.from_config(_alembic_config(connection)).get_current_head()
            if found != wanted:
                raise HomeError(f"{path} has schema {found}, this version of Hourbook needs {wanted}")
            fixed_clock = connection.execute(select(HOME.c.fixed_clock)).scalar_one()
        return Home(path, engine, fixed_clock, lake_place=settings.lake_of(path))


def make_engine(url: str) -> Engine:
    """Make an engine whose sessions are safe, on SQLite or PostgreSQL."""
    return _kind(make_url(url).get_backend_name()).make_engine(url)


@contextmanager
def write_session(engine: Engine) -> Iterator[Session]:
    """Open a session that may write: the only writer from its first moment; commits at the end, or undoes it all."""
    writing = engine.execution_options(**{WRITES: True})
    with _kind(engine.dialect.name).turn(engine), Session(writing) as session, session.begin():
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
    return any(kind.is_busy(error) for kind in KINDS.values())


def outage(error: DBAPIError) -> Outage | None:
    """Tell why the database cannot be used for a while; None where the failure is of the work itself."""
    found = (kind.outage(error) for kind in KINDS.values())
    return next((why for why in found if why), None)


def assert_safe(engine: Engine) -> None:
    """Refuse to run on a database that could lose what it acknowledged, or keep what is no number."""
    with engine.connect() as connection:
        wrong = _kind(engine.dialect.name).weaknesses(connection)
    if wrong:
        raise DatabaseUnsafeError(
            f"{engine.url!r} is not safe for money: {', '.join(wrong)}; make the database with hourbook init"
        )


def damage(connection: Connection) -> Iterator[str]:
    """Say what is broken in the database itself: pages, indexes, constraints, references."""
    return _kind(connection.dialect.name).damage(connection)


def missing_guards(connection: Connection, tables: Iterable[str]) -> list[str]:
    """Name the triggers that should protect append-only tables and do not."""
    return _kind(connection.dialect.name).missing_guards(connection, tables)


def register_tables() -> None:
    """Import every module that declares tables, and make all tables STRICT."""
    for name in TABLE_MODULES:
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    for table in SQLModel.metadata.tables.values():
        table.dialect_options["sqlite"]["strict"] = True


@contextmanager
def _let_go_if_refused(engine: Engine) -> Iterator[Engine]:
    try:
        yield engine
    except BaseException:
        engine.dispose()
        raise


def _reach(engine: Engine, path: Path) -> None:
    try:
        assert_safe(engine)
    except OperationalError as error:
        if is_busy(error):
            raise
        raise HomeError(
            f"the database of {path}, {engine.url!r}, cannot be reached: {error.orig}; "
            "start or create it, or correct HOURBOOK_DATABASE_URL"
        ) from error


def _kind(name: str) -> DatabaseKind:
    if name not in KINDS:
        raise DatabaseUnsafeError(f"{name} is not supported; Hourbook keeps its books in {' or '.join(KINDS)}")
    return KINDS[name]


def _alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
