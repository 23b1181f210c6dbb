"""From the inbox to rolled-up usage: what every report, accrual and close starts with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import polars as pl
from sqlalchemy import func
from sqlmodel import Session, col, select

from base.period import local_day, month_of
from hourbook import facts
from hourbook.database import read_session
from hourbook.lake_check import refuse_other_lake
from hourbook.reading import Pins, purchase_days
from hourbook.rollups import CountDates, count_here, roll_up_dirty
from hourbook.sealing import Sealed, seal
from hourbook.settings import Home
from ledger import store as ledger
from metering import store as metering
from metering.lake import EventLake
from metering.plan import RollupPlan
from pricing.catalog import Catalog
from reconciliation.contract import SupplierContract

Progress = Callable[[str, int, int], None]  # step, done, to do


@dataclass(frozen=True)
class Refreshed:
    """What came into the lake, and how many dates were counted again."""

    sealed: Sealed
    dates: int


def refresh(
    home: Home, progress: Progress = lambda _step, _done, _all: None, *, count: CountDates = count_here
) -> Refreshed:
    """Seal what waits in the inbox, then roll up the dates that it touched."""
    lake = EventLake(home.lake)
    progress("seal", 0, 1)
    sealed = seal_waiting(home, lake)
    progress("seal", 1, 1)
    with read_session(home.engine) as session:
        plan = plan_now(session)
    dates = roll_up_dirty(
        home.engine, lake, plan, home.now(), lambda done, every: progress("roll up", done, every), count
    )
    return Refreshed(sealed, dates)


def seal_waiting(home: Home, lake: EventLake | None = None) -> Sealed:
    """Seal what waits in the inbox: from then on it is in every report."""
    lake = lake or EventLake(home.lake)
    with read_session(home.engine) as session:
        refuse_other_lake(session, lake)
    return seal(home.engine, lake, home.now())


def plan_now(session: Session) -> RollupPlan:
    """Return the rollup plan that the configuration asks for: every zone in use, and all measures."""
    recorded = facts.as_of(session)
    contracts = [SupplierContract.model_validate(body) for body in recorded.get("supplier_contract", {}).values()]
    zones = sorted({contract.timezone for contract in contracts if contract.timezone})
    return Catalog.from_facts(recorded).rollup_plan(zones)


def current_pins(session: Session) -> Pins:
    """Return the numbers as of now: what is sealed, counted, applied and posted."""
    plan = metering.plan_number(session, plan_now(session))
    if plan is None:
        raise LookupError("usage is not rolled up under the present configuration; refresh first")
    return Pins(
        recorded_seq=sealed_to(session),
        plan=plan,
        config_seq=facts.latest(session),
        ledger_seq=ledger.head(session)[0],
    )


def sealed_to(session: Session) -> int:
    """Return the recorded number up to which the lake, or quarantine, holds every event."""
    row = metering.InboxBatchRow
    sealed = select(func.max(row.first_seq + row.events - 1)).where(col(row.sealed).is_(other=True))
    return session.exec(sealed).one() or 0


def first_month_of_usage(home: Home, zone: ZoneInfo) -> str | None:
    """Return the month in which the first known usage began; None where there is none."""
    lake = EventLake(home.lake)
    dates = lake.dates()
    if not dates:
        return None
    second = lake.scan([dates[0]]).select(pl.col("start_second").min()).collect().item()
    return month_of(local_day(datetime.fromtimestamp(second, UTC), zone))


def month_of_first_purchase(catalog: Catalog) -> str | None:
    """Return the month in which the first lease begins or the first one-off charge falls."""
    days = purchase_days(catalog)
    return month_of(min(days)) if days else None
