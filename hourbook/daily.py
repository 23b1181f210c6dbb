"""What a customer used and was charged day by day: for its page, its burn rate and its days left."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from fractions import Fraction

from sqlmodel import Session

from base.period import days_period, each_day, month_days, month_of
from hourbook.closes import closes_by_month
from hourbook.reading import Reading
from hourbook.refreshing import current_pins
from hourbook.settings import Home
from pricing.assignment import assign
from pricing.charges import HOUR_SCALE
from pricing.packs import PackState
from pricing.rating import rate_month


@dataclass(frozen=True)
class DayOfUse:
    """One local day: hours exactly, and what it costs at the prices in force, before packs."""

    day: date
    core_hours: Fraction
    card_hours: Fraction
    amount_minor: int


def days_of_use(home: Home, session: Session, customer: str, first: date, last: date) -> list[DayOfUse]:
    """Return every day from first to last, both included, also those without use."""
    reading = Reading(home, session, current_pins(session), closes_by_month(session))
    catalog = reading.catalog()
    begin, end = month_days(month_of(first))[0], month_days(month_of(last))[1]
    period = days_period(begin, end, catalog.zone(customer))
    usage = assign(reading.usage_between(period.start, period.end), catalog).usage
    hours: dict[tuple[date, str], int] = defaultdict(int)
    amounts: dict[date, int] = defaultdict(int)
    no_packs: dict[str, PackState] = {}
    for month in sorted({month_of(day) for day in each_day(first, last)}):
        for line in rate_month(usage, catalog, customer=customer, month=month, packs=no_packs):
            for split in line.splits:
                hours[split.day, line.unit] += split.quantity
                amounts[split.day] += split.amount_minor
    return [
        DayOfUse(
            day,
            Fraction(hours[day, "core-hour"], HOUR_SCALE),
            Fraction(hours[day, "card-hour"], HOUR_SCALE),
            amounts[day],
        )
        for day in each_day(first, last)
    ]
