"""What the stories about the schedule share: a clock to move, and what they look at."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import text

from hourbook.database import read_session
from hourbook.settings import Home
from invoices import store as invoices
from ledger.store import balances

SHANGHAI = ZoneInfo("Asia/Shanghai")
START = datetime(2026, 11, 21, 12, tzinfo=SHANGHAI)


class Calendar:
    """The clock of a home, moved by the story."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now.astimezone(UTC)


def runs(home: Home) -> list[tuple[str, str]]:
    """Every (job, period) that is recorded as done."""
    with home.engine.connect() as connection:
        return [(job, period) for job, period in connection.execute(text("SELECT job, period_key FROM job_run"))]


def drafts(home: Home, month: str) -> list[tuple[str, int]]:
    """The drafts of a month: customer and total."""
    with read_session(home.engine) as session:
        return [(row.customer, row.total_minor) for row in invoices.drafts(session, month)]


def arrears(home: Home, customer: str = "u-north") -> int:
    with read_session(home.engine) as session:
        found = balances(session, customer=customer)
    return sum(amount for key, amount in found.items() if key.code == "assets:receivable:arrears")


def wait_until(holds: object, seconds: float = 15) -> None:
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
