"""What one event was billed as: its part of each line, on each document, by quantity.

Each close charges what of the event was not charged before: all of it in the month it ran, and afterwards what later
rows of it changed. The last step is what the open months charge as things stand now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import polars as pl
from sqlmodel import Session

from base.period import month_of
from hourbook.accruing import open_months
from hourbook.closes import closes_by_month
from hourbook.deriving import DerivedMonth, derive
from hourbook.reading import Pins, Reading
from hourbook.refreshing import current_pins
from hourbook.settings import Home
from invoices import store as invoices
from metering import store as metering
from metering.identity import winners
from metering.plan import RollupPlan
from metering.rollup import roll_up
from pricing.assignment import assign
from pricing.charges import UNIT_SCALE, ChargeLine, Split

# Of the event's usage, what a line's splits are told apart by.
Place = tuple[str, str, str, str, str, date, str]  # customer, contract, sku, project, user, day, cluster


@dataclass(frozen=True)
class BilledShare:
    """The event's part of one line."""

    charged_in: str  # the month whose close charges it
    document: str  # number and line, "" where it is not issued yet
    original_month: str
    customer: str
    project: str
    user: str
    sku: str
    quantity: Fraction  # in the unit; below zero where a correction gives back
    unit: str
    amount: Fraction  # minor units: the line's amount, by quantity
    currency: str
    recorded_seq: int  # the row of the event that counted then; 0 where none did
    blocked: str = ""  # why it cannot be charged: the name of the exception


def billed_shares(home: Home, session: Session, rows: pl.DataFrame) -> Iterator[BilledShare]:
    """Yield an event's part of every document line, oldest close first, then of what is not billed yet."""
    closed = closes_by_month(session)
    first = _month(rows["start_second"].min())
    before: dict[Place, int] = {}
    for month, pins in sorted(closed.items()):
        if month < first:
            continue
        reading = Reading(home, session, pins, {m: p for m, p in closed.items() if m < month})
        step = _Step(reading, rows, [month])
        changes = step.changes(before)
        before |= changes.now
        yield from step.shares(changes.moved, _documents(session, month))
    months = open_months(home, session, closed)
    if months:
        step = _Step(Reading(home, session, current_pins(session), closed), rows, months)
        changes = step.changes(before)
        yield from step.shares(changes.moved, {})
        yield from step.exceptions()


def usage_of(rows: pl.DataFrame, plan: RollupPlan) -> pl.DataFrame:
    """Return the rollup of the given rows of an event, as the lake's rows of its dates would give it."""
    return roll_up(rows, plan)


def _month(second: object) -> str:
    assert isinstance(second, int)  # noqa: S101 - the event has rows
    # A zone west of UTC may reckon the first hours of a month to the one before.
    return month_of((datetime.fromtimestamp(second, UTC) - timedelta(days=1)).date())


@dataclass(frozen=True)
class _Changes:
    """What of the event is charged so far, and what of that is new."""

    now: Mapping[Place, int]
    moved: Mapping[Place, int]


class _Step:
    """One close, or the open months: what of the event it charges."""

    def __init__(self, reading: Reading, rows: pl.DataFrame, months: Sequence[str]) -> None:
        self._reading = reading
        self._months = months
        self._catalog = reading.catalog()
        self._rows = rows.filter(pl.col("recorded_seq") <= reading.pins.recorded_seq)
        self._assignment = assign(usage_of(self._rows, _plan(reading.session, reading.pins)), self._catalog)

    def changes(self, before: Mapping[Place, int]) -> _Changes:
        """Compare the event's usage up to these months with what closes before charged."""
        usage = self._assignment.usage.filter(pl.col("day").dt.strftime("%Y-%m") <= self._months[-1])
        columns = ("customer", "contract", "sku", "project", "user", "day", "cluster", "quantity")
        now: dict[Place, int] = {tuple(row[:-1]): row[-1] for row in usage.select(columns).iter_rows()}
        moved = {key: now.get(key, 0) - before.get(key, 0) for key in sorted({*now, *before})}
        return _Changes(
            {**dict.fromkeys(before, 0), **now}, {key: quantity for key, quantity in moved.items() if quantity}
        )

    def shares(self, moved: Mapping[Place, int], documents: Mapping[str, str]) -> Iterator[BilledShare]:
        """Yield the event's part of the lines that charge what moved, summed over days."""
        if not moved:
            return
        derived = derive(self._reading, self._months)
        sums: dict[tuple[str, str, str, str], list[Fraction]] = defaultdict(lambda: [Fraction(0), Fraction(0)])
        named: dict[tuple[str, str, str, str], tuple[str, ChargeLine]] = {}
        for key, quantity in moved.items():
            close, found = _splits(derived, key)
            total = sum(split.quantity for _, split in found)
            for line, split in found:
                part = Fraction(quantity, total) if total else Fraction(0)
                name = (close, line.key.line_id, split.project, split.user)
                named[name] = (close, line)
                sums[name][0] += split.quantity * part
                sums[name][1] += split.amount_minor * part
        for name, (quantity_sum, amount) in sorted(sums.items()):
            close, line = named[name]
            yield self._share(name, line, quantity_sum, amount, documents.get(line.key.line_id, ""))

    def _share(
        self, name: tuple[str, str, str, str], line: ChargeLine, quantity: Fraction, amount: Fraction, document: str
    ) -> BilledShare:
        counting = winners(self._rows)
        return BilledShare(
            charged_in=name[0],
            document=document,
            original_month=line.key.original_month,
            customer=line.key.customer,
            project=name[2],
            user=name[3],
            sku=line.key.sku,
            quantity=quantity / UNIT_SCALE[line.unit],
            unit=line.unit,
            amount=amount,
            currency=self._catalog.currency,
            recorded_seq=counting["recorded_seq"][0] if counting.height else 0,
        )

    def exceptions(self) -> Iterator[BilledShare]:
        """Yield what of the event nobody can be charged for as things stand."""
        for one in self._assignment.exceptions:
            yield BilledShare(
                charged_in="",
                document="",
                original_month=one.month,
                customer="",
                project="",
                user=one.user,
                sku=one.sku,
                quantity=Fraction(one.quantity),
                unit=f"of {one.resource}, as the rollup counts it",
                amount=Fraction(0),
                currency=self._catalog.currency,
                recorded_seq=0,
                blocked=f"{one.id} {one.code}",
            )


def _plan(session: Session, pins: Pins) -> RollupPlan:
    return metering.plan_of(session, pins.plan)


def _splits(derived: Mapping[str, DerivedMonth], key: Place) -> tuple[str, list[tuple[ChargeLine, Split]]]:
    """Return the lines, and their splits, that charge a place, and the month that does so."""
    customer, contract, sku, project, user, day, cluster = key
    original = month_of(day)
    close = original if original in derived else next(iter(derived))
    month = derived[close].customers.get(customer)
    lines = () if month is None else (month.lines if original in derived else month.adjustments)
    found = [
        (line, split)
        for line in lines
        if (line.key.contract, line.key.sku, line.key.original_month) == (contract, sku, original)
        for split in line.splits
        if (split.project, split.user, split.day, split.cluster) == (project, user, day, cluster)
    ]
    return close, found


def _documents(session: Session, month: str) -> dict[str, str]:
    """Return, for each line of a month's documents, where it stands."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in invoices.documents(session, month=month):
        content = invoices.content_of(row)
        for line in content.lines:
            found[line.line_id].append(f"{content.number} line {line.n}")
    return {line_id: ", ".join(places) for line_id, places in found.items()}
