"""Accrual: post the difference between what the open months cost now and what was posted for them so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlmodel import Session

from base.period import each_month, month_days, month_of
from hourbook import facts
from hourbook.closes import closes_by_month, closing_pins
from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
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

TRIES_BESIDE_OTHERS = 3


@dataclass(frozen=True)
class Accrued:
    """What one run of accrual posted."""

    months: tuple[str, ...] = ()
    customers: int = 0  # whose postings changed
    transactions: int = 0


def accrue_open_months(home: Home) -> Accrued:
    """Bring the books of every month that is not closed up to all usage recorded so far.

    Charges are derived beside other writers and posted only if nothing they depend on has changed meanwhile, so two
    runs at once have the effect of one after the other, and whoever sends usage does not wait for the sums.
    """
    refresh(home)
    for _ in range(TRIES_BESIDE_OTHERS):
        with read_session(home.engine) as session:
            basis = _basis(home, session)
            derived = _derived(home, session, basis)
        accrued = run_write(home.engine, partial(_post_if_unchanged, home, basis, derived))
        if accrued is not None:
            break
    else:  # too much changes: once more, as the only writer from the first moment
        accrued = run_write(home.engine, partial(_accrue, home))
    crash_point("accrue:after_commit")
    return accrued


@dataclass(frozen=True)
class _Basis:
    """All that the charges of open months depend on."""

    pins: Pins
    closed: Mapping[str, Pins]
    months: tuple[str, ...]
    today: date  # in the billing zone; leases grow day by day


def _basis(home: Home, session: Session) -> _Basis:
    closed = closes_by_month(session)
    closing = closing_pins(session)
    # While a month is being closed, all are charged as of the numbers that it pinned.
    pins = closing[1] if closing else current_pins(session)
    zone = Catalog.from_facts(facts.as_of(session)).zone()
    return _Basis(pins, closed, tuple(open_months(home, session, closed)), home.today(zone))


def _derived(home: Home, session: Session, basis: _Basis) -> dict[str, DerivedMonth]:
    reading = Reading(home, session, basis.pins, basis.closed)
    return derive(reading, basis.months) if basis.months else {}


def _post_if_unchanged(
    home: Home, basis: _Basis, derived: Mapping[str, DerivedMonth], session: Session
) -> Accrued | None:
    if _basis(home, session) != basis:
        return None
    return post_differences(home, session, derived, basis.pins)


def _accrue(home: Home, session: Session) -> Accrued:
    basis = _basis(home, session)
    return post_differences(home, session, _derived(home, session, basis), basis.pins)


def post_differences(home: Home, session: Session, derived: Mapping[str, DerivedMonth], pins: Pins) -> Accrued:
    """Post, per customer and month, what is charged now less what earlier accruals of that month posted."""
    due: dict[str, list[tuple[str, Movements]]] = defaultdict(list)
    back: dict[str, list[tuple[str, Movements]]] = defaultdict(list)
    for month, one in derived.items():
        posted = _posted(session, month)
        for customer in sorted({*one.customers, *posted}):
            before = posted.get(customer, {})
            back[customer].append((month, {key: -amount for key, amount in before.items()}))
            if difference := _less(_charged(one, customer), before):
                due[customer].append((month, difference))
    transactions = 0
    for customer, changes in sorted(due.items()):
        again = [(month, _charged(derived[month], customer)) for month in derived]
        from_scratch = [*reversed(back[customer]), *again]
        transactions += _post_changes(_Poster(home, session, customer, pins), changes, from_scratch)
    crash_point("accrue:before_commit")
    return Accrued(tuple(derived), len(due), transactions)


def _posted(session: Session, month: str) -> Mapping[str, Movements]:
    by_customer: dict[str, dict[AccountKey, int]] = defaultdict(dict)
    for key, amount in ledger.movements(session, kinds=("accrual",), periods=(month,)).items():
        by_customer[key.customer][key] = amount
    return by_customer


def _charged(derived: DerivedMonth, customer: str) -> Movements:
    month = derived.customers.get(customer)
    return month.accrual.movements if month else {}


def _less(now: Movements, before: Movements) -> Movements:
    difference = {key: now.get(key, 0) - before.get(key, 0) for key in sorted({*now, *before})}
    return {key: amount for key, amount in difference.items() if amount}


@dataclass(frozen=True)
class _Poster:
    """Posts one customer's accruals."""

    home: Home
    session: Session
    customer: str
    pins: Pins

    def post(self, changes: Sequence[tuple[str, Movements]]) -> int:
        """Post what is not empty, each as the next accrual of its month; return how many."""
        moving = [(month, moved) for month, moved in changes if any(moved.values())]
        for month, moved in moving:
            number = _count(self.session, self.customer, month) + 1
            ledger.post(self.session, _transaction(self, month, number, moved), self.home.now())
        return len(moving)


def _post_changes(
    poster: _Poster, changes: Sequence[tuple[str, Movements]], from_scratch: Sequence[tuple[str, Movements]]
) -> int:
    """Post a customer's differences in an order in which no lot, pack or grant is short on the way."""
    try:
        with poster.session.begin_nested():
            # What gives money back to a lot goes first.
            return poster.post(sorted(changes, key=lambda change: _taken(change[1])))
    except ledger.InsufficientFundsError:
        # Months exchange several lots: go back month by month to where they opened, and forward again.
        return poster.post(from_scratch)


def _taken(difference: Movements) -> int:
    return sum(amount for key, amount in difference.items() if key.kind.has_floor)


def _count(session: Session, customer: str, month: str) -> int:
    table = TRANSACTION
    query = select(func.count()).where(table.c.customer == customer, table.c.period == month, table.c.kind == "accrual")
    return int(session.connection().execute(query).scalar_one())


def _transaction(poster: _Poster, month: str, number: int, moved: Movements) -> Transaction:
    last, today, pins = month_days(month)[1], poster.home.now().date(), poster.pins
    return transaction_from_movements(
        "accrual",
        f"accrual:{poster.customer}:{month}:{number}",
        moved,
        effective_on=min(last, today),
        narration=f"Usage of {month}, accrual {number}",
        metadata={"period": month, "recorded_seq": pins.recorded_seq, "config_seq": pins.config_seq},
    )


def open_months(home: Home, session: Session, closed: Collection[str]) -> list[str]:
    """Return the months to charge, oldest first without a gap: from the first with usage or purchases to today's.

    A month before a closed one is settled, even if it had nothing to close: what comes later for it is an adjustment.
    """
    catalog = Catalog.from_facts(facts.as_of(session))
    if not catalog.customers:
        return []
    zone = ZoneInfo(catalog.zone_name)
    last = month_of(home.today(zone))
    starts = [first_month_of_usage(home, zone), month_of_first_purchase(catalog), last]
    settled = max(closed, default="")
    return [month for month in each_month(min(start for start in starts if start), last) if month > settled]
