"""A database that cannot be used for a while: told as 503 with Retry-After, in words, and over when it is over."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from typer.testing import CliRunner

from hourbook.cli.main import app
from hourbook.database import outage, read_session, run_write, write_session
from hourbook.engines import sqlite
from hourbook.engines.safety import Outage
from hourbook.importing import accept_payload
from hourbook.receiving import TopUp, receive
from hourbook.refreshing import refresh
from hourbook.sealing import LEASE
from hourbook.settings import Home
from metering import store as metering
from metering.cloud_events import read_events
from metering.lake import EventLake
from tests.homes import NewHome
from tests.hourbook.served import NORTH, Served, served, usage_event

NOW = datetime(2026, 11, 3, 2, 0, tzinfo=UTC)
BATCH = "application/cloudevents-batch+json"
FULL = "PRAGMA max_page_count = 1"  # no page more than there are: SQLite says that the disk is full
READ_ONLY = "PRAGMA query_only = ON"


@pytest.fixture
def hourbook(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as one:
        yield one


class Spoilt:
    """Lets every transaction of a home fail at its first write that needs what is not there."""

    def __init__(self, home: Home, how: str) -> None:
        self.home, self.how = home, how

    def __enter__(self) -> None:
        event.listen(self.home.engine, "begin", self._spoil)

    def __exit__(self, *_: object) -> None:
        event.remove(self.home.engine, "begin", self._spoil)
        with self.home.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 4294967294")

    def _spoil(self, connection: Connection) -> None:
        connection.exec_driver_sql(self.how)


def post(hourbook: Served, *numbers: int) -> Any:  # noqa: ANN401 - a response
    # Long enough that the database must grow for it.
    events = [usage_event(number, day=1 + number % 28, user=f"user-{number}" * 5) for number in numbers]
    headers = {**hourbook.bearer("collector"), "Content-Type": BATCH}
    return hourbook.client.post("/v1/events", content=orjson.dumps(events), headers=headers)


@pytest.mark.parametrize(
    ("how", "why"), [(FULL, "its disk is full"), (READ_ONLY, "it cannot be written to")], ids=["full", "read-only"]
)
def test_usage_that_cannot_be_kept_is_answered_with_503_and_taken_once_it_can(
    how: str, why: str, hourbook: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with Spoilt(hourbook.home, how):
        refused = post(hourbook, *range(1000, 1500))
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "5"
    assert refused.json()["error"] == {
        "code": "unavailable",
        "message": f"the database cannot be used: {why}; send the same again later",
    }
    assert any(why in record.getMessage() and record.levelname == "ERROR" for record in caplog.records)
    assert post(hourbook, *range(1000, 1500)).status_code == 202


def test_a_command_says_in_words_that_the_disk_cannot_be_written_to(
    hourbook: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--home", str(hourbook.home.path), "topup", NORTH, "12.00", "--reference", "bank-9"]
    monkeypatch.delenv("HOURBOOK_DATABASE_URL", raising=False)

    begin = sqlite._begin  # noqa: SLF001

    def begin_without_a_disk(connection: Connection) -> None:
        begin(connection)
        connection.exec_driver_sql(READ_ONLY)

    monkeypatch.setattr(sqlite, "_begin", begin_without_a_disk)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "the database cannot be used: it cannot be written to" in result.stderr
    assert "run the same command again" in result.stderr


def test_a_failure_of_the_work_itself_is_no_outage(hourbook: Served) -> None:
    with pytest.raises(IntegrityError) as raised, write_session(hourbook.home.engine) as session:
        session.connection().execute(text("INSERT INTO home (id, created_at) VALUES (7, 1)"))
    assert outage(raised.value) is None


@pytest.mark.parametrize("new_home", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("53100", Outage.full),
        ("58030", Outage.failing),
        ("25006", Outage.read_only),
        ("57P01", Outage.unreachable),
        ("57P03", Outage.unreachable),
        ("53300", Outage.unreachable),
        ("23505", None),
        ("40001", None),
    ],
)
def test_the_codes_of_postgresql_are_told_apart(
    code: str, why: Outage | None, new_home: NewHome, tmp_path: Path
) -> None:
    home = new_home(tmp_path / "home", NOW)
    raises = text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$")
    with pytest.raises(DBAPIError) as raised, write_session(home.engine) as session:
        session.connection().execute(raises)
    assert outage(raised.value) == why


@pytest.mark.parametrize("new_home", ["postgresql"], indirect=True)
def test_a_connection_that_is_cut_is_an_outage(new_home: NewHome, tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", NOW)
    with pytest.raises(DBAPIError) as raised, write_session(home.engine) as session:
        session.connection().execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert outage(raised.value) is Outage.unreachable


def test_a_lease_that_this_process_left_behind_keeps_no_one_from_sealing(hourbook: Served) -> None:
    # Its disk failed when it was to give the lease back; or the process before it, in a container, had its number.
    home = hourbook.home
    holder = f"{socket.gethostname()} {os.getpid()} 0123abcd"
    until = datetime.now(UTC) + timedelta(hours=1)
    run_write(home.engine, lambda session: metering.take_lease(session, LEASE, holder, until))
    payload = orjson.dumps([usage_event(500)])
    collected = read_events(payload, format="json", now=home.now())
    accept_payload(home, payload, collected, kind="cloud_events", origin="test")
    begun = datetime.now(UTC)
    assert refresh(home).sealed.events == 1
    assert datetime.now(UTC) - begun < timedelta(seconds=30)
    assert EventLake(home.lake).scan().collect()["id"].to_list().count("job-500") == 1


def test_a_receipt_is_not_kept_by_half_when_the_disk_fills_up(hourbook: Served) -> None:
    receipt = TopUp(NORTH, 1200, "bank-77", date(2026, 11, 20))
    with Spoilt(hourbook.home, READ_ONLY), pytest.raises(DBAPIError):
        receive(hourbook.home, receipt)
    query = text("SELECT count(*) FROM ledger_transaction WHERE business_key LIKE '%bank-77'")
    with read_session(hourbook.home.engine) as session:
        assert session.connection().execute(query).scalar_one() == 0
    assert receive(hourbook.home, receipt)
    assert not receive(hourbook.home, receipt)
