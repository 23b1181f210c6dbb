"""A home's database keeps what it acknowledged, or Hourbook refuses to run on it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, OperationalError
from sqlmodel import SQLModel

from hourbook import database
from hourbook.database import (
    DatabaseUnsafeError,
    HomeError,
    assert_safe,
    create_home,
    make_engine,
    open_home,
    read_session,
    register_tables,
    run_write,
    write_session,
)
from hourbook.migrations.triggers import APPEND_ONLY
from hourbook.settings import DATABASE_FILE, Home, Settings
from tests.homes import BOTH, NewHome
from tests.postgresql import Server

NOON = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)
SHANGHAI = ZoneInfo("Asia/Shanghai")


on_sqlite = pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("new_home", ["postgresql"], indirect=True)


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    made = new_home(tmp_path / "home", NOON)
    strict = "STRICT" if made.engine.dialect.name == "sqlite" else ""
    with write_session(made.engine) as session:
        session.connection().exec_driver_sql(f"CREATE TABLE counter (value INTEGER NOT NULL) {strict}")
        session.connection().exec_driver_sql("INSERT INTO counter VALUES (0)")
    return made


@pytest.fixture(params=BOTH)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a home may be made, with an empty database for it."""
    if request.param == "sqlite":
        yield tmp_path / "home"
        return
    server: Server = request.getfixturevalue("postgresql")
    name = server.new_database()
    monkeypatch.setenv("HOURBOOK_DATABASE_URL", server.url(name))
    yield tmp_path / "home"
    server.drop(name)


def value(engine: Engine) -> int:
    with read_session(engine) as session:
        return int(session.connection().exec_driver_sql("SELECT value FROM counter").scalar_one())


def increment(engine: Engine) -> None:
    with write_session(engine) as session:
        connection = session.connection()
        read = connection.exec_driver_sql("SELECT value FROM counter").scalar_one()
        connection.execute(text("UPDATE counter SET value = :value"), {"value": read + 1})


def test_a_home_with_a_fixed_clock_keeps_it(place: Path) -> None:
    create_home(place, NOON).close()
    home = open_home(place)
    assert home.now() == NOON
    assert home.today(SHANGHAI) == date(2026, 12, 1)
    home.close()


def test_a_home_without_a_fixed_clock_goes_by_the_machines(place: Path) -> None:
    before = datetime.now(UTC)
    home = create_home(place)
    assert before <= home.now() <= datetime.now(UTC)
    home.close()


def test_a_fixed_clock_cannot_be_added_or_moved_later(home: Home, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="append-only"), write_session(home.engine) as session:
        session.connection().exec_driver_sql("UPDATE home SET fixed_clock = 0")
    with pytest.raises(HomeError, match="is a home already"):
        create_home(tmp_path / "home", NOON)
    with closing(open_home(tmp_path / "home")) as opened:
        assert opened.fixed_clock == NOON


def test_a_clock_without_a_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="no zone"):
        create_home(tmp_path / "home", NOON.replace(tzinfo=None))


def test_where_there_is_no_home_the_message_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="init"):
        open_home(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_an_interrupted_init_can_be_run_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(Home, "now", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            create_home(place, NOON)
    with pytest.raises(HomeError, match="no finished home"):
        open_home(place)
    create_home(place, NOON).close()
    with closing(open_home(place)) as home:
        assert home.now() == NOON


def test_a_home_of_another_version_is_not_touched(home: Home) -> None:
    with write_session(home.engine) as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(HomeError, match="schema 9999"):
        open_home(home.path)


@on_sqlite
def test_every_connection_commits_durably_and_checks_references(home: Home) -> None:
    with home.engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


@on_sqlite
@pytest.mark.parametrize(
    "pragma", ["synchronous = NORMAL", "foreign_keys = OFF", "busy_timeout = 100", "recursive_triggers = OFF"]
)
def test_a_database_that_could_lose_money_is_refused(home: Home, pragma: str) -> None:
    loosened = make_engine(str(home.engine.url))
    event.listen(loosened, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))
    with pytest.raises(DatabaseUnsafeError, match=pragma.split(" ", maxsplit=1)[0]):
        assert_safe(loosened)
    loosened.dispose()


@on_sqlite
def test_a_table_that_is_not_strict_is_refused(home: Home) -> None:
    with write_session(home.engine) as session:
        session.connection().exec_driver_sql("CREATE TABLE loose (amount INTEGER)")
    with pytest.raises(DatabaseUnsafeError, match="table loose is not STRICT"):
        open_home(home.path)


def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(DatabaseUnsafeError, match=r"3\.37"):
        make_engine("sqlite:///x.sqlite")


def test_text_in_a_number_column_is_refused_by_the_table(home: Home) -> None:
    refused = pytest.raises((IntegrityError, DataError), match=r"cannot store TEXT|invalid input syntax")
    with refused, write_session(home.engine) as session:
        session.connection().exec_driver_sql("INSERT INTO ledger_head VALUES ('operator', 'many', '')")


def test_eight_writers_that_read_first_lose_no_update(home: Home) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: increment(home.engine), range(80)))
    assert value(home.engine) == 80


