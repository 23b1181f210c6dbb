"""What was used and what it costs, for every customer, as of a set of numbers: the same numbers give the same months.

Accrual derives the open months as of now, the close derives one month as of the numbers it pinned, and `rebuild` does
it again later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from zoneinfo import ZoneInfo

from base.money import round_half_away
from base.period import month_days
from hourbook.reading import Reading, Sources
from invoices.month import CustomerMonth, Opening, derive_month, differences, draws_by_line, next_opening, pack_of
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


def derive(reading: Reading, months: Sequence[str]) -> dict[str, DerivedMonth]:
    """Derive consecutive open months, oldest first: what one leaves, the next opens with.

    What later facts change in closed months is charged in the first of them.
    """
    catalog = reading.catalog()
    assignment = assign(reading.usage(catalog, months[0], months[-1]), catalog)
    sources = reading.sources()
    openings = reading.openings(catalog, sources, months[0])
    adjusted: Lines = _adjustments(reading, catalog, openings)
    given = _given(reading, adjusted)
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


def _flat(lines: Lines) -> list[ChargeLine]:
    return [line for own in lines.values() for line in own]


def _through(reading: Reading, catalog: Catalog, month: str) -> date | None:
    """Return the day up to which a running month is charged; None once it is over."""
    today = reading.home.today(ZoneInfo(catalog.zone_name))
    return today if today <= month_days(month)[1] else None


def _drawn(openings: Mapping[str, Opening]) -> dict[str, int]:
    """Return how much of each pack closed periods used, in parts of the unit."""
    return {pack: quantity for opening in openings.values() for pack, quantity in opening.pack_drawn.items()}


def _pack_states(catalog: Catalog, openings: Mapping[str, Opening], adjusted: Lines) -> dict[str, PackState]:
    drawn = _drawn(openings)
    for pack, quantity in _pack_use(_flat(adjusted)).items():
        drawn[pack] = drawn.get(pack, 0) + quantity
    return _states(catalog, drawn)


def _states(catalog: Catalog, drawn: Mapping[str, int]) -> dict[str, PackState]:
    states = {}
    for name, pack in catalog.packs.items():
        used = drawn.get(name, 0)
        released = Fraction(catalog.minor(pack.price) * used, pack.quantity * catalog.scale(pack.sku))
        states[name] = PackState(pack, used, round_half_away(released))
    return states


def _pack_use(lines: Iterable[ChargeLine]) -> dict[str, int]:
    use: dict[str, int] = defaultdict(int)
    for line in lines:
        if pack := pack_of(line.key):
            use[pack] += line.quantity
    return use


def _adjustments(reading: Reading, catalog: Catalog, openings: Mapping[str, Opening]) -> dict[str, list[ChargeLine]]:
    """Return what facts recorded after the last close change in the closed months, by customer."""
    changed: dict[str, list[ChargeLine]] = defaultdict(list)
    if not reading.closed:
        return changed
    charged = reading.as_charged(max(reading.closed))
    if (charged.pins.recorded_seq, charged.pins.config_seq) == (reading.pins.recorded_seq, reading.pins.config_seq):
        return changed
    before, drawn = charged.catalog(), _drawn(openings)
    for month in sorted(reading.closed):
        then = assign(charged.usage(before, month, month), before)
        now = assign(reading.usage(catalog, month, month), catalog)
        if charged.pins.config_seq == reading.pins.config_seq and then.usage.equals(now.usage):
            continue
        # A pack's rest today is what its late usage may still draw, so both sides start from all other use of it.
        earlier = {
            key.detail: amount
            for key, amount in reading.accrued(m for m in reading.closed if m < month).items()
            if key.code == "liabilities:pack"
        }
        use = _pack_use(_flat(rate_all(then.usage, before, month=month, packs=_states(before, earlier))))
        others = {pack: quantity - use.get(pack, 0) for pack, quantity in drawn.items()}
        was = _flat(rate_all(then.usage, before, month=month, packs=_states(before, others)))
        is_now = _flat(rate_all(now.usage, catalog, month=month, packs=_states(catalog, others)))
        for pack, quantity in _pack_use(is_now).items():
            drawn[pack] = others.get(pack, 0) + quantity
        for line in differences(is_now, was):
            changed[line.key.customer].append(line)
    return changed


def _given(reading: Reading, adjusted: Lines) -> dict[str, Given]:
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
        for month in sorted(m for m in reading.closed if m >= first):
            for name, one in derive(reading.as_charged(month), [month])[month].customers.items():
                for line, parts in draws_by_line(one).items():
                    given[name][line].extend(parts)
    return given
