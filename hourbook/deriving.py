"""What was used and what it costs, for every customer, as of a set of numbers: the same numbers give the same months.

Accrual derives the open months as of now, the close derives one month as of the numbers it pinned, and `rebuild` does
it again later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

from base.period import month_days
from hourbook.adjusting import Side, adjustments, pack_states, pack_use
from hourbook.reading import Reading, Sources
from invoices.month import CustomerMonth, Opening, derive_month, draws_by_line, next_opening, sum_lines
from ledger.drawdown import SourceKind
from pricing.assignment import Assignment, assign
from pricing.catalog import Catalog
from pricing.charges import ChargeLine
from pricing.packs import PackState
from pricing.rating import rate_all

Lines = Mapping[str, Sequence[ChargeLine]]  # by customer
Given = dict[str, list[tuple[SourceKind, str, int]]]  # by line: what it was drawn from


@dataclass(frozen=True)
class DerivedMonth:
    """A month of all customers, with the usage that nobody can be charged for yet."""

    month: str
    catalog: Catalog
    assignment: Assignment
    customers: Mapping[str, CustomerMonth]
    sources: Sources


class _History:
    """Closed months as they were charged, each derived once however often it is asked for."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._months: dict[str, DerivedMonth] = {}

    def customers(self, month: str) -> Mapping[str, CustomerMonth]:
        """Return what a close charged, as of the numbers it pinned."""
        if month not in self._months:
            self._months[month] = _derive(self._reading.as_charged(month), [month], self)[month]
        return self._months[month].customers

    def charged(self, month: str, closed: Iterable[str]) -> tuple[ChargeLine, ...]:
        """Return what these closes charged for a month in all, its later adjustments included."""
        lines = (
            line
            for close in sorted(closed)
            if close >= month
            for one in self.customers(close).values()
            for line in (*one.lines, *one.adjustments)
            if line.key.original_month == month
        )
        return sum_lines(lines)


def derive(reading: Reading, months: Sequence[str]) -> dict[str, DerivedMonth]:
    """Derive consecutive open months, oldest first: what one leaves, the next opens with.

    What later facts change in settled months is charged in the first of them.
    """
    return _derive(reading, months, _History(reading))


def _derive(reading: Reading, months: Sequence[str], history: _History) -> dict[str, DerivedMonth]:
    catalog = reading.catalog()
    late = reading.late_months(catalog)
    assignment = assign(reading.usage(catalog, min([*late, *months]), months[-1]), catalog)
    sources = reading.sources()
    openings = reading.openings(catalog, sources, months[0])
    adjusted = _by_customer(
        adjustments(
            reading,
            Side(catalog, assignment),
            _drawn(openings),
            lambda month: history.charged(month, reading.closed),
        )
    )
    given = _given(history, reading.closed, adjusted)
    derived = {}
    for month in months:
        packs = _pack_states(catalog, openings, adjusted)
        lines = rate_all(assignment.usage, catalog, month=month, packs=packs, through=_through(reading, catalog, month))
        customers = {
            name: derive_month(
                name,
                month,
                lines.get(name, ()),
                opening,
                adjustments=adjusted.get(name, ()),
                drawn_before=given.get(name),
            )
            for name, opening in sorted(openings.items())
        }
        derived[month] = DerivedMonth(month, catalog, assignment, customers, sources)
        openings = {name: next_opening(one) for name, one in customers.items()}
        adjusted, given = {}, {}
    return derived


def _by_customer(lines: Iterable[ChargeLine]) -> Lines:
    by_customer: dict[str, list[ChargeLine]] = defaultdict(list)
    for line in lines:
        by_customer[line.key.customer].append(line)
    return by_customer


def _through(reading: Reading, catalog: Catalog, month: str) -> date | None:
    """Return the day up to which a running month is charged; None once it is over."""
    today = reading.home.today(ZoneInfo(catalog.zone_name))
    return today if today <= month_days(month)[1] else None


def _drawn(openings: Mapping[str, Opening]) -> dict[str, int]:
    """Return how much of each pack closed periods used, in parts of the unit."""
    return {pack: quantity for opening in openings.values() for pack, quantity in opening.pack_drawn.items()}


def _pack_states(catalog: Catalog, openings: Mapping[str, Opening], adjusted: Lines) -> dict[str, PackState]:
    drawn = _drawn(openings)
    for pack, quantity in pack_use(line for own in adjusted.values() for line in own).items():
        drawn[pack] = drawn.get(pack, 0) + quantity
    return pack_states(catalog, drawn)


def _given(history: _History, closed: Iterable[str], adjusted: Lines) -> dict[str, Given]:
    """Return, for lines that corrections make smaller, what they were drawn from when they were charged."""
    smaller = {
        (name, line.key.original_month)
        for name, lines in adjusted.items()
        for line in lines
        if any(split.amount_minor < 0 for split in line.splits)
    }
    given: dict[str, Given] = defaultdict(lambda: defaultdict(list))
    if smaller:
        first = min(month for _, month in smaller)
        for month in sorted(m for m in closed if m >= first):
            for name, one in history.customers(month).items():
                for line, parts in draws_by_line(one).items():
                    given[name][line].extend(parts)
    return given