@on_sqlite
def test_the_drivers_own_way_to_begin_would_lose_updates(home: Home) -> None:
    # Why sessions begin as they do: two read before either writes, and one of the two increments is gone.
    plain = create_engine(home.engine.url)
    with plain.connect() as first, plain.connect() as second:
        seen = [each.exec_driver_sql("SELECT value FROM counter").scalar_one() for each in (first, second)]
        for each, old in zip((first, second), seen, strict=True):
            each.exec_driver_sql("UPDATE counter SET value = ?", (old + 1,))
            each.commit()
    plain.dispose()
    assert value(home.engine) == 1


def test_a_reader_sees_one_state_while_others_write(home: Home) -> None:
    with read_session(home.engine) as session:
        increment(home.engine)
        assert session.connection().exec_driver_sql("SELECT value FROM counter").scalar_one() == 0
    assert value(home.engine) == 1


def test_a_reader_cannot_write(home: Home) -> None:
    with pytest.raises(DatabaseError, match=r"read-?only"), read_session(home.engine) as session:
        session.connection().exec_driver_sql("UPDATE counter SET value = 9")
    increment(home.engine)
    assert value(home.engine) == 1


def test_an_error_undoes_everything_that_the_session_wrote(home: Home) -> None:
    def write_and_fail() -> None:
        with write_session(home.engine) as session:
            session.connection().exec_driver_sql("UPDATE counter SET value = 9")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        write_and_fail()
    assert value(home.engine) == 0


def busy() -> OperationalError:
    original = sqlite3.OperationalError("database is locked")
    original.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return OperationalError("UPDATE", {}, original)


@pytest.mark.parametrize(("failures", "attempts"), [(2, 3), (9, 5)])
def test_work_is_tried_again_while_the_database_is_busy_but_not_for_ever(
    home: Home, monkeypatch: pytest.MonkeyPatch, failures: int, attempts: int
) -> None:
    monkeypatch.setattr(database, "BUSY_PAUSE_SECONDS", 0)
    tries: list[int] = []

    def work(_: object) -> str:
        tries.append(1)
        if len(tries) <= failures:
            raise busy()
        return "done"

    if failures < attempts:
        assert run_write(home.engine, work) == "done"
    else:
        with pytest.raises(OperationalError):
            run_write(home.engine, work)
    assert len(tries) == attempts


def test_work_that_fails_for_another_reason_is_not_tried_again(home: Home) -> None:
    tries: list[int] = []

    def work(_: object) -> None:
        tries.append(1)
        raise IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE"))

    with pytest.raises(IntegrityError):
        run_write(home.engine, work)
    assert len(tries) == 1


def test_every_declared_table_is_in_a_new_home(home: Home) -> None:
    register_tables()
    present = set(inspect(home.engine).get_table_names())
    assert set(SQLModel.metadata.tables) <= present
    assert set(APPEND_ONLY) <= present


@on_sqlite
def test_every_table_of_sqlite_is_strict(home: Home) -> None:
    register_tables()
    with home.engine.connect() as connection:
        rows = connection.execute(text("PRAGMA table_list")).mappings().all()
    strict = {row["name"] for row in rows if row["strict"]}
    assert set(SQLModel.metadata.tables) <= strict


def test_the_environment_names_home_and_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Settings().home == Path("hourbook-data")
    assert Settings().url_of(tmp_path) == f"sqlite:///{tmp_path / DATABASE_FILE}"
    monkeypatch.setenv("HOURBOOK_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("HOURBOOK_DATABASE_URL", f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    create_home(Settings().home, NOON).close()
    assert (tmp_path / "elsewhere.sqlite").is_file()
    assert open_home(Settings().home).now() == NOON


@pytest.mark.parametrize("url", ["mysql://localhost/hourbook", "postgresql+psycopg2://localhost/hourbook"])
def test_a_database_that_is_not_supported_is_named(url: str) -> None:
    with pytest.raises(DatabaseUnsafeError, match=f"^{re.escape(make_url(url).drivername)} is not supported"):
        make_engine(url)
