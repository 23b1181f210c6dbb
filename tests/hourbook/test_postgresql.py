"""On PostgreSQL, sessions give what they give on SQLite, and a server that is not safe for money is refused."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session, col
from sqlmodel import select as sqlmodel_select

from hourbook import database
from hourbook.audit import verify
from hourbook.database import (
    DatabaseUnsafeError,
    HomeError,
    assert_safe,
    create_home,
    make_engine,
    open_home,
    read_session,
    run_write,
    write_session,
)
from hourbook.engines import postgresql as kind
from hourbook.migrations.triggers import APPEND_ONLY
from hourbook.settings import Home, Settings
from ledger.store import InsufficientFundsError, transactions
from ledger.store.tables import BALANCE
from metering.store import InboxBatchRow
from tests.homes import NewHome
from tests.ledger.ledger_stories import LOT, balance, charge, charge_of_nothing, posted, top_up
from tests.postgresql import Server

NOON = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)
FLAGS = {("home", "id"), ("inbox_batch", "sealed"), ("ledger_account", "has_floor"), ("stripe_event", "live")}

pytestmark = pytest.mark.parametrize("new_home", ["postgresql"], indirect=True)


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", NOON)


@pytest.fixture
def loosened(home: Home) -> Iterator[Engine]:
    """An engine on the same database, for a test to make unsafe."""
    engine = make_engine(home.engine.url.render_as_string(hide_password=False))
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("setting", "weakness"),
    [
        ("synchronous_commit = off", "synchronous_commit is off"),
        ("synchronous_commit = local", "synchronous_commit is local"),
        ("session_replication_role = replica", "session_replication_role is replica"),
    ],
)
def test_a_connection_that_could_lose_money_is_refused(loosened: Engine, setting: str, weakness: str) -> None:
    event.listen(loosened, "connect", lambda connection, _: connection.execute(f"SET {setting}"))
    event.listen(loosened, "connect", lambda connection, _: connection.commit())
    with pytest.raises(DatabaseUnsafeError, match=weakness):
        assert_safe(loosened)


def test_a_database_that_sorts_text_by_a_locale_is_refused(home: Home, postgresql: Server, tmp_path: Path) -> None:
    name = "of_a_locale"
    # Stands for any: this one, every machine has.
    postgresql.run(f"CREATE DATABASE {name} TEMPLATE template0 LOCALE 'C.UTF-8'")
    url = postgresql.url(name)
    with pytest.raises(DatabaseUnsafeError, match="createdb --template=template0"):
        create_home(tmp_path / "new", NOON, settings=Settings(database_url=url))
    engine = make_engine(url)
    with engine.connect() as connection:
        assert not connection.execute(text("SELECT 1 FROM pg_tables WHERE schemaname = 'public'")).all()
    engine.dispose()
    postgresql.drop(name)


def test_a_server_that_is_too_old_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "MIN_SERVER", 99)
    with pytest.raises(DatabaseUnsafeError, match="too old; 99 or later"):
        assert_safe(home.engine)


def test_a_database_that_is_not_there_is_named_without_its_password(postgresql: Server, home: Home) -> None:
    url = postgresql.url("nowhere").replace("hourbook@", "hourbook:secret@")
    with pytest.raises(HomeError, match=r"nowhere.*cannot be reached.*HOURBOOK_DATABASE_URL") as refused:
        open_home(home.path, settings=Settings(database_url=url))
    assert "secret" not in str(refused.value)


def test_counts_are_wide_enough_for_years_of_them(home: Home) -> None:
    query = text(
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = 'public' AND data_type IN ('integer', 'smallint')"
    )
    with home.engine.connect() as connection:
        narrow = {tuple(row) for row in connection.execute(query)}
    assert narrow == FLAGS


def test_sums_of_integers_are_integers(home: Home) -> None:
    with read_session(home.engine) as session:
        query = text("SELECT sum(x) FROM (VALUES (4611686018427387904), (3)) AS v(x)")
        total = session.connection().execute(query).scalar_one()
        assert isinstance(total, int)
        assert total == 2**62 + 3
        assert session.connection().execute(select(func.sum(BALANCE.c.debit_posted))).scalar() is None


def test_a_flag_is_asked_for_as_on_sqlite(home: Home) -> None:
    flag = col(InboxBatchRow.sealed)
    with read_session(home.engine) as session:
        for condition in (flag.is_(other=False), flag.is_(other=True), flag == True, flag.in_([True])):  # noqa: E712
            assert session.exec(sqlmodel_select(InboxBatchRow.batch_seq).where(condition)).all() == []


def test_a_writer_waits_for_the_one_before_and_reads_what_it_wrote(home: Home) -> None:
    entered, seen = threading.Event(), []

    def second() -> None:
        entered.set()
        with write_session(home.engine) as session:
            seen.append(session.connection().execute(text("SELECT count(*) FROM ledger_head")).scalar())

    with write_session(home.engine) as session:
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        time.sleep(0.2)
        assert seen == []
        session.connection().execute(text("INSERT INTO ledger_head VALUES ('operator', 0, '')"))
    thread.join()
    assert seen == [1]


def test_without_the_lock_updates_would_be_lost(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    # A deliberately broken build: what the lock is for.
    monkeypatch.setattr(kind, "_BEGIN_WRITING", "SELECT 1")
    with write_session(home.engine) as session:
        session.connection().execute(text("INSERT INTO ledger_head VALUES ('operator', 0, '')"))
    with write_session(home.engine) as one, write_session(home.engine) as other:
        query = text("SELECT sequence FROM ledger_head")
        assert [each.connection().execute(query).scalar_one() for each in (one, other)] == [0, 0]


def test_posting_alone_would_lose_nothing_without_the_lock_either(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    # The end of the chain is a row that each posting locks: the day the lock is narrowed, money does not rest on it.
    monkeypatch.setattr(kind, "_BEGIN_WRITING", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    posted(home.engine, charge_of_nothing("first"))
    top_up(home.engine, 25)

    def withdraw(number: int) -> bool:
        try:
            posted(home.engine, charge(f"accrual:{number % 40}", 1))
        except InsufficientFundsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(withdraw, range(80)))
    assert balance(home.engine, LOT) == 0
    with read_session(home.engine) as session:
        assert len(transactions(session, kinds=["accrual"])) == 25
    assert verify(home.engine) == []


def test_a_writer_that_waits_too_long_is_busy_and_the_work_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "_BEGIN_WRITING", kind._BEGIN_WRITING.replace("10000", "50"))  # noqa: SLF001
    monkeypatch.setattr(database, "BUSY_PAUSE_SECONDS", 0)
    holder = threading.Event()
    tries: list[int] = []

    def hold() -> None:
        with write_session(home.engine):
            holder.set()
            time.sleep(0.12)

    def work(_: object) -> str:
        tries.append(1)
        return "done"

    thread = threading.Thread(target=hold)
    thread.start()
    holder.wait()
    assert run_write(home.engine, work) == "done"
    thread.join()
    assert tries == [1], "the work itself is begun only by a writer that has the lock"


def cut(session: Session, server: Server) -> None:
    """End a session's connection from the server's side, and let the session notice."""
    pid = session.connection().execute(text("SELECT pg_backend_pid()")).scalar_one()
    server.run(f"SELECT pg_terminate_backend({pid})")
    session.connection().execute(text("SELECT 1"))


def test_a_writer_whose_process_is_gone_holds_nobody_up(home: Home, postgresql: Server) -> None:
    def work() -> None:
        with write_session(home.engine) as session:
            session.connection().execute(text("INSERT INTO ledger_head VALUES ('operator', 7, '')"))
            cut(session, postgresql)

    with pytest.raises(DBAPIError):
        work()
    with write_session(home.engine) as session:
        assert session.connection().execute(text("SELECT count(*) FROM ledger_head")).scalar() == 0


def test_a_lost_connection_is_not_mistaken_for_a_busy_database(home: Home, postgresql: Server) -> None:
    # Whether its commit counted is not known, so the same work must not be tried blindly again.
    tries: list[int] = []

    def work(session: Session) -> None:
        tries.append(1)
        cut(session, postgresql)

    with pytest.raises(OperationalError):
        run_write(home.engine, work)
    assert tries == [1]


def test_after_a_restart_of_the_server_work_goes_on(home: Home, postgresql: Server) -> None:
    with read_session(home.engine) as session:
        session.connection()
    # One process of the server dies by force, so it ends every connection and recovers from its log.
    with home.engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    os.kill(pid, signal.SIGKILL)
    postgresql.wait()
    with write_session(home.engine) as session:
        session.connection().execute(text("INSERT INTO ledger_head VALUES ('operator', 0, '')"))
    assert_safe(home.engine)


GONE = "DROP TRIGGER posting_no_change ON posting"
GUARD = "CREATE TRIGGER posting_no_change {} ON posting FOR EACH {} EXECUTE FUNCTION {}()"
NOTHING = "CREATE {} FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
ALL_THREE = "BEFORE UPDATE OR DELETE OR TRUNCATE"


@pytest.mark.parametrize(
    ("guards", "instead"),
    [
        pytest.param(1, "ALTER TABLE posting DISABLE TRIGGER posting_no_change", id="switched off"),
        pytest.param(1, GONE, id="gone"),
        pytest.param(len(APPEND_ONLY), NOTHING.format("OR REPLACE", "refuse_change"), id="hollow"),
        pytest.param(
            1, (GONE, GUARD.format("BEFORE DELETE OR TRUNCATE", "STATEMENT", "refuse_change")), id="not on update"
        ),
        pytest.param(
            1,
            (GONE, GUARD.format("BEFORE UPDATE OF line OR DELETE OR TRUNCATE", "STATEMENT", "refuse_change")),
            id="of one column",
        ),
        pytest.param(1, (GONE, GUARD.format(ALL_THREE, "STATEMENT WHEN (false)", "refuse_change")), id="never"),
        pytest.param(
            1, (GONE, NOTHING.format("", "other"), GUARD.format(ALL_THREE, "STATEMENT", "other")), id="another one"
        ),
    ],
)
def test_a_guard_of_postgresql_that_guards_no_more_is_found(
    home: Home, guards: int, instead: str | tuple[str, ...]
) -> None:
    with write_session(home.engine) as session:
        for statement in (instead,) if isinstance(instead, str) else instead:
            session.connection().exec_driver_sql(statement)
    findings = verify(home.engine)
    assert len(findings) == guards
    assert {"trigger": "posting_no_change"} in [finding.facts for finding in findings]


def test_a_row_that_breaks_a_condition_of_its_table_is_found(home: Home) -> None:
    # As a damaged page would leave it: the server itself looks at conditions only when rows are written.
    posted(home.engine, charge_of_nothing("b"))
    with write_session(home.engine) as session:
        for statement in (
            "ALTER TABLE account_balance DROP CONSTRAINT account_balance_debit_pending_check",
            "UPDATE account_balance SET debit_pending = -1",
            "ALTER TABLE account_balance ADD CONSTRAINT broken CHECK (debit_pending >= 0) NOT VALID",
        ):
            session.connection().exec_driver_sql(statement)
    (finding, *_) = verify(home.engine)
    assert finding.message == "the database is damaged: 2 rows of account_balance break broken"
