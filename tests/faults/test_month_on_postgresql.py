"""The sample month on PostgreSQL ends as on SQLite, undisturbed, killed, and run by several processes at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from hourbook.database import open_home, read_session
from tests.homes import URL
from tests.postgresql import Server

from .test_month_killed import finish, outcome, start

pytestmark = pytest.mark.slow

# One point of each kind: the home is half made or done, a batch is in the lake or not, money is posted or not.
POINTS = (
    "apply:before_commit",
    "inbox:after_commit",
    "seal:after_lake",
    "rollup:before_commit",
    "receipt:before_commit",
    "accrue:after_commit",
    "close:after_pin",
    "close:before_commit",
    "close:after_commit",
    "bill:before_commit",
)


def journal(path: Path) -> list[Any]:
    """Every transaction with its link of the chain: the same only if all that was ever posted is the same."""
    home = open_home(path)
    with read_session(home.engine) as session:
        query = text("SELECT sequence, business_key, hash FROM ledger_transaction ORDER BY sequence")
        found = [tuple(row) for row in session.connection().execute(query)]
    home.close()
    return found


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("on-sqlite") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(URL, raising=False)
        assert finish(start(path)) == 0
        return {**outcome(path), "journal": journal(path)}


@pytest.fixture
def home(postgresql: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder for a home whose database, still empty, is one of PostgreSQL's."""
    name = postgresql.new_database()
    monkeypatch.setenv(URL, postgresql.url(name))
    yield tmp_path / "home"
    postgresql.drop(name)


def without_journal(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "journal"}


def test_a_month_has_the_same_documents_balances_and_journal_on_both(on_sqlite: dict[str, Any], home: Path) -> None:
    assert finish(start(home)) == 0
    on_postgresql = {**outcome(home), "journal": journal(home)}
    assert on_postgresql["documents"]
    assert on_postgresql == on_sqlite


@pytest.mark.parametrize("point", POINTS)
def test_a_month_killed_on_postgresql_and_run_again_is_as_if_never_killed(
    point: str, on_sqlite: dict[str, Any], home: Path
) -> None:
    assert finish(start(home, crash_at=point)) == -signal.SIGKILL, f"{point} is never reached"
    assert finish(start(home)) == 0
    assert outcome(home) == without_journal(on_sqlite)


def test_three_processes_closing_at_once_on_postgresql_issue_one_set_of_documents(
    on_sqlite: dict[str, Any], home: Path
) -> None:
    assert finish(start(home, crash_at="close:before_pin")) == -signal.SIGKILL
    together = [start(home), start(home), start(home)]
    assert [finish(process) for process in together] == [0, 0, 0]
    assert outcome(home) == without_journal(on_sqlite)
