"""A home with its lake, to tell stories of events that are accepted, sealed and rolled up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from hourbook import sealing
from hourbook.database import read_session, run_write
from hourbook.rollups import Window, read_rollup, roll_up_dirty
from hourbook.sealing import Sealed, seal, total_account, usage_accounting
from hourbook.settings import Home
from hourbook.start_check import StartCheck, check_starts
from metering import store
from metering.events import EVENT_SCHEMA, Collected, RejectedEvent
from metering.lake import EventLake
from metering.plan import RollupPlan

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
SHANGHAI = RollupPlan(zones=("Asia/Shanghai",))
MIDNIGHT = 1_795_276_800  # 2026-11-22T00:00:00+08:00
DAY_22 = datetime(2026, 11, 21, 16, tzinfo=UTC)
ONE_DAY = timedelta(days=1)
JOB: Mapping[str, object] = {
    "source": "slurm:hpc1",
    "id": "1:1",
    "revision": 1,
    "revision_derived": True,
    "cluster": "hpc1",
    "partition": "cpu",
    "qos": "normal",
    "account": "grp",
    "user": "alice",
    "job": "1",
    "state": "COMPLETED",
    "start_second": MIDNIGHT,
    "end_second": MIDNIGHT + 100,
    "ended": True,
    "suspended_seconds": 0,
    "cpus": 1,
    "nodes": 1,
    "memory_bytes": 0,
    "cards": "",
    "counters": "",
    "evidence": "{}",
}
BROKEN = RejectedEvent("broken_row", "not 52 columns", b"a|b", 7, source="slurm:hpc1", event_id="1:1", month="2026-11")


@dataclass
class Site:
    """A home with its lake."""

    home: Home
    lake: EventLake = field(init=False)

    def __post_init__(self) -> None:
        self.lake = EventLake(self.home.lake)

    def accept(self, *jobs: Mapping[str, object], rejected: tuple[RejectedEvent, ...] = ()) -> None:
        events = pl.DataFrame([{**JOB, **job} for job in jobs], schema=EVENT_SCHEMA, orient="row")
        collected = Collected(events, rejected, {})
        run_write(self.home.engine, lambda session: store.accept(session, collected, "file", "digest", NOW))

    def seal(self) -> Sealed:
        return seal(self.home.engine, self.lake, NOW)

    def check_starts(self) -> StartCheck:
        return check_starts(self.home)

    def cpu_seconds(self, plan: RollupPlan = SHANGHAI, as_of: int | None = None) -> int:
        with read_session(self.home.engine) as session:
            rows = read_rollup(session, self.lake, plan, Window(DAY_22, DAY_22 + ONE_DAY, as_of))
        return int(rows.filter(pl.col("resource") == "cpu")["quantity"].sum())

    def roll_up(self, plan: RollupPlan = SHANGHAI) -> int:
        return roll_up_dirty(self.home.engine, self.lake, plan, NOW)

    def all_cpu_seconds(self, as_of: int | None = None) -> int:
        """What was used at any time."""
        with read_session(self.home.engine) as session:
            window = Window(datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC), as_of)
            rows = read_rollup(session, self.lake, SHANGHAI, window)
        return int(rows.filter(pl.col("resource") == "cpu")["quantity"].sum())

    def quarantined(self) -> list[tuple[str, str]]:
        with read_session(self.home.engine) as session:
            return [(entry.code, entry.status) for entry in store.quarantine(session)]

    def account(self) -> sealing.BatchAccount:
        """Where all rows went; each file must add up by itself."""
        with read_session(self.home.engine) as session:
            accounts = usage_accounting(session, self.lake)
        assert all(account.accounted == account.rows for account in accounts)
        return total_account(accounts)
