"""Whoever wants to write has a turn soon, however much others write: in the server and beside it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import pytest
from sqlalchemy.exc import OperationalError

from hourbook.database import is_busy, read_session, write_session
from hourbook.engines import sqlite
from hourbook.engines.turns import NoTurnError, Turns
from hourbook.settings import Home
from tests.homes import NewHome

NOON = datetime(2026, 12, 1, 2, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
WRITERS = 4
ASKED = 20
# How many others write, at the mean, from the look to one's own turn: WRITERS and one under way, and more where the
# machine stops a thread between looking and asking. By SQLite's own way of waiting it is 35 to 55, and up to 370.
MOST_BEFORE = 15
BUSY_SERVER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from hourbook.database import open_home
from hourbook.settings import Settings
from tests.hourbook.test_turns import WRITERS, ceaseless
home = open_home(Path(sys.argv[1]), settings=Settings(database_url=""))
with ceaseless(home, WRITERS):
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    made = new_home(tmp_path / "home", NOON)
    strict = "STRICT" if made.engine.dialect.name == "sqlite" else ""
    with write_session(made.engine) as session:
        session.connection().exec_driver_sql(f"CREATE TABLE counter (value INTEGER NOT NULL) {strict}")
        session.connection().exec_driver_sql("INSERT INTO counter VALUES (0)")
    return made


def count_up(home: Home) -> int:
    """Write once; return how many had written before."""
    with write_session(home.engine) as session:
        connection = session.connection()
        before = int(connection.exec_driver_sql("SELECT value FROM counter").scalar_one())
        connection.exec_driver_sql("UPDATE counter SET value = value + 1")
        return before


def counted(home: Home) -> int:
    with read_session(home.engine) as session:
        return int(session.connection().exec_driver_sql("SELECT value FROM counter").scalar_one())


@contextmanager
def ceaseless(home: Home, writers: int) -> Iterator[None]:
    """Let so many write without any pause."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            count_up(home)

    with ThreadPoolExecutor(writers) as pool:
        asked = [pool.submit(write) for _ in range(writers)]
        try:
            yield
        finally:
            stop.set()
    for one in asked:
        one.result()


def waits(home: Home) -> list[int]:
    """Ask for many turns; return how many others had one meanwhile, each time."""
    passed = []
    for _ in range(ASKED):
        seen = counted(home)
        passed.append(count_up(home) - seen)
        time.sleep(0.01)
    return passed


def test_a_writer_among_many_in_a_server_soon_has_its_turn(home: Home) -> None:
    with ceaseless(home, WRITERS):
        assert fmean(waits(home)) < MOST_BEFORE


@pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)
def test_a_command_beside_a_busy_server_soon_has_its_turn(home: Home) -> None:
    command = [sys.executable, "-c", BUSY_SERVER, str(home.path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdout.readline() == b"writing\n"
        passed = waits(home)
        server.communicate()
    assert server.returncode == 0
    assert fmean(passed) < MOST_BEFORE


@pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)
def test_who_waits_too_long_is_told_that_the_database_is_busy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 50)
    with write_session(home.engine), pytest.raises(OperationalError) as told, write_session(home.engine):
        raise AssertionError("there are two writers")
    assert is_busy(told.value)
    assert count_up(home) == 0


def test_turns_come_in_the_order_of_asking_and_pass_over_whoever_left() -> None:
    turns, order = Turns(), list[int]()

    def take(number: int, seconds: float) -> None:
        with turns.turn(seconds):
            order.append(number)

    with ThreadPoolExecutor(4) as pool:
        with turns.turn(0):
            asked = []
            for number in range(4):
                asked.append(pool.submit(take, number, 0.05 if number == 1 else 60))
                while len(turns._waiting) < len(asked):  # noqa: SLF001 - asked, not only submitted
                    time.sleep(0.001)
            with pytest.raises(NoTurnError):
                asked[1].result()
        for one in (asked[0], asked[2], asked[3]):
            one.result()
    assert order == [0, 2, 3]
