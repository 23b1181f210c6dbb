"""What a customer used and was charged day by day: for its page, its burn rate and its days left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from fractions import Fraction

from sqlmodel import Session

from base.period import days_period, each_day, each_month, month_days, month_of
from hourbook.closes import closes_by_month
from hourbook.reading import Reading
from hourbook.refreshing import current_pins
from hourbook.settings import Home
from pricing.assignment import assign
from pricing.catalog import Catalog
from pricing.charges import HOUR_SCALE, Split
from pricing.packs import PackState
from pricing.rating import rate_month


@dataclass(frozen=True)
class DayOfUse:
    """One local day: hours exactly, and what it costs at the prices in force, before packs."""

    day: date
    core_hours: Fraction
    card_hours: Fraction
    amount_minor: int


Used = tuple[str, Split]  # in which unit, and what a day, project and user used of it


def days_of_use(home: Home, session: Session, customer: str, first: date, last: date) -> list[DayOfUse]:
    """Return every day from first to last, both included, also those without use."""
    reading = Reading(home, session, current_pins(session), closes_by_month(session))
    return by_day(splits_of_use(reading, reading.catalog(), customer, first, last), first, last)


def splits_of_use(reading: Reading, catalog: Catalog, customer: str, first: date, last: date) -> list[Used]:
    """Return what was used from first to last, at the prices in force, before packs."""
    months = list(each_month(month_of(first), month_of(last)))
    period = days_period(month_days(months[0])[0], month_days(months[-1])[1], catalog.zone(customer))
    usage = assign(reading.usage_between(period.start, period.end), catalog).usage
    no_packs: dict[str, PackState] = {}
    return [
        (line.unit, split)
        for month in months
        for line in rate_month(usage, catalog, customer=customer, month=month, packs=no_packs)
        for split in line.splits
        if first <= split.day <= last
    ]


def by_day(used: Iterable[Used], first: date, last: date) -> list[DayOfUse]:
    """Add up use by day, from first to last, both included."""
    hours: dict[tuple[date, str], int] = defaultdict(int)
    amounts: dict[date, int] = defaultdict(int)
    for unit, split in used:
        hours[split.day, unit] += split.quantity
        amounts[split.day] += split.amount_minor
    return [
        DayOfUse(day, hours_of(hours[day, "core-hour"]), hours_of(hours[day, "card-hour"]), amounts[day])
        for day in each_day(first, last)
    ]


def hours_of(quantity: int) -> Fraction:
    """Return a quantity in parts of an hour as hours, exactly."""
    return Fraction(quantity, HOUR_SCALE)
