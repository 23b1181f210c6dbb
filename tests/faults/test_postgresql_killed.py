"""PostgreSQL's processes are killed while money is posted: nothing acknowledged is lost, nothing counts twice."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from hourbook.audit import verify
from hourbook.database import read_session, write_session
from hourbook.settings import Home
from ledger.accounts import AccountKey
from ledger.journal import transaction_from_movements
from ledger.store import balances, post, transactions
from tests.homes import NewHome
from tests.postgresql import Server

NOW = datetime(2026, 11, 3, 2, 0, tzinfo=UTC)
BANK = AccountKey("assets:bank")
KILLS = 50
WRITERS = 3
SEED = 20_261_103

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("new_home", ["postgresql"], indirect=True)]


@pytest.fixture
def home(new_home: NewHome, tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", NOW)


def end_politely(server: Server, process: int) -> None:
    """End one connection, wherever its work is: before, in or after its commit."""
    server.run(f"SELECT pg_terminate_backend({process})")


def kill(server: Server, process: int) -> None:
    """Kill one process: the server ends every connection at once and recovers from its log."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    server.wait()


def writer(home: Home, name: int, stop: threading.Event, acknowledged: list[str]) -> None:
    """Post one business fact after the other, each again and again until it is acknowledged."""
    number = 0
    own = AccountKey("income:usage", detail=f"writer-{name}")
    while not stop.is_set():
        key = f"{name}:{number}"
        made = transaction_from_movements("test", key, {BANK: 1, own: -1}, effective_on=date(2026, 11, 3), narration="")
        with suppress(DBAPIError):
            with write_session(home.engine) as session:
                post(session, made, NOW)
            acknowledged.append(key)
            number += 1


def busy_processes(home: Home) -> list[int]:
    query = text("SELECT pid FROM pg_stat_activity WHERE application_name = 'hourbook' AND pid <> pg_backend_pid()")
    with read_session(home.engine) as session:
        return list(session.connection().execute(query).scalars())


@pytest.mark.parametrize("end", [end_politely, kill])
def test_nothing_acknowledged_is_lost_and_nothing_counts_twice(
    home: Home, postgresql: Server, end: Callable[[Server, int], None]
) -> None:
    chance = random.Random(SEED)  # noqa: S311 - which process, not a secret
    stop, acknowledged, done = threading.Event(), list[str](), 0
    threads = [threading.Thread(target=writer, args=(home, name, stop, acknowledged)) for name in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        while done < KILLS:
            time.sleep(chance.uniform(0.01, 0.08))
            with suppress(DBAPIError):
                if found := busy_processes(home):
                    end(postgresql, chance.choice(found))
                    done += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    with read_session(home.engine) as session:
        stored = [each.transaction.business_key for each in transactions(session)]
        assert balances(session)[BANK] == len(stored)
    assert len(acknowledged) > KILLS, f"too little was written while processes were killed (seed {SEED})"
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored), f"acknowledged work was lost (seed {SEED})"
    assert len(stored) - len(acknowledged) <= WRITERS, "only each writer's last fact may be unacknowledged"
    assert verify(home.engine) == []
