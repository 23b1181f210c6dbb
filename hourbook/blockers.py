"""What keeps a month from being closed: each by name, with the command that resolves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from sqlmodel import Session

from base.period import month_period
from hourbook.accruing import open_months
from hourbook.closes import closes_by_month
from hourbook.deriving import DerivedMonth
from hourbook.reading import Reading
from hourbook.settings import Home
from metering import store as metering
from pricing.assignment import assign


@dataclass(frozen=True)
class Blocker:
    """One thing that must be decided first."""

    code: str
    message: str
    command: str  # that resolves it


def blockers_of(home: Home, session: Session, month: str, derived: DerivedMonth) -> Iterator[Blocker]:
    """Yield everything that blocks the close of a month."""
    yield from _not_over(home, month, derived)
    for entry in metering.quarantine(session, status="open", month=month):
        message = f"{entry.id}: {entry.message}"
        yield Blocker(entry.code, message, f"hourbook quarantine show {entry.id}, then hourbook resolve {entry.id} …")
    for exception in derived.assignment.exceptions:
        if exception.month == month:
            yield Blocker(
                exception.code, f"{exception.id}: {exception.message}", _resolving(exception.id, exception.code)
            )


def _resolving(name: str, code: str) -> str:
    if code == "unassigned":
        return f"hourbook resolve {name} --map CUSTOMER/PROJECT --reason TEXT"
    return f"hourbook apply … with what is missing, or hourbook resolve {name} --write-off --reason TEXT"


def _not_over(home: Home, month: str, derived: DerivedMonth) -> Iterator[Blocker]:
    zones = {derived.catalog.zone_name, *derived.catalog.customer_zones.values()}
    for name in sorted(zones):
        if home.now() < month_period(month, ZoneInfo(name)).end:
            yield Blocker(
                "not_over", f"{month} is not over in {name} yet", "wait until it is, or hourbook close --dry-run"
            )


def earlier_open(home: Home, session: Session, month: str, reading: Reading) -> Iterator[Blocker]:
    """Yield earlier months that still hold usage or purchases to charge."""
    earlier = [one for one in open_months(home, session, closes_by_month(session)) if one < month]
    if not earlier:
        return
    catalog = reading.catalog()
    assignment = assign(reading.usage(catalog, earlier[0], earlier[-1]), catalog)
    used = {f"{day:%Y-%m}" for day in assignment.usage["day"].unique()} | {e.month for e in assignment.exceptions}
    used |= {f"{charge.on:%Y-%m}" for charge in catalog.one_offs.values()}
    for one in earlier:
        leased = any(
            f"{lease.valid_from:%Y-%m}" <= one <= f"{lease.last_day:%Y-%m}" for lease in catalog.leases.values()
        )
        if one in used or leased:
            yield Blocker("earlier_month", f"{one} has charges and is not closed", f"hourbook close {one}")
