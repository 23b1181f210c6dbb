"""PostgreSQL: the same sessions as on SQLite, on a server that several processes share.

A writing transaction first takes one advisory lock of the database and keeps it until it ends. So there is one writer
at a time, which reads what every writer before it committed: exactly what SQLite gives, by one statement. Readers take
no lock and see one snapshot. docs/decisions/0009-postgresql.md says what that costs and how it can be narrowed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from hourbook.engines.safety import BUSY_TIMEOUT_MS, POOL_SIZE, WRITES, DatabaseUnsafeError, Outage
from hourbook.migrations.triggers import REFUSAL

if TYPE_CHECKING:
    import psycopg

MIN_SERVER = 15
CONNECT_SECONDS = 10
WRITER_LOCK = int.from_bytes(b"hourbook", "big")  # any number, as long as every writer takes the same

# What the server must say of itself.
_WANTED: Mapping[str, Sequence[str]] = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply"),
    "session_replication_role": ("origin",),  # otherwise triggers and references are not looked at
    "server_encoding": ("UTF8",),
}
_BEGIN_WRITING = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; "
    f"SET LOCAL lock_timeout = {BUSY_TIMEOUT_MS}; "
    # Read committed, so that what is read next is what was committed when the lock was free; a snapshot of the whole
    # transaction would be as old as the wait.
    f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"
)
# The first query, not BEGIN, fixes the state that a reader sees.
_BEGIN_READING = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT 1"
# Serialisation failure, deadlock, lock not available in time.
_BUSY = frozenset({"40001", "40P01", "55P03"})
# By how the server's codes begin: connection lost, the operator ends it, out of disk, errors of its disk, read-only.
_OUTAGES = {
    "08": Outage.unreachable,
    "57P": Outage.unreachable,
    "53100": Outage.full,
    "53": Outage.unreachable,
    "58": Outage.failing,
    "25006": Outage.read_only,
}
# Guards of a table fire before every statement that updates (16), deletes (8) or truncates (32).
_GUARD_TYPE = 2 + 8 + 16 + 32


def make_engine(url: str) -> Engine:
    """Make an engine whose writers begin as the only writer, through psycopg."""
    address = make_url(url)
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    if address.drivername != "postgresql+psycopg":
        raise DatabaseUnsafeError(f"{address.drivername} is not supported; write postgresql+psycopg://…")
    if importlib.util.find_spec("psycopg") is None:
        raise DatabaseUnsafeError("PostgreSQL needs the driver psycopg; install it with: pip install 'psycopg[binary]'")
    engine = create_engine(
        address,
        connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "hourbook"},
        pool_size=POOL_SIZE,
        max_overflow=POOL_SIZE,
        # After a restart of the server, its old connections are replaced and not handed out.
        pool_pre_ping=True,
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def turn(_engine: Engine) -> AbstractContextManager[None]:
    """Leave the order of writers to the server: its locks are given in the order of asking."""
    return nullcontext()


def weaknesses(connection: Connection) -> list[str]:
    """Name what could lose acknowledged work, or sort text in another order than the rest of Hourbook."""
    found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in _WANTED}
    wrong = [f"{name} is {found[name]}" for name, wanted in _WANTED.items() if found[name] not in wanted]
    version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
    if version < MIN_SERVER * 10_000:
        wrong.append(f"PostgreSQL {version // 10_000} is too old; {MIN_SERVER} or later is needed")
        return wrong
    if connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one():
        wrong.append("it is a standby")
    provider, collation = connection.exec_driver_sql(
        "SELECT datlocprovider, datcollate FROM pg_database WHERE datname = current_database()"
    ).one()
    # Another order of text would put documents, which are numbered in order of customer, in another order; and an
    # update of the system's library could change it under an index.
    if provider != "b" and (provider != "c" or collation not in {"C", "POSIX"}):
        wrong.append(
            f"text is sorted by {collation} and not by C "
            "(make the database with: createdb --template=template0 --encoding=UTF8 --locale=C)"
        )
    return wrong


def damage(connection: Connection) -> Iterator[str]:
    """Say which rows break a reference or a condition of their table, and which indexes cannot be relied on.

    The server checks these when rows are written; somebody with its files or a superuser's rights can get round that.
    """
    indexes = (
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indrelid "
        "WHERE relnamespace = current_schema()::regnamespace AND NOT (indisvalid AND indisready)"
    )
    for (name,) in connection.exec_driver_sql(indexes):
        yield f"the database is damaged: index {name} is not valid"
    conditions = (
        "SELECT conrelid::regclass::text, conname, pg_get_expr(conbin, conrelid) FROM pg_constraint "
        "WHERE contype = 'c' AND connamespace = current_schema()::regnamespace ORDER BY 1, 2"
    )
    for table, name, condition in connection.exec_driver_sql(conditions).all():
        broken = _count(connection, f"{table} WHERE NOT ({condition})")
        if broken:
            yield f"the database is damaged: {broken} rows of {table} break {name}"
    inspector = inspect(connection)
    for table in inspector.get_table_names():
        for key in inspector.get_foreign_keys(table):
            yield from _orphans(connection, table, key)


def missing_guards(connection: Connection, tables: Iterable[str]) -> list[str]:
    """Name the triggers that should refuse changes and are gone, switched off or hollow."""
    query = (
        "SELECT relname, tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "JOIN pg_proc ON pg_proc.oid = tgfoid WHERE relnamespace = current_schema()::regnamespace "
        "AND tgenabled IN ('O', 'A') AND tgtype = %s AND tgqual IS NULL AND tgattr::text = '' AND prosrc = %s"
    )
    present = {tuple(row) for row in connection.exec_driver_sql(query, (_GUARD_TYPE, REFUSAL))}
    return [f"{table}_no_change" for table in tables if (table, f"{table}_no_change") not in present]


def is_busy(error: OperationalError) -> bool:
    """Tell whether another transaction only stood in the way."""
    return getattr(error.orig, "sqlstate", None) in _BUSY


def outage(error: DBAPIError) -> Outage | None:
    """Tell whether the server or its disk failed, not the work."""
    if "sqlite_errorcode" in dir(error.orig):
        return None
    code = getattr(error.orig, "sqlstate", None)
    if code is None:  # nothing was answered at all
        return Outage.unreachable if error.connection_invalidated or isinstance(error, OperationalError) else None
    return next((found for begin, found in _OUTAGES.items() if code.startswith(begin)), None)


def _orphans(connection: Connection, table: str, key: Mapping[str, Any]) -> Iterator[str]:
    pairs = list(zip(key["constrained_columns"], key["referred_columns"], strict=True))
    parent = key["referred_table"]
    stated = " AND ".join(f"child.{column} IS NOT NULL" for column, _ in pairs)
    equal = " AND ".join(f"parent.{there} = child.{here}" for here, there in pairs)
    rows = f"{table} AS child WHERE {stated} AND NOT EXISTS (SELECT 1 FROM {parent} AS parent WHERE {equal})"  # noqa: S608
    count = _count(connection, rows)
    if count:
        yield f"{count} rows of {table} refer to a row of {parent} that is not there"


def _count(connection: Connection, rows: str) -> int:
    # Names and conditions come from the catalogue of our own schema.
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {rows}").scalar_one())  # noqa: S608


def _configure(connection: psycopg.Connection[Any], _record: object) -> None:
    """Set up each new connection: sums of integers are integers, and a writer that vanished is soon noticed."""
    from psycopg.adapt import Buffer, Loader

    class Whole(Loader):
        """Reads the numeric that a sum of BIGINT is; there is no fraction in any table."""

        def load(self, data: Buffer) -> int:
            return int(bytes(data))

    connection.adapters.register_loader("numeric", Whole)
    connection.execute("SET tcp_keepalives_idle = 30")
    connection.execute("SET tcp_keepalives_interval = 10")
    connection.execute("SET tcp_keepalives_count = 3")
    # Closing a month computes for a while inside its transaction.
    connection.execute("SET idle_in_transaction_session_timeout = 0")
    connection.commit()


def _begin(connection: Connection) -> None:
    """Start a transaction: as the only writer, or as a reader of one state of the database."""
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql(_BEGIN_WRITING if writes else _BEGIN_READING)
