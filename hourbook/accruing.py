"""Accrual: post the difference between what the open months cost now and what was posted for them so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlmodel import Session

from base.period import month_days, month_of, next_month_start
from hourbook import facts
from hourbook.closes import closes_by_month, closing_pins
from hourbook.crash import crash_point
from hourbook.database import run_write
from hourbook.deriving import DerivedMonth, derive
from hourbook.reading import Pins, Reading
from hourbook.refreshing import current_pins, first_month_of_usage, month_of_first_purchase, refresh
from hourbook.settings import Home
from ledger import store as ledger
from ledger.accounts import AccountKey
from ledger.journal import Transaction, transaction_from_movements
from ledger.store.tables import TRANSACTION
from pricing.catalog import Catalog

Movements = Mapping[AccountKey, int]


@dataclass(frozen=True)
class Accrued:
    """What one run of accrual posted."""

    months: tuple[str, ...] = ()
    customers: int = 0  # whose postings changed
    transactions: int = 0


def accrue_open_months(home: Home) -> Accrued:
    """Bring the books of every month that is not closed up to all usage recorded so far.

    Everything is read and posted in one transaction, so two runs at once have the effect of one after the other.
    """
    refresh(home)
    accrued = run_write(home.engine, lambda session: _accrue(home, session))
    crash_point("accrue:after_commit")
    return accrued


def _accrue(home: Home, session: Session) -> Accrued:
    closed = closes_by_month(session)
    closing = closing_pins(session)
    months = open_months(home, session, closed)
    # A month that is being closed is charged as of the numbers it pinned; later ones wait for it.
    pins = closing[1] if closing else current_pins(session)
    if closing:
        months = [closing[0]]
    if not months:
        return Accrued()
    derived = derive(Reading(home, session, pins, closed), months)
    return post_differences(home, session, derived, pins)


def post_differences(home: Home, session: Session, derived: Mapping[str, DerivedMonth], pins: Pins) -> Accrued:
    """Post, per customer and month, what is charged now less what earlier accruals of that month posted."""
    due: dict[str, list[tuple[str, Movements]]] = defaultdict(list)
    for month, one in derived.items():
        for customer, difference in _differences(session, month, one).items():
            due[customer].append((month, difference))
    posted = 0
    for customer, changes in sorted(due.items()):
        # What gives money back to a lot goes first, so that no lot is short for a moment only.
        for month, difference in sorted(changes, key=lambda change: _taken_from_lots(change[1])):
            number = _count(session, customer, month) + 1
            ledger.post(session, _transaction(customer, month, number, difference, pins, home), home.now())
            posted += 1
    crash_point("accrue:before_commit")
    return Accrued(tuple(derived), len(due), posted)


def _differences(session: Session, month: str, derived: DerivedMonth) -> Mapping[str, Movements]:
    moved = ledger.movements(session, kinds=("accrual",), periods=(month,))
    differences: dict[str, dict[AccountKey, int]] = defaultdict(dict)
    for customer, one in derived.customers.items():
        differences[customer].update(one.accrual.movements)
    for key, amount in moved.items():
        own = differences[key.customer]
        own[key] = own.get(key, 0) - amount
    trimmed = {name: {key: amount for key, amount in own.items() if amount} for name, own in differences.items()}
    return {name: own for name, own in trimmed.items() if own}


def _taken_from_lots(difference: Movements) -> int:
    return sum(amount for key, amount in difference.items() if key.code == "liabilities:contract")


def _count(session: Session, customer: str, month: str) -> int:
    table = TRANSACTION
    query = select(func.count()).where(table.c.customer == customer, table.c.period == month, table.c.kind == "accrual")
    return int(session.connection().execute(query).scalar_one())


def _transaction(customer: str, month: str, number: int, difference: Movements, pins: Pins, home: Home) -> Transaction:
    last = month_days(month)[1]
    today = home.now().date()
    return transaction_from_movements(
        "accrual",
        f"accrual:{customer}:{month}:{number}",
        difference,
        effective_on=min(last, today),
        narration=f"Usage of {month}, accrual {number}",
        metadata={"period": month, "recorded_seq": pins.recorded_seq, "config_seq": pins.config_seq},
    )


def open_months(home: Home, session: Session, closed: Container[str]) -> list[str]:
    """Return the months to charge, oldest first without a gap: from the first with usage or purchases to today's."""
    catalog = Catalog.from_facts(facts.as_of(session))
    if not catalog.customers:
        return []
    zone = ZoneInfo(catalog.zone_name)
    last = month_of(home.today(zone))
    starts = [first_month_of_usage(home, zone), month_of_first_purchase(catalog), last]
    months, day = [], month_days(min(start for start in starts if start))[0]
    while month_of(day) <= last:
        if month_of(day) not in closed:
            months.append(month_of(day))
        day = next_month_start(day)
    return months
